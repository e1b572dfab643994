//! Where an edge's successor knocks: a Unix socket in a folder of this user alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::failure::{Exit, Failure};
use crate::plain;

/// The socket's name in the folder.
const SOCKET: &str = "edge.sock";

/// A folder that only this user gets into; made if it is not there.
pub(super) fn folder(folder: &Path) -> Result<(), Failure> {
    let shown = plain::value(&folder.to_string_lossy());
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(Exit::CannotCreate, format!("cannot make the folder {shown} (--run)"))
                .because(&error)
                .hint("is its parent there, and writable?"));
        }
        _ => {}
    }
    let found = fs::metadata(folder).map_err(|error| {
        Failure::new(Exit::Configuration, format!("cannot look at the folder {shown} (--run)"))
            .because(&error)
            .hint("name a folder of this user alone, or one that can be made")
    })?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !ours || found.permissions().mode() & 0o077 != 0 {
        return Err(Failure::new(Exit::Configuration, format!("{shown} is no folder of this user alone (--run)"))
            .hint("who gets in can take over the listening sockets: chmod 700 it, or name another"));
    }
    Ok(())
}

/// Connects to the edge that runs with a folder, if one does.
pub(super) async fn knock(folder: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(folder.join(SOCKET)).await
}

/// Makes sure that no edge runs with a folder.
pub(super) async fn vacant(folder: &Path) -> Result<(), Failure> {
    self::folder(folder)?;
    match knock(folder).await {
        // Nobody listens at what is left of one that was killed.
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::new(
            Exit::TryLater,
            format!("an edge runs with the folder {}", plain::value(&folder.to_string_lossy())),
        )
        .hint("add --upgrade to take over from it, or name another folder with --run")),
    }
}

/// The door of the edge that serves; shut when it is dropped.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    listener: UnixListener,
    /// Of the socket, while it is ours to remove.
    inode: Option<u64>,
}

impl Door {
    /// Opens it, in place of the predecessor's. There is one at any moment.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let beside = folder.join(format!("{SOCKET}.{}", std::process::id()));
        let path = folder.join(SOCKET);
        let open = || {
            // Of a process with this id that was killed.
            let _none = fs::remove_file(&beside);
            let listener = UnixListener::bind(&beside)?;
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
            let inode = fs::metadata(&beside)?.ino();
            fs::rename(&beside, &path)?;
            io::Result::Ok((listener, inode))
        };
        let (listener, inode) = open().map_err(|error| {
            Failure::new(Exit::CannotCreate, format!("cannot listen on {}", plain::value(&path.to_string_lossy())))
                .because(&error)
                .hint("name a folder with a shorter path, on a disk that has room (--run)")
        })?;
        Ok(Self { path, listener, inode: Some(inode) })
    }

    /// The next one who knocks. Cancel-safe.
    pub(super) async fn knocked(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Leaves the place to a successor's.
    pub(super) fn leave(mut self) {
        self.inode = None;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|found| Some(found.ino()) == self.inode) {
            // If it cannot be removed, the next edge replaces it.
            let _left = fs::remove_file(&self.path);
        }
    }
}
