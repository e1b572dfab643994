//! Numbers nobody can guess cheaply, for request ids and for choosing among endpoints; not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A keyed hash over a counter; each worker has its own.
#[derive(Debug, Default)]
pub(crate) struct Dice {
    key: RandomState,
    rolled: AtomicU64,
}

impl Dice {
    /// The next number.
    pub(crate) fn roll(&self) -> u64 {
        self.key.hash_one(self.rolled.fetch_add(1, Ordering::Relaxed))
    }

    /// A new request id.
    pub(crate) fn request_id(&self) -> String {
        format!("{:016x}{:016x}", self.roll(), self.roll())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let dice = Dice::default();
        assert_ne!(dice.request_id(), dice.request_id());
    }
}
