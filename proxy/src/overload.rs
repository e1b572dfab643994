//! One budget for all that an edge has to carry: memory, descriptors, handshakes, and bytes that requests hold. When one of
//! them runs short, work is let go in one order, the cheapest for visitors first: new TLS handshakes, then held requests, then
//! new requests to the environment that has most. What runs is never cut off for it.
//!
//! The feed's thread looks every [`LOOK`] and publishes what it found. Whoever begins something asks here, and reads one
//! number. The limits of each kind stand beside this and hold between two looks.

mod level;
mod measure;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::Limits;
use crate::descriptors;
use crate::dice::Dice;
use crate::drain;
use crate::live::cell::Cell;
use crate::live::signals::Signals;
pub(crate) use level::Level;
use level::{Figures, Share, level};

/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// Held requests are sent away one by one over this time, and no more of them once that was enough.
const SEND_AWAY: Duration = Duration::from_secs(1);
/// Between two lines of the log.
const TELL: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Overload {
    signals: Arc<Signals>,
    memory: u64,
    /// Descriptors that were listened on from the begin.
    listening: usize,
    handshakes: usize,
    held_bytes: usize,
    /// TLS handshakes of all workers.
    under_way: AtomicUsize,
    /// The same as is published, for who only looks.
    level: AtomicU8,
    published: watch::Sender<Level>,
    busiest: ArcSwapOption<Cell>,
    shed: Shed,
}

/// What was let go, since the start.
#[derive(Default)]
struct Shed {
    handshakes: AtomicU64,
    held: AtomicU64,
    requests: AtomicU64,
}

/// A TLS handshake that is counted until its drop.
pub(crate) struct UnderWay(Arc<Overload>);

impl Overload {
    /// For an edge that listens on so many descriptors.
    pub(crate) fn new(limits: &Limits, listening: usize, signals: &Arc<Signals>) -> Arc<Self> {
        Arc::new(Self {
            signals: Arc::clone(signals),
            memory: limits.memory.unwrap_or_else(measure::memory_limit),
            listening,
            handshakes: limits.handshakes,
            held_bytes: limits.held_bytes,
            under_way: AtomicUsize::new(0),
            level: AtomicU8::new(Level::Calm as u8),
            published: watch::Sender::new(Level::Calm),
            busiest: ArcSwapOption::empty(),
            shed: Shed::default(),
        })
    }

    /// Whether it has come to that.
    pub(crate) fn is_at(&self, level: Level) -> bool {
        self.level.load(Ordering::Relaxed) >= level as u8
    }

    /// Counts a handshake that begins.
    pub(crate) fn handshake(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Counts a handshake that was refused, or given up for a new one, while there was too much to do.
    pub(crate) fn shed_handshake(&self) {
        self.shed.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was not held, or no longer.
    pub(crate) fn shed_held(&self) {
        self.shed.held.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a new request to an environment is refused, and counts it if it is.
    pub(crate) fn refuses(&self, cell: &Arc<Cell>) -> bool {
        if !self.is_at(Level::Busiest) {
            return false;
        }
        let refused = self.busiest.load().as_ref().is_some_and(|busiest| Arc::ptr_eq(busiest, cell));
        if refused {
            self.shed.requests.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// Resolves when it is a held request's turn to be sent away. Cancel-safe.
    pub(crate) async fn sends_away(&self, dice: &Dice) {
        let mut level = self.published.subscribe();
        loop {
            // It ends only with the edge, and then nothing is held.
            let _ = level.wait_for(|level| *level >= Level::Held).await.map(drop);
            let turn = drain::part(SEND_AWAY, dice.roll());
            tokio::select! {
                () = sleep(turn) => return,
                _ = level.wait_for(|level| *level < Level::Held) => {}
            }
        }
    }

    fn figures(&self) -> Figures {
        let share = |used: usize, limit: usize| Share { used: used as u64, limit: limit as u64 };
        let descriptors = measure::descriptors().saturating_sub(self.listening);
        Figures {
            memory: Share { used: measure::memory(), limit: self.memory },
            descriptors: share(descriptors, descriptors::usable(descriptors::allowed(), self.listening)),
            handshakes: share(self.under_way.load(Ordering::Relaxed), self.handshakes),
            held_bytes: share(self.signals.held_bytes.load(Ordering::Relaxed), self.held_bytes),
        }
    }

    /// For operators.
    pub(crate) fn shown(&self) -> Value {
        let figures = self.figures();
        let share = |share: &Share| json!({"used": share.used, "limit": share.limit});
        let busiest = self.is_at(Level::Busiest).then(|| self.busiest.load_full()).flatten();
        let shed = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "level": self.published.borrow().as_str(),
            "memory": share(&figures.memory),
            "descriptors": share(&figures.descriptors),
            "handshakes": share(&figures.handshakes),
            "held_bytes": share(&figures.held_bytes),
            "busiest": busiest.map(|cell| cell.id.to_string()),
            "shed": {
                "handshakes": shed(&self.shed.handshakes),
                "held": shed(&self.shed.held),
                "requests": shed(&self.shed.requests),
            },
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who looks: the only one that changes the level.
pub(crate) struct Lookout {
    overload: Arc<Overload>,
    told: Level,
    told_at: Option<Instant>,
}

impl Lookout {
    pub(crate) fn new(overload: Arc<Overload>) -> Self {
        Self { overload, told: Level::Calm, told_at: None }
    }

    /// Looks, and publishes what it finds; `cells` are those that may have requests in flight.
    pub(crate) fn look(&mut self, cells: &[Arc<Cell>]) {
        let (overload, figures) = (&self.overload, self.overload.figures());
        let before = *overload.published.borrow();
        let level = level(before, &figures);
        if level == Level::Busiest {
            overload.busiest.store(busiest(cells));
        }
        overload.level.store(level as u8, Ordering::Relaxed);
        if level != before {
            overload.published.send_replace(level);
        }
        if level < Level::Busiest {
            overload.busiest.store(None);
        }
        self.tell(level, &figures);
    }

    /// Logs a change, and of several in a second the last.
    fn tell(&mut self, level: Level, figures: &Figures) {
        let now = Instant::now();
        if level == self.told || self.told_at.is_some_and(|at| now.duration_since(at) < TELL) {
            return;
        }
        let Figures { memory, descriptors, handshakes, held_bytes } = figures;
        if level == Level::Calm {
            info!(%memory, %descriptors, %handshakes, %held_bytes, "there is room again: all is served");
        } else {
            let sheds = level.sheds();
            warn!(%memory, %descriptors, %handshakes, %held_bytes, sheds, "there is too much to do: some of it is refused");
        }
        (self.told, self.told_at) = (level, Some(now));
    }
}

/// The environment with most requests in flight; none where there are none.
fn busiest(cells: &[Arc<Cell>]) -> Option<Arc<Cell>> {
    let in_flight = |cell: &&Arc<Cell>| cell.in_flight.load(Ordering::Relaxed);
    cells.iter().max_by_key(in_flight).filter(|cell| in_flight(cell) > 0).cloned()
}

#[cfg(test)]
mod tests;
