//! What may last for ever: a WebSocket's tunnel, or an event stream. It counts as activity by its data alone, so that who leaves
//! a page open keeps nobody awake.
//!
//! When its environment is to sleep (`Closing`), it is the edge that ends it, with notice. Whoever sent data meanwhile, or so
//! shortly before that the control plane may not have heard of it, is there: then the environment is wanted, and nothing of it
//! is ended. Made by the lane when an answer's head says what it is; asked by the connection, and by whoever carries it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::cell::Cell;
use super::signals::Signals;

/// Between the news that an environment is to sleep and the end of what is silent; data that comes meanwhile counts.
const NOTICE: Duration = Duration::from_secs(1);
/// Data may be so old and still be news to the control plane: two of its reports.
const UNHEARD: Duration = Duration::from_secs(2);
/// How often it is looked for data meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Lasting {
    cell: Arc<Cell>,
    signals: Arc<Signals>,
    /// When something of it moved last, on the clock of [`Signals`].
    moved: AtomicU64,
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Somebody has something to say.
    Data,
    /// Only what shows that both sides are there.
    Signs,
}

impl Lasting {
    pub(crate) fn new(cell: &Arc<Cell>, signals: &Arc<Signals>) -> Self {
        let moved = AtomicU64::new(signals.now());
        Self { cell: Arc::clone(cell), signals: Arc::clone(signals), moved }
    }

    /// Notes what moved.
    pub(crate) fn note(&self, moved: Moved) {
        let now = self.signals.now();
        self.moved.store(now, Ordering::Relaxed);
        if moved == Moved::Data {
            self.cell.last_data.store(now, Ordering::SeqCst);
        }
    }

    /// Resolves when nothing of it has moved for so long. Cancel-safe.
    pub(crate) async fn stands_still(&self, limit: Duration) {
        loop {
            let still = self.signals.now().saturating_sub(self.moved.load(Ordering::Relaxed));
            match limit.checked_sub(Duration::from_millis(still)) {
                None | Some(Duration::ZERO) => return,
                Some(left) => sleep(left).await,
            }
        }
    }

    /// Resolves when it has to end, since its environment is to sleep and nobody is there. Cancel-safe.
    pub(crate) async fn sleeps(&self) {
        let mut since = None;
        loop {
            let mut changed = pin!(self.cell.changed.notified());
            changed.as_mut().enable();
            if self.cell.is_closing() {
                // A newer version of it does not begin anew.
                let since = *since.get_or_insert_with(|| self.signals.now());
                tokio::select! {
                    () = changed => {}
                    () = self.stays_silent(since) => return,
                }
            } else {
                since = None;
                changed.await;
            }
        }
    }

    /// Resolves after the notice, unless there was data; then the environment is wanted for as long as this is waited for. Who is
    /// held meanwhile is there, too, and wanted already.
    async fn stays_silent(&self, since: u64) {
        let heard = since.saturating_sub(UNHEARD.as_millis() as u64);
        let end = since + NOTICE.as_millis() as u64;
        let mut said = false;
        loop {
            if self.cell.last_data.load(Ordering::SeqCst) > heard {
                self.signals.missed(&self.cell);
                if !said {
                    self.signals.hurry();
                }
                said = true;
            } else if self.signals.now() >= end && self.cell.waiters.load(Ordering::SeqCst) == 0 {
                return;
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use dormouse_link::{EnvironmentId, Generation, State};
    use tokio::time::{Instant, timeout};

    use super::super::cell::Offer;
    use super::super::signals::Heard;
    use super::super::sticky::{StickyKey, StickySecret};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn world() -> (Arc<Cell>, Arc<Signals>, Heard, Lasting) {
        let (signals, heard) = Signals::new();
        let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
        let lasting = Lasting::new(&cell, &signals);
        (cell, signals, heard, lasting)
    }

    fn swap(cell: &Cell, state: State) {
        let environment = dormouse_link::Environment {
            id: EnvironmentId::new("e"),
            app: "hello".parse().expect("a label"),
            name: "test".parse().expect("a label"),
            deployment: 1,
            state,
            epoch: dormouse_link::Epoch(1),
            endpoints: Vec::new(),
            policy: dormouse_link::Policy::default(),
        };
        let key = StickyKey::new(&StickySecret::new([0; 32]));
        cell.swap(Offer::new(Generation(1), environment, Vec::new(), &key));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_silent_ends_after_a_notice_when_its_environment_is_to_sleep_and_not_before() {
        let (cell, _signals, mut heard, lasting) = world();
        lasting.note(Moved::Data);
        tokio::time::sleep(10 * SECOND).await;
        lasting.note(Moved::Signs);
        assert!(timeout(3600 * SECOND, lasting.sleeps()).await.is_err(), "nobody asks for its end");
        swap(&cell, State::Closing);
        let began = Instant::now();
        lasting.sleeps().await;
        assert!((NOTICE..NOTICE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert!(heard.wanted.try_recv().is_err(), "nobody wants it");
    }

    #[tokio::test(start_paused = true)]
    async fn p90_data_shortly_before_the_closing_or_in_it_makes_the_environment_wanted_and_ends_nothing() {
        for (before, within) in [(SECOND, None), (60 * SECOND, Some(NOTICE / 2))] {
            let (cell, _signals, mut heard, lasting) = world();
            tokio::time::sleep(SECOND).await;
            lasting.note(Moved::Data);
            tokio::time::sleep(before).await;
            swap(&cell, State::Closing);
            let data = async {
                if let Some(within) = within {
                    tokio::time::sleep(within).await;
                    lasting.note(Moved::Data);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = lasting.sleeps() => panic!("it is ended though somebody is there"),
                () = data => {}
                () = tokio::time::sleep(20 * SECOND) => {}
            }
            assert!(heard.wanted.try_recv().is_ok() && cell.missed.load(Ordering::SeqCst));
            swap(&cell, State::Ready);
            assert!(timeout(3600 * SECOND, lasting.sleeps()).await.is_err(), "it goes on");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p90_nobody_is_sent_away_while_a_request_is_held() {
        let (cell, _signals, _heard, lasting) = world();
        tokio::time::sleep(60 * SECOND).await;
        cell.waiters.store(1, Ordering::SeqCst);
        swap(&cell, State::Closing);
        assert!(timeout(20 * SECOND, lasting.sleeps()).await.is_err(), "it is to be awake again");
        swap(&cell, State::Ready);
        cell.waiters.store(0, Ordering::SeqCst);
        assert!(timeout(3600 * SECOND, lasting.sleeps()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn p90_data_before_the_closing_is_not_forgotten_with_a_newer_version_of_it() {
        let (cell, _signals, _heard, lasting) = world();
        tokio::time::sleep(60 * SECOND).await;
        lasting.note(Moved::Data);
        tokio::time::sleep(SECOND).await;
        swap(&cell, State::Closing);
        let again = async {
            for _ in 0..5 {
                tokio::time::sleep(SECOND / 2).await;
                swap(&cell, State::Closing);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = lasting.sleeps() => panic!("it is ended though somebody is there"),
            () = again => {}
            () = tokio::time::sleep(20 * SECOND) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_moves_renews_the_time_to_stand_still() {
        let (.., lasting) = world();
        let began = Instant::now();
        let signs = async {
            for _ in 0..5 {
                tokio::time::sleep(7 * SECOND).await;
                lasting.note(Moved::Signs);
            }
        };
        tokio::join!(lasting.stands_still(10 * SECOND), signs);
        assert_eq!(began.elapsed(), 45 * SECOND);
    }
}
