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

/// What a tar archive is made of.
const BLOCK: u64 = 512;

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

/// The context with another Dockerfile, made from the one it has, in two pieces: the archive, and a file that comes over one of
/// it. `None` where there is none, or not a plain file of a usual size.
pub fn with_dockerfile(context: &Bytes, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<[Bytes; 2]> {
    let (mut end, mut found) = (0, None);
    for entry in tar::Archive::new(&context[..]).entries().ok()? {
        let mut entry = entry.ok()?;
        let size = entry.size();
        end = entry.raw_file_position() + size.next_multiple_of(BLOCK);
        let is_dockerfile =
            entry.path().is_ok_and(|path| path.strip_prefix(".").unwrap_or(&path) == Path::new("Dockerfile"));
        if is_dockerfile && entry.header().entry_type().is_file() && size <= DOCKERFILE_MAX_BYTES {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).ok()?;
            found = Some((entry.header().clone(), text));
        }
    }
    let (mut header, text) = found?;
    let text = change(&text);
    header.set_size(text.len() as u64);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &text[..]).expect("memory takes all");
    let over = archive.into_inner().expect("memory takes all");
    let end = usize::try_from(end).ok().filter(|end| *end <= context.len())?;
    Some([context.slice(..end), over.into()])
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
