//! The build context: the tree of a commit, as a tar archive, out of a bare repository of ours.
//!
//! Whatever was pushed, the archive holds only regular files, folders and symbolic links, and no name or link in it leads
//! out of it.

mod bounds;
mod check;

use std::io::Read;
use std::path::Path;

use bytes::Bytes;

pub use bounds::Unbounded;
pub use check::Refused;

use crate::git::{Commit, Repository, RepositoryError};

/// The largest context. It is held in memory while the engine takes it.
pub const CONTEXT_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// The largest Dockerfile.
const DOCKERFILE_MAX_BYTES: u64 = 1024 * 1024;

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The repository's.
    #[error(transparent)]
    Repository(RepositoryError),
    /// The tree is too large.
    #[error("the commit's files are larger than {} MiB together: leave out what can be made or fetched while the image is built", .0 / 1024 / 1024)]
    TooLarge(u64),
    /// It has too many names, or too deep or too long ones.
    #[error(transparent)]
    Unbounded(#[from] Unbounded),
    /// Something in the tree must not be there.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The tree of a commit.
pub async fn context(repository: &Repository, commit: &Commit) -> Result<Bytes, ContextError> {
    limited(repository, commit, CONTEXT_MAX_BYTES, bounds::BOUNDS).await
}

async fn limited(
    repository: &Repository,
    commit: &Commit,
    limit: u64,
    bounds: bounds::Bounds,
) -> Result<Bytes, ContextError> {
    bounds::hold(repository, commit, bounds).await?;
    let archive = repository.archive(commit, limit).await.map_err(|error| match error {
        RepositoryError::TooMuch { limit, .. } => ContextError::TooLarge(limit),
        error => ContextError::Repository(error),
    })?;
    check::check(&archive)?;
    Ok(archive)
}

/// The text of the Dockerfile at the root of a context; `None` where there is none.
pub fn dockerfile(context: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(context);
    for entry in archive.entries().ok()? {
        let entry = entry.ok()?;
        let path = entry.path().ok()?.into_owned();
        if path.strip_prefix(".").unwrap_or(&path) == Path::new("Dockerfile") {
            let mut text = Vec::new();
            entry.take(DOCKERFILE_MAX_BYTES).read_to_end(&mut text).ok()?;
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
    }
    None
}

/// A context of the given files: name, content, mode. The same files make the same bytes.
pub fn archive(files: &[(&str, &[u8], u32)]) -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, name, *content).expect("names are short and memory takes all");
    }
    archive.into_inner().expect("memory takes all").into()
}

#[cfg(test)]
mod tests;
