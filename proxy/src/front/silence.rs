//! An instance that stands still in the middle of an answer, for longer than its requests' limits allow.
//!
//! The lane has one time for each of its reads, which is the one for the first byte; where the gap between two pieces is to be
//! shorter, this watches beside it. The lane says what moved; what the client does not take is not held against the instance.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::conn::Wire;
use super::http2::taking::Taking;

/// What is known of one answer.
#[derive(Debug)]
pub(crate) struct Silence {
    gap: Duration,
    since: Instant,
    /// When something moved last, in milliseconds and one; 0 before the answer.
    moved: AtomicU64,
    /// The answer is whole.
    over: AtomicBool,
}

impl Silence {
    pub(crate) fn new(gap: Duration) -> Arc<Self> {
        Arc::new(Self { gap, since: Instant::now(), moved: AtomicU64::new(0), over: AtomicBool::new(false) })
    }

    /// A piece of the answer came, or one of the body went while there was an answer.
    pub(crate) fn moved(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// A piece of the body went.
    pub(crate) fn sent(&self) {
        if self.moved.load(Ordering::Relaxed) > 0 {
            self.moved();
        }
    }

    /// Nothing more is waited for.
    pub(crate) fn over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// When it is too late; none before the answer.
    fn until(&self) -> Option<Instant> {
        let moved = self.moved.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.since + Duration::from_millis(moved) + self.gap)
    }
}

/// Resolves when an answer stands still for too long, and says so.
pub(crate) async fn stands_still(silence: Option<Arc<Silence>>, wire: &Wire, taking: Option<&Taking>) {
    match silence {
        // Boxed, so that no other request is larger for it.
        Some(silence) => Box::pin(watch(&silence, wire, taking)).await,
        None => pending().await,
    }
}

async fn watch(silence: &Silence, wire: &Wire, taking: Option<&Taking>) {
    let mut look = Instant::now() + silence.gap;
    loop {
        sleep_until(look).await;
        if silence.over.load(Ordering::Relaxed) || wire.streams.load(Ordering::Relaxed) {
            return pending().await;
        }
        let now = Instant::now();
        let is_taken = !wire.full.load(Ordering::Relaxed) && taking.is_none_or(Taking::is_all_taken);
        look = match silence.until() {
            Some(until) if until > now => until,
            Some(_) if is_taken => break,
            _ => now + silence.gap,
        };
    }
    wire.silent.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds an answer that does so in each of them is ended.
    async fn ended(gap: u32, mut each: impl FnMut(u64, &Silence, &Wire)) -> Option<u64> {
        let (silence, wire) = (Silence::new(gap * SECOND), Wire::default());
        let mut watch = std::pin::pin!(stands_still(Some(Arc::clone(&silence)), &wire, None));
        for second in 0..100 {
            each(second, &silence, &wire);
            if tokio::time::timeout(SECOND, watch.as_mut()).await.is_ok() {
                assert!(wire.silent.load(Ordering::Relaxed));
                return Some(second + 1);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_a_gap_after_its_last_piece_and_not_before_its_head() {
        assert_eq!(ended(5, |_, _, _| {}).await, None, "the first byte has another limit");
        assert_eq!(ended(5, |_, silence, _| silence.sent()).await, None);
        for last in [0, 1, 7, 23] {
            let pieces = |second, silence: &Silence, _: &Wire| {
                if second <= last {
                    silence.moved()
                }
            };
            assert_eq!(ended(5, pieces).await, Some(last + 5));
        }
        assert_eq!(
            ended(5, |second, silence, _| if second == 3 {
                silence.moved()
            })
            .await,
            Some(8)
        );
        assert_eq!(
            ended(5, |second, silence, _| if second % 4 == 0 {
                silence.moved()
            })
            .await,
            None
        );
        let echoes = |second, silence: &Silence, _: &Wire| if second == 0 { silence.moved() } else { silence.sent() };
        assert_eq!(ended(5, echoes).await, None, "an instance that takes a body has something to do");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_an_event_stream_and_a_slow_client_are_not_silent() {
        let over = |second, silence: &Silence, _: &Wire| match second {
            0 => silence.moved(),
            _ => silence.over(),
        };
        assert_eq!(ended(5, over).await, None);
        let stream = |_, silence: &Silence, wire: &Wire| {
            silence.moved.fetch_max(1, Ordering::Relaxed);
            wire.streams.store(true, Ordering::Relaxed);
        };
        assert_eq!(ended(5, stream).await, None);
        let slow = |second, silence: &Silence, wire: &Wire| {
            if second == 0 {
                silence.moved();
            }
            wire.full.store(second < 50, Ordering::Relaxed);
        };
        let ended = ended(5, slow).await.expect("the client takes again, and nothing comes");
        assert!((51..=56).contains(&ended), "{ended}");
    }
}
