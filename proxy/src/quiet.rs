//! What can happen with every request is logged at most once in [`PERIOD_MS`], with how often it was left out before.
//!
//! One for each environment, in its cell, so that one that is broken does not silence the others; one for what is of no
//! environment, in [`crate::edge::Edge`]. Lock-free, because it is asked on the path of requests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Between two lines, in milliseconds.
const PERIOD_MS: u64 = 1000;

/// Nothing was said yet.
const NEVER: u64 = u64::MAX;

/// Whether to say something now.
#[derive(Debug)]
pub(crate) struct Quiet {
    spoke: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { spoke: AtomicU64::new(NEVER), left_out: AtomicU64::new(0) }
    }
}

impl Quiet {
    /// How many were left out before, if one is to be said at `now` (in milliseconds); `None` if it is to be left out.
    pub(crate) fn say(&self, now: u64) -> Option<u64> {
        let spoke = self.spoke.load(Ordering::Relaxed);
        let due = spoke == NEVER || now.saturating_sub(spoke) >= PERIOD_MS;
        // Of several threads that find it due, one speaks.
        if due && self.spoke.compare_exchange(spoke, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let quiet = Quiet::default();
        assert_eq!(quiet.say(0), Some(0), "the first one is always said");
        assert_eq!([0, 1, 500, 999].map(|now| quiet.say(now)), [None; 4]);
        assert_eq!(quiet.say(1000), Some(4));
        assert_eq!(quiet.say(1999), None);
        assert_eq!(quiet.say(60_000), Some(1));
        assert_eq!(quiet.say(61_000), Some(0));
    }

    #[test]
    fn of_many_threads_at_one_moment_one_speaks_and_all_are_counted() {
        let quiet = Quiet::default();
        let said: Vec<u64> = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..1000).filter_map(|_| quiet.say(7)).collect::<Vec<_>>())).collect();
            all.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
        });
        let then = quiet.say(5000).expect("it is due again");
        assert_eq!((said.len(), said[0] + then), (1, 7999));
    }
}
