//! What a git leaves in a repository when it is killed in mid-push: the lock of a ref, which would refuse every later push, and
//! objects that were never taken in.
//!
//! The sweeper calls this now and then. A git that outlived the program may still hold what is young, so only what is too old
//! for that goes.

use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Repository;
use super::limits::REF_MAX_BYTES;

/// Git holds the lock of a ref for moments; one of this age is nobody's.
const LOCK_AGE: Duration = Duration::from_secs(60);

/// Objects that come in are set aside until their push ends, which is within an hour.
const INCOMING_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Refs lie this many folders deep at most: each folder of a name takes a letter and a slash.
const DEPTH: usize = REF_MAX_BYTES / 2;

impl Repository {
    /// Removes what no git holds any more at the time `now`.
    pub(crate) fn remove_leftovers(&self, now: SystemTime) {
        remove_locks(self.path(), now, 0);
        remove_locks(&self.path().join("refs"), now, DEPTH);
        for found in entries(&self.path().join("objects")) {
            let name = found.file_name();
            let name = name.to_string_lossy();
            let incoming = name.starts_with("tmp_objdir-") || name.starts_with("incoming-");
            if incoming && is_older(&found, INCOMING_AGE, now) {
                told(&found.path(), fs::remove_dir_all(found.path()));
            }
        }
    }
}

fn remove_locks(folder: &Path, now: SystemTime, depth: usize) {
    // Not by calling itself: one folder is open at a time, however deep it goes.
    let mut folders = vec![(folder.to_owned(), depth)];
    while let Some((folder, depth)) = folders.pop() {
        for found in entries(&folder) {
            let Ok(kind) = found.file_type() else { continue };
            if kind.is_dir() && depth > 0 {
                folders.push((found.path(), depth - 1));
            } else if kind.is_file()
                && found.path().extension().is_some_and(|end| end == "lock")
                && is_older(&found, LOCK_AGE, now)
            {
                told(&found.path(), fs::remove_file(found.path()));
            }
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

fn is_older(found: &DirEntry, age: Duration, now: SystemTime) -> bool {
    let written = found.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| now.duration_since(written).is_ok_and(|old| old >= age))
}

fn told(path: &Path, removed: std::io::Result<()>) {
    match removed {
        Ok(()) => tracing::warn!(path = %path.display(), "removed what a killed git had left"),
        Err(error) => tracing::warn!(%error, path = %path.display(), "what a killed git had left was not removed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_locks_and_objects_set_aside_go_and_young_ones_and_refs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("refs/heads/feature")).unwrap();
        fs::create_dir_all(path("objects/tmp_objdir-incoming-a1")).unwrap();
        fs::create_dir_all(path("objects/pack")).unwrap();
        let locks = ["packed-refs.lock", "refs/heads/develop.lock", "refs/heads/feature/x.lock"];
        let refs = ["packed-refs", "refs/heads/develop", "refs/heads/feature/x"];
        for name in locks.iter().chain(&refs) {
            fs::write(path(name), "").unwrap();
        }
        let there = |names: &[&str]| names.iter().filter(|name| path(name).exists()).count();
        let now = SystemTime::now();
        repository.remove_leftovers(now);
        assert_eq!(there(&locks), 3, "a git may hold them");
        repository.remove_leftovers(now + LOCK_AGE + Duration::from_secs(1));
        assert_eq!(there(&locks), 0);
        assert_eq!(there(&["objects/tmp_objdir-incoming-a1"]), 1, "a push may take an hour");
        repository.remove_leftovers(now + INCOMING_AGE + Duration::from_secs(1));
        assert_eq!(there(&["objects/tmp_objdir-incoming-a1"]), 0);
        assert_eq!((there(&refs), there(&["objects/pack"])), (3, 1));
    }

    #[test]
    fn the_lock_of_the_deepest_ref_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let name = format!("refs/heads/{}", "a/".repeat(REF_MAX_BYTES));
        let lock = folder.path().join(format!("{}.lock", name[..REF_MAX_BYTES].trim_end_matches('/')));
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        fs::write(&lock, "").unwrap();
        repository.remove_leftovers(SystemTime::now() + LOCK_AGE + Duration::from_secs(1));
        assert!(!lock.exists());
    }
}
