//! Connections of one listener. Few beside requests, so all workers count them in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a listener closed a connection at once.
const REASONS: [&str; 4] = ["connections", "client", "handshakes", "streams"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Door {
    pub(super) name: String,
    accepted: AtomicU64,
    ended: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
}

/// A connection that is served; counted as open until its drop.
#[derive(Debug)]
pub(crate) struct Inside(Arc<Door>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Door {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            accepted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; REASONS.len()],
        })
    }

    /// A connection was accepted.
    pub(crate) fn enter(self: &Arc<Self>) -> Inside {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Inside(Arc::clone(self))
    }

    /// A connection was closed at once, for one of [`REASONS`] by its number.
    pub(crate) fn refuse(&self, reason: usize) {
        if let Some(count) = self.refused.get(reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn open(&self) -> u64 {
        let ended = self.ended.load(Ordering::Acquire);
        self.accepted().saturating_sub(ended)
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.refused).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}
