//! How many requests of an environment are tried again: a part of all of them, so that retries never become the load that
//! an environment fails under; and some each second, so that one with few requests has retries at all.
//!
//! Each request adds its part, each retry takes one; atomics only.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::config::Limits;

/// The most retries that are saved up.
const SAVED_MAX: u64 = 100;
/// A retry, in the parts that are counted.
const RETRY: u64 = 100_000;

/// What an environment has left.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Requests that were not added yet.
    requests: AtomicU32,
    /// Parts in the upper half, when they were counted in the lower one, in milliseconds on the edge's clock.
    saved: AtomicU64,
}

impl Default for Budget {
    /// With what a quiet environment has.
    fn default() -> Self {
        Self { requests: AtomicU32::new(0), saved: AtomicU64::new((SAVED_MAX * RETRY / 10) << 32) }
    }
}

impl Budget {
    /// A request began.
    pub(crate) fn earn(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry; whether there was one.
    pub(crate) fn take(&self, now: u64, limits: &Limits) -> bool {
        let requests = u64::from(self.requests.swap(0, Ordering::Relaxed));
        let mut taken = false;
        // Always with a result: the time of the last count is noted in any case.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let passed = u64::from((now as u32).wrapping_sub(word as u32));
            let parts = (word >> 32) + earned(requests, passed, limits);
            let parts = parts.min(SAVED_MAX * RETRY);
            taken = parts >= RETRY;
            Some(((parts - if taken { RETRY } else { 0 }) << 32) | (now & 0xffff_ffff))
        });
        taken
    }
}

/// What was done about failures, in all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    retries: AtomicU64,
    retries_refused: AtomicU64,
    left_out: AtomicU64,
}

impl Tally {
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was not tried again, since too many were.
    pub(crate) fn refused(&self) {
        self.retries_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// An instance gets no requests for a while.
    pub(crate) fn left_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Retries, those that were refused, and instances that were left out.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [&self.retries, &self.retries_refused, &self.left_out].map(|count| count.load(Ordering::Relaxed))
    }

    /// For operators.
    pub(crate) fn shown(&self) -> Value {
        let [done, refused, left_out] = self.counts();
        json!({"done": done, "refused": refused, "instances_left_out": left_out})
    }
}

fn earned(requests: u64, passed: u64, limits: &Limits) -> u64 {
    let of_requests = requests * u64::from(limits.retry_percent) * (RETRY / 100);
    of_requests + passed.saturating_mul(u64::from(limits.retries_per_second) * (RETRY / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { retry_percent: 20, retries_per_second: 2, ..Limits::default() }
    }

    fn taken(budget: &Budget, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| budget.take(now, &limits())).count()
    }

    #[test]
    fn of_many_requests_a_fifth_is_tried_again() {
        let budget = Budget::default();
        taken(&budget, 0, 1000);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += taken(&budget, 0, 1);
        }
        assert_eq!(retries, 2000);
    }

    #[test]
    fn there_are_some_each_second_and_no_more_than_so_many_are_saved() {
        let budget = Budget::default();
        assert_eq!(taken(&budget, 0, 1000), SAVED_MAX as usize / 10);
        assert_eq!(taken(&budget, 499, 1000), 0);
        assert_eq!(taken(&budget, 500, 1000), 1);
        assert_eq!(taken(&budget, 2500, 1000), 4);
        assert_eq!(taken(&budget, 1_000_000_000, 1000), SAVED_MAX as usize);
        for _ in 0..100_000 {
            budget.earn();
        }
        assert_eq!(taken(&budget, 1_000_000_000, 1000), SAVED_MAX as usize);
    }
}
