//! How fast a client takes the answer of its stream: whoever is slower than the least rate, while there is something to take,
//! loses the stream.
//!
//! The lane hands over each part of an answer here, and the codec drops a part when the last of it has gone to the client's
//! connection. So it is known when the client is waited for, and a slow instance is not held against it. A part counts from
//! when it is the next to go, as if it were gone: of a large one nothing is known until all of it is. That one ends by the
//! limit for one write at the latest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::Limits;
use crate::front::pace::{Pace, TooSlow};

/// What a client took of one answer, and what it is to take.
#[derive(Debug)]
pub(crate) struct Taking(Mutex<State>);

#[derive(Debug)]
struct State {
    pace: Pace,
    /// The lengths of the parts that are under way: as many as the lane's queues hold.
    under_way: VecDeque<usize>,
    slow: bool,
}

/// A part of an answer: it is taken when this is dropped.
struct Part {
    bytes: Bytes,
    taking: Arc<Taking>,
}

impl Taking {
    /// Of an answer that was not begun.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let pace = Pace::new(limits.client_rate, limits.client_window);
        Arc::new(Self(Mutex::new(State { pace, under_way: VecDeque::new(), slow: false })))
    }

    /// The same bytes, which are told of when they are taken.
    pub(crate) fn part(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.state().begin(bytes.len(), Instant::now());
        Bytes::from_owner(Part { bytes, taking: Arc::clone(self) })
    }

    /// Whether the client is fast enough until now.
    pub(crate) fn judge(&self, now: Instant) -> Result<(), TooSlow> {
        let mut state = self.state();
        if !state.under_way.is_empty() {
            state.note(|pace| pace.waits(now));
        }
        if state.slow { Err(TooSlow) } else { Ok(()) }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_all_taken(&self) -> bool {
        self.state().under_way.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, length: usize, now: Instant) {
        self.under_way.push_back(length);
        if self.under_way.len() == 1 {
            self.next(now);
        }
    }

    fn taken(&mut self, now: Instant) {
        self.under_way.pop_front();
        self.note(|pace| pace.moved(0, || now));
        self.next(now);
    }

    /// The client is waited for, if there is another part.
    fn next(&mut self, now: Instant) {
        if let Some(length) = self.under_way.front().copied() {
            self.note(|pace| pace.moved(length, || now).and_then(|()| pace.waits(now)));
        }
    }

    /// Who was too slow once, is.
    fn note(&mut self, judged: impl FnOnce(&mut Pace) -> Result<(), TooSlow>) {
        self.slow |= judged(&mut self.pace).is_err();
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.taking.state().taken(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taking() -> Arc<Taking> {
        Taking::new(&Limits { client_rate: 256, client_window: 10 * SECOND, ..Limits::default() })
    }

    fn part(taking: &Arc<Taking>, length: usize) -> Bytes {
        taking.part(Bytes::from(vec![b'x'; length]))
    }

    /// After how many parts a client is too slow that takes one of that length each second, while the next one waits.
    async fn drip(length: usize) -> Option<u32> {
        let taking = taking();
        let mut waiting = part(&taking, length);
        for taken in 0..60 {
            let next = part(&taking, length);
            tokio::time::advance(SECOND).await;
            drop(std::mem::replace(&mut waiting, next));
            if taking.judge(Instant::now()).is_err() {
                return Some(taken);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn p38_small_parts_are_held_to_the_least_rate() {
        assert_eq!(drip(1).await, Some(9));
        assert_eq!(drip(200).await, Some(9));
        assert_eq!(drip(256).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn p38_what_is_not_taken_at_all_is_too_slow_after_its_time_at_the_least_rate() {
        for (length, seconds) in [(1, 10), (2560, 10), (5120, 20)] {
            let taking = taking();
            let _untaken = part(&taking, length);
            tokio::time::advance(seconds * SECOND).await;
            assert_eq!(taking.judge(Instant::now()), if length == 1 { Err(TooSlow) } else { Ok(()) }, "{length}");
            tokio::time::advance(SECOND).await;
            assert_eq!(taking.judge(Instant::now()), Err(TooSlow), "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p38_a_burst_does_not_buy_more_than_its_window() {
        let taking = taking();
        let burst = part(&taking, 1 << 20);
        tokio::time::advance(10 * SECOND).await;
        drop(burst);
        let _untaken = part(&taking, 1);
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(taking.judge(Instant::now()), Err(TooSlow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_instance_is_not_held_against_the_client() {
        let taking = taking();
        for _ in 0..10 {
            drop(part(&taking, 1));
            // It is looked at again and again, too, while nothing is under way.
            for _ in 0..3 {
                tokio::time::advance(3600 * SECOND).await;
                assert_eq!(taking.judge(Instant::now()), Ok(()));
            }
        }
    }

    #[test]
    fn a_part_is_taken_with_the_last_piece_of_it() {
        let taking = taking();
        let mut rest = part(&taking, 10);
        let piece = rest.split_to(4);
        assert_eq!((&piece[..], &rest[..]), (&b"xxxx"[..], &b"xxxxxx"[..]));
        drop(piece);
        assert_eq!(taking.state().under_way.len(), 1);
        drop(rest);
        assert_eq!(taking.state().under_way.len(), 0);
    }
}
