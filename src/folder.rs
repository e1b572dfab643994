//! The data folder: for its owner only, for one process at a time, and what clients find in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Where the API of the process that holds the folder listens.
pub(crate) const ADDRESS_FILE: &str = "api.addr";
/// The token of whoever may read that file.
pub(crate) const TOKEN_FILE: &str = "admin.token";
/// Held by the process that uses the folder.
const LOCK_FILE: &str = "lock";

/// The largest of these files, in bytes.
const SMALL_MAX_BYTES: u64 = 4096;

const MODE_FOLDER: u32 = 0o700;
const MODE_SECRET: u32 = 0o600;

/// A data folder that this process holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // To close it would not do: a program that is being started has a copy of it until it runs.
        let _ = self.lock.unlock();
    }
}

impl Folder {
    /// Makes the folder where it is missing, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        DirBuilder::new().recursive(true).mode(MODE_FOLDER).create(path).map_err(|error| cannot(path, &error))?;
        let path = path.canonicalize().map_err(|error| cannot(path, &error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(MODE_SECRET)
            .open(path.join(LOCK_FILE))
            .map_err(|error| cannot(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("another Dormouse uses the folder {}", path.display());
                return Err(
                    Failure::new(Exit::TryLater, what).hint("stop it first, or name another folder with --data")
                );
            }
            Err(TryLockError::Error(error)) => return Err(cannot(&path, &error)),
        }
        // What lies in it is secret: keys, tokens, variables.
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE_FOLDER)).map_err(|error| cannot(&path, &error))?;
        Ok(Self { path, lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The token of this installation; made at the first start.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        let file = self.path.join(TOKEN_FILE);
        match small(&file) {
            Ok(Some(token)) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return unread(&file).map(|()| token);
            }
            Ok(Some(_)) => return Err(damaged(&file)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(&file).because(&error)),
            Err(error) => return Err(cannot(&file, &error)),
        }
        let token = random_token().map_err(|error| cannot(&file, &error))?;
        replace(&file, &format!("{token}\n")).map_err(|error| cannot(&file, &error))?;
        Ok(token)
    }

    /// Tells clients where the API listens.
    pub(crate) fn announce(&self, api: SocketAddr) -> Result<(), Failure> {
        let file = self.path.join(ADDRESS_FILE);
        replace(&file, &format!("{api}\n")).map_err(|error| cannot(&file, &error))
    }

    /// Nobody listens any more.
    pub(crate) fn retract(&self) {
        // A left-over address only makes clients say that nobody answers there.
        let _ = fs::remove_file(self.path.join(ADDRESS_FILE));
    }
}

/// The text of a small file, without the white space around it; `None` where there is no file, or no text in it.
pub(crate) fn small(file: &Path) -> io::Result<Option<String>> {
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let missing = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    match fs::metadata(file) {
        Ok(found) if found.is_file() => {}
        // Whoever opens a pipe waits for its other end.
        Ok(_) => return wrong("it is no file"),
        Err(error) if missing(error.kind()) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(SMALL_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL_MAX_BYTES {
        return wrong("it is larger than anything Dormouse writes there");
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(_) => wrong("it holds no text"),
    }
}

/// Refuses a secret that others than its owner may have read.
fn unread(file: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(file).map_err(|error| cannot(file, &error))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let what = format!("others can read the token in {} (mode {mode:03o})", file.display());
    Err(Failure::new(Exit::Configuration, what).hint(format!(
        "if nobody knows it, run: chmod 600 {}   otherwise remove it: the next start makes a new one",
        file.display()
    )))
}

fn damaged(file: &Path) -> Failure {
    Failure::new(Exit::Configuration, format!("{} holds no token", file.display()))
        .hint("bring it back from your backup, or remove it: the next start makes a new one")
}

/// Writes a file for its owner only, whole or not at all.
pub(crate) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut open = OpenOptions::new().create_new(true).write(true).mode(MODE_SECRET).open(&new)?;
    let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        // Half a file is of no use to anybody.
        let _ = fs::remove_file(&new);
    }
    written
}

/// 256 random bits, hexadecimal.
fn random_token() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    if dormouse_control::is_disk_full(error) {
        return Failure::disk_full(path).because(error);
    }
    Failure::new(Exit::CannotCreate, format!("cannot use {}", path.display()))
        .because(error)
        .hint("make it writable for this user, or name another folder with --data DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_process_and_for_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::take(&path).unwrap();
        assert_eq!(Folder::take(&path).unwrap_err().exit(), Exit::TryLater);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), MODE_FOLDER);
        let token = folder.token().unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(folder.token().unwrap(), token, "it stays the same");
        assert_eq!(mode(&path.join(TOKEN_FILE)), MODE_SECRET);
        folder.announce("127.0.0.1:1".parse().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(path.join(ADDRESS_FILE)).unwrap(), "127.0.0.1:1\n");
        folder.retract();
        assert!(!path.join(ADDRESS_FILE).exists());
        drop(folder);
        Folder::take(&path).unwrap();
    }

    #[test]
    fn a_token_that_is_none_or_known_to_others_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::take(parent.path()).unwrap();
        let file = parent.path().join(TOKEN_FILE);
        for bad in [&b"\xff\xfe"[..], b"two words", b"a\x1b[2J", &[b'x'; 5000], &[b'\n'; 5000]] {
            replace(&file, "").unwrap();
            fs::write(&file, bad).unwrap();
            assert_eq!(folder.token().unwrap_err().exit(), Exit::Configuration, "{bad:?}");
            assert_eq!(fs::read(&file).unwrap(), bad, "it is left as it is");
        }
        fs::write(&file, "known").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(folder.token().unwrap_err().exit(), Exit::Configuration);
        fs::set_permissions(&file, fs::Permissions::from_mode(MODE_SECRET)).unwrap();
        assert_eq!(folder.token().unwrap(), "known");
        fs::write(&file, " \n").unwrap();
        assert_eq!(folder.token().unwrap().len(), 64, "of an empty one a new one is made");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(folder.token().unwrap_err().exit(), Exit::Configuration);
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(Folder::take(&file.join("x")).unwrap_err().exit(), Exit::CannotCreate);
    }
}
