//! Errors in words: an error and what caused it, as one line; and the one cause that somebody must be told of by its name.

use std::io;

use crate::git::RepositoryError;
use crate::store::StoreError;

/// `failed to …: because …: because …`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = format!("failed to {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

/// Whether the disk that holds the data folder is full, or the quota there is used up: nobody's fault but the disk's, and gone
/// as soon as there is room.
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(io, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || matches!(error.downcast_ref(), Some(StoreError::DiskFull(_)))
            || error.downcast_ref().is_some_and(RepositoryError::is_disk_full)
        {
            return true;
        }
        next = error.source();
    }
    false
}
