//! How fast a client sends a body or reads an answer while it is waited for; whoever is slower than a least rate over a
//! window is cut off.
//!
//! Pure; asked by the connection. Only time in which the client is waited for counts, so a slow instance is not held against
//! its client. A client that stands still altogether is ended by the limit for one read or one write.

use std::time::Duration;

use tokio::time::Instant;

/// One direction of one message.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second, at least.
    rate: u64,
    window: Duration,
    /// Since when the client is waited for.
    since: Option<Instant>,
    /// In this window.
    waited: Duration,
    /// In this window.
    moved: u64,
}

/// The client is slower than it may be.
#[derive(Debug, PartialEq)]
pub(crate) struct TooSlow;

impl Pace {
    pub(crate) fn new(rate: u64, window: Duration) -> Self {
        Self { rate, window, since: None, waited: Duration::ZERO, moved: 0 }
    }

    /// Begins a message.
    pub(crate) fn begin(&mut self) {
        *self = Self::new(self.rate, self.window);
    }

    /// Nothing can be moved now.
    pub(crate) fn waits(&mut self, now: Instant) -> Result<(), TooSlow> {
        let since = *self.since.get_or_insert(now);
        self.judge(self.waited + now.saturating_duration_since(since))
    }

    /// So many bytes were moved. The clock is read only after a wait.
    pub(crate) fn moved(&mut self, bytes: usize, now: impl FnOnce() -> Instant) -> Result<(), TooSlow> {
        self.moved = self.moved.saturating_add(bytes as u64);
        let Some(since) = self.since.take() else { return Ok(()) };
        self.waited += now().saturating_duration_since(since);
        self.judge(self.waited)?;
        if self.waited >= self.window {
            self.begin();
        }
        Ok(())
    }

    fn judge(&self, waited: Duration) -> Result<(), TooSlow> {
        let least = u128::from(self.rate) * waited.as_millis();
        if waited >= self.window && u128::from(self.moved) * 1000 < least { Err(TooSlow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> (Pace, Instant) {
        (Pace::new(256, 10 * SECOND), Instant::now())
    }

    /// A client that sends `bytes` each second, for a minute.
    fn drip(bytes: usize) -> Option<u32> {
        let (mut pace, begin) = pace();
        (0..60).find(|second| {
            let waits = pace.waits(begin + *second * SECOND);
            waits.is_err() || pace.moved(bytes, || begin + (*second + 1) * SECOND).is_err()
        })
    }

    #[test]
    fn p38_a_drip_is_cut_off_after_a_window_and_the_least_rate_never() {
        assert_eq!(drip(1), Some(9));
        assert_eq!(drip(255), Some(9));
        assert_eq!(drip(256), None);
    }

    #[test]
    fn p38_a_burst_does_not_buy_more_than_its_window() {
        let (mut pace, begin) = pace();
        assert_eq!(pace.moved(1 << 20, || begin), Ok(()));
        assert_eq!(pace.waits(begin), Ok(()));
        assert_eq!(pace.moved(1, || begin + 10 * SECOND), Ok(()));
        assert_eq!(pace.waits(begin + 10 * SECOND), Ok(()));
        assert_eq!(pace.moved(1, || begin + 20 * SECOND), Err(TooSlow));
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_client_is_free() {
        let (mut pace, begin) = pace();
        for hour in 0..10 {
            assert_eq!(pace.moved(1, || begin + 3600 * hour * SECOND), Ok(()));
        }
    }
}
