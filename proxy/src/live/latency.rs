//! How long an instance takes to its first byte: the peak of late, forgotten by half each [`HALF_LIFE`].
//!
//! A slow answer counts at once and a fast one little by little, so that an instance which stalls is seen before its requests
//! pile up. Two workers that note at the same time may lose one of the two, which does not matter.

use std::sync::atomic::{AtomicU64, Ordering};

/// In milliseconds: so long unheard of, a time counts half; an instance that was slow once gets its chance again.
const HALF_LIFE: u64 = 10_000;
/// The part that a faster answer counts.
const PART: u64 = 8;
/// Times shorter than that, in microseconds, are all alike.
const ALIKE: u64 = 1_000;
/// One counts as slower if it takes so many times as long.
const SLOWER: u64 = 2;

/// Microseconds in the upper half, when they were noted in the lower one, in milliseconds on the edge's clock.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// Notes an answer.
    pub(crate) fn note(&self, now: u64, micros: u64) {
        let before = self.micros(now);
        let micros = micros.min(u64::from(u32::MAX));
        let new = if micros >= before { micros } else { before - (before - micros) / PART };
        self.0.store((new << 32) | (now & 0xffff_ffff), Ordering::Relaxed);
    }

    /// Whether it takes far longer than another.
    pub(crate) fn is_slower(&self, other: &Self, now: impl FnOnce() -> u64) -> bool {
        if self.0.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let now = now();
        self.micros(now) > SLOWER * other.micros(now).max(ALIKE)
    }

    /// Nothing that was known counts any more.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn micros(&self, now: u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        faded(word >> 32, u64::from((now as u32).wrapping_sub(word as u32)))
    }
}

/// Halved each half-life, and straight in between.
fn faded(micros: u64, age: u64) -> u64 {
    let (halves, rest) = (age / HALF_LIFE, age % HALF_LIFE);
    let whole = micros.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0);
    whole - whole * rest / (2 * HALF_LIFE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_little_by_little() {
        let (one, other) = (Latency::default(), Latency::default());
        for _ in 0..100 {
            one.note(5, 2_000);
            other.note(5, 2_500);
        }
        assert!(!one.is_slower(&other, || 5) && !other.is_slower(&one, || 5), "they are much the same");
        one.note(6, 50_000);
        assert!(one.is_slower(&other, || 6));
        one.note(7, 2_000);
        assert!(one.is_slower(&other, || 7));
        for _ in 0..40 {
            one.note(8, 2_000);
        }
        assert!(!one.is_slower(&other, || 8));
    }

    #[test]
    fn what_was_slow_long_ago_is_forgotten() {
        let (one, other) = (Latency::default(), Latency::default());
        one.note(0, 80_000);
        other.note(0, 1_000);
        let mut last = one.micros(0);
        for now in (0..100_000).step_by(500) {
            assert!(one.micros(now) <= last, "it only fades");
            last = one.micros(now);
        }
        assert!(one.is_slower(&other, || 0) && !one.is_slower(&other, || 60_000));
        assert_eq!((faded(1000, HALF_LIFE), faded(1000, 2 * HALF_LIFE), faded(1000, u64::MAX)), (500, 250, 0));
    }
}
