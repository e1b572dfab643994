//! The build context: the tree of a commit, as a tar archive, out of a bare repository of ours.
//!
//! Whatever was pushed, the archive holds only regular files, folders and symbolic links, and no name or link in it leads
//! out of it. What git leaves out of an archive at the wish of the tree itself (`export-ignore`) is in it all the same.
//! git gets an argument list, and of our environment nothing but the search path.

mod check;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

pub use check::Refused;

/// The largest context. It is held in memory while the engine takes it.
pub const CONTEXT_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// The largest Dockerfile.
const DOCKERFILE_MAX_BYTES: u64 = 1024 * 1024;

/// How much is kept of what git says.
const WORDS_MAX_BYTES: u64 = 4 * 1024;

/// The longest time for git to make an archive.
const ARCHIVE_WITHIN: Duration = Duration::from_secs(120);

/// What we say to git about every file: archive it, and as it is. Stands above any `.gitattributes` in the tree.
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Not the whole hexadecimal id of a commit.
    #[error("{0:?} is not a commit's id")]
    Commit(String),
    /// git could not be run, or its files not be written.
    #[error("make an archive with git")]
    Io(#[from] std::io::Error),
    /// git failed: no such commit, or a damaged repository.
    #[error("make an archive of commit {commit}: git says {says}")]
    Git {
        /// Which.
        commit: String,
        /// Its words.
        says: String,
    },
    /// The tree is too large.
    #[error("the commit's files are larger than {} MiB together", .0 / 1024 / 1024)]
    TooLarge(u64),
    /// git took too long.
    #[error("git took longer than {} s to make an archive", .0.as_secs())]
    Deadline(Duration),
    /// Something in the tree must not be there.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The tree of `commit` in the bare `repository`.
pub async fn context(repository: &Path, commit: &str) -> Result<Bytes, ContextError> {
    limited(repository, commit, CONTEXT_MAX_BYTES).await
}

async fn limited(repository: &Path, commit: &str, limit: u64) -> Result<Bytes, ContextError> {
    if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ContextError::Commit(commit.to_owned()));
    }
    neutralise(repository).await?;
    let archive = tokio::time::timeout(ARCHIVE_WITHIN, archive_of(repository, commit, limit)).await;
    let archive = archive.map_err(|_| ContextError::Deadline(ARCHIVE_WITHIN))??;
    check::check(&archive)?;
    Ok(archive)
}

/// Takes from the tree's own attributes the power to change what is archived.
async fn neutralise(repository: &Path) -> Result<(), std::io::Error> {
    let folder = repository.join("info");
    let file = folder.join("attributes");
    if matches!(tokio::fs::read(&file).await, Ok(found) if found == ATTRIBUTES.as_bytes()) {
        return Ok(());
    }
    tokio::fs::create_dir_all(&folder).await?;
    let new = folder.join("attributes.new");
    tokio::fs::write(&new, ATTRIBUTES).await?;
    tokio::fs::rename(&new, &file).await
}

async fn archive_of(repository: &Path, commit: &str, limit: u64) -> Result<Bytes, ContextError> {
    let mut git = git(repository);
    git.args(["archive", "--format=tar"]).arg(format!("{commit}^{{commit}}"));
    // Dropped at the deadline or with the caller, git goes, too.
    let mut child = git.kill_on_drop(true).spawn()?;
    let out = child.stdout.take().expect("it is piped");
    let err = child.stderr.take().expect("it is piped");
    let mut archive = Vec::new();
    // Both at once: git would wait for ever on a pipe that nobody empties.
    let (read, says) = tokio::join!(read_up_to(out, limit + 1, &mut archive), words(err));
    read?;
    if archive.len() as u64 > limit {
        return Err(ContextError::TooLarge(limit));
    }
    if !child.wait().await?.success() {
        return Err(ContextError::Git { commit: commit.to_owned(), says: says? });
    }
    Ok(archive.into())
}

async fn read_up_to(from: impl AsyncRead + Unpin, limit: u64, into: &mut Vec<u8>) -> Result<(), std::io::Error> {
    from.take(limit).read_to_end(into).await.map(drop)
}

/// The beginning of what git says; the rest is read, too, so that git can go on.
async fn words(mut from: impl AsyncRead + Unpin) -> Result<String, std::io::Error> {
    let mut words = Vec::new();
    read_up_to(&mut from, WORDS_MAX_BYTES, &mut words).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&words).trim().to_owned())
}

/// git in `repository`, in an environment without anybody's settings.
fn git(repository: &Path) -> Command {
    let mut git = Command::new("git");
    git.env_clear();
    if let Some(path) = search_path() {
        git.env("PATH", path);
    }
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    git.env("LC_ALL", "C").arg("--git-dir").arg(repository);
    git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    git
}

#[expect(clippy::disallowed_methods, reason = "the search path is no configuration of ours, and only passed on")]
fn search_path() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
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
