//! How long to wait before trying again: doubles with each failure, up to a limit, and never for everybody at once.
//!
//! [`Backoff`] is pure: the caller counts its failures and brings the chance.

use std::time::Duration;

/// How far a delay is moved at most, either way, as a part of it.
const JITTER: f64 = 0.2;

/// The delays between attempts of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The delay after `failures` in a row: none after none, then `first`, doubling up to `max`, moved by up to a fifth
    /// either way by `jitter` (0: shortest, 1: longest).
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        // Past 31 doublings any delay worth the name has reached its limit.
        let whole = self.first.saturating_mul(1 << doublings.min(31)).min(self.max);
        let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
        let part = 1.0 - JITTER + 2.0 * JITTER * jitter;
        Duration::try_from_secs_f64(whole.as_secs_f64() * part).unwrap_or(whole)
    }
}

/// A random number from 0 to 1, so that not everybody tries again at once.
pub(crate) fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_up_to_its_limit() {
        let seconds: Vec<_> = (0..9).map(|failures| Backoff::default().delay(failures, 0.5).as_secs_f64()).collect();
        assert_eq!(seconds, [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    }

    proptest! {
        #[test]
        fn more_failures_never_wait_less_and_every_delay_is_bounded(
            first in 1u64..10_000, longer in 0u64..1_000_000, failures: u32, jitter in 0.0..=1.0,
        ) {
            let (first, max) = (Duration::from_millis(first), Duration::from_millis(first + longer));
            let backoff = Backoff { first, max };
            let failures = failures.max(1);
            let delay = backoff.delay(failures, jitter);
            prop_assert!(delay <= backoff.delay(failures.saturating_add(1), jitter));
            // A microsecond for what a float rounds.
            let slack = Duration::from_micros(1);
            prop_assert!(delay + slack >= first.mul_f64(0.8) && delay <= max.mul_f64(1.2) + slack);
            let middle = backoff.delay(failures, 0.5);
            prop_assert!(delay + slack >= middle.mul_f64(0.8) && delay <= middle.mul_f64(1.2) + slack);
        }

        #[test]
        fn nothing_panics(first: u64, max: u64, failures: u32, jitter: f64) {
            let backoff = Backoff { first: Duration::from_millis(first), max: Duration::from_millis(max) };
            backoff.delay(failures, jitter);
            Backoff { first: Duration::MAX, max: Duration::MAX }.delay(failures, jitter);
        }
    }
}
