//! How many names a commit may have, how deep, and how long: looked at before its tree is archived.
//!
//! A few objects can unfold to more folders than any disk holds, and git takes memory for each name of what it archives. So
//! the names are listed first, up to a limit, which takes no memory of git's.

use crate::git::{Commit, Repository, RepositoryError};

use super::ContextError;

/// How much a commit may have, beside its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Files, folders and links together. Each is looked at here, and written by the engine.
    pub(super) entries: usize,
    /// Folders in folders.
    pub(super) depth: usize,
    /// The longest path, in bytes. Linux takes 4096 with what is in front of it.
    pub(super) path_bytes: usize,
    /// All paths together, in bytes.
    pub(super) names_bytes: u64,
}

/// What holds unless a test says otherwise.
pub(super) const BOUNDS: Bounds = Bounds { entries: 200_000, depth: 100, path_bytes: 2_000, names_bytes: 32 << 20 };

/// How much of a path is shown, in characters.
const SHOWN_CHARACTERS: usize = 80;

/// Why a commit's names are refused. Paths are the developer's own, so they are shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// Too many of them.
    #[error(
        "the commit has more than {0} files and folders: leave out what can be made or fetched while the image is built"
    )]
    Entries(usize),
    /// One is too far down.
    #[error("the commit has folders more than {depth} deep, at {shown}…: make them less deep")]
    Depth {
        /// How deep they may be.
        depth: usize,
        /// The beginning of where.
        shown: String,
    },
    /// One is too long.
    #[error("the commit has a path of more than {bytes} bytes, which begins with {shown}…: make it shorter")]
    Path {
        /// How long it may be.
        bytes: usize,
        /// Its beginning.
        shown: String,
    },
}

/// Lists the commit's names and looks at each.
pub(super) async fn hold(repository: &Repository, commit: &Commit, bounds: Bounds) -> Result<(), ContextError> {
    let names = repository.names(commit, bounds.names_bytes).await.map_err(|error| match error {
        RepositoryError::TooMuch { .. } => ContextError::Unbounded(Unbounded::Entries(bounds.entries)),
        error => ContextError::Repository(error),
    })?;
    Ok(bounds.check(&names)?)
}

impl Bounds {
    /// Looks at names that each end with a NUL.
    fn check(self, names: &[u8]) -> Result<(), Unbounded> {
        let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        for (before, name) in names.enumerate() {
            if before >= self.entries {
                return Err(Unbounded::Entries(self.entries));
            }
            let shown = || String::from_utf8_lossy(name).chars().take(SHOWN_CHARACTERS).collect();
            // The last part is the file's own name.
            if name.iter().filter(|&&byte| byte == b'/').count() > self.depth {
                return Err(Unbounded::Depth { depth: self.depth, shown: shown() });
            }
            if name.len() > self.path_bytes {
                return Err(Unbounded::Path { bytes: self.path_bytes, shown: shown() });
            }
        }
        Ok(())
    }
}
