//! Counts with a most, of things that many threads begin and end.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counts one more unless there are `most`; returns how many there were.
pub(crate) fn enter(count: &AtomicU32, most: u32) -> Option<u32> {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now < most).then_some(now + 1)).ok()
}
