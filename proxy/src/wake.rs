//! Holds a request until its environment is ready: register, look, wait; bounded in number, bytes and time.
//!
//! The front calls [`admit`] before a request enters a lane, its body unread; the lane calls it again when an endpoint
//! could not be connected to. Whoever waits is reported as wanted at once, and each period until served or gone.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dormouse_link::{Report, Wanted};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::count::enter;
use crate::decide::refuse::Reason;
use crate::drain::{self, Before};
use crate::edge::Edge;
use crate::live::cell::{Cell, Choice, Flight, Tried};
use crate::live::signals::Signals;
use crate::overload::Level;

/// Until when a request may wait, and what it is told then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For an environment to wake.
    pub(crate) wake: (Instant, Reason),
    /// For a newer version of a cell whose endpoints cannot be connected to.
    pub(crate) connect: Instant,
    /// What it may have in memory meanwhile.
    pub(crate) bytes: usize,
}

/// Why a request did not get an endpoint.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// It is to be told this.
    Refused(Reason),
    /// There is nobody to tell any more.
    Left,
}

/// What admission cost.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) flight: Flight,
    /// Whether, and since when, it waited for an environment to wake.
    pub(crate) held_since: Option<Instant>,
}

/// Chooses an endpoint, waiting for one if there is a hope; `left` resolves when the client is gone.
pub(crate) async fn admit(
    edge: &Edge,
    cell: &Arc<Cell>,
    tried: &Tried,
    patience: Patience,
    mut left: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<Admitted, NotAdmitted> {
    // Most requests need no wait; only the others pay for what waiting takes.
    if let Choice::Endpoint(flight) = cell.choose(&edge.signals, &edge.dice, tried) {
        return Ok(Admitted { flight, held_since: None });
    }
    let (mut place, mut held_since, mut paused_since): (Option<Place>, _, _) = (None, None, None);
    let ready = (Until::Ready, edge.limits.waiters_per_environment);
    loop {
        let mut changed = pin!(cell.changed.notified());
        changed.as_mut().enable();
        let (until, then, (of, most)) = match cell.choose(&edge.signals, &edge.dice, tried) {
            Choice::Endpoint(flight) => return Ok(Admitted { flight, held_since }),
            Choice::Refuse(reason) => {
                if matches!(reason, Reason::Failed { .. }) {
                    edge.signals.missed(cell);
                }
                return Err(NotAdmitted::Refused(reason));
            }
            Choice::Hold => {
                held_since.get_or_insert_with(Instant::now);
                let (until, then) = patience.wake;
                (until, then, ready)
            }
            Choice::Pause(pause) => {
                let since = *paused_since.get_or_insert_with(Instant::now);
                let until = since + Duration::from_millis(pause.wait_ms.get().into());
                (until, Reason::Paused, (Until::Resumed, pause.requests.get()))
            }
            Choice::Exhausted => (patience.connect, Reason::ConnectFailed, ready),
        };
        if place.is_none() && edge.overload.is_at(Level::Held) {
            edge.overload.shed_held();
            return Err(NotAdmitted::Refused(Reason::SentAway));
        }
        // Who waits for something else now needs a place among those; who was held goes on being held.
        place = place.filter(|place| place.until == of);
        if place.is_none() {
            let taken = Place::take(edge, cell, patience.bytes, (of, most));
            place = Some(taken.ok_or(NotAdmitted::Refused(of.full()))?);
        }
        // Each arm is cancel-safe: dropping a wait loses nothing, since the cell is looked at again.
        tokio::select! {
            () = changed => {}
            () = sleep_until(until) => return Err(NotAdmitted::Refused(then)),
            () = edge.overload.sends_away(&edge.dice) => {
                edge.overload.shed_held();
                return Err(NotAdmitted::Refused(Reason::SentAway));
            }
            () = left.as_mut() => return Err(NotAdmitted::Left),
            () = drain::idle(&edge.phase, &edge.dice, Before::Answers) => return Err(NotAdmitted::Refused(Reason::Stopping)),
        }
    }
}

/// What a held request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// An endpoint, which is wanted.
    Ready,
    /// The end of a pause, for which nobody can do anything.
    Resumed,
}

impl Until {
    /// What is said where there is no place for one more.
    fn full(self) -> Reason {
        match self {
            Self::Ready => Reason::HoldFull,
            Self::Resumed => Reason::PauseFull,
        }
    }

    /// Those who wait for it.
    fn waiters(self, cell: &Cell) -> &AtomicU32 {
        match self {
            Self::Ready => &cell.waiters,
            Self::Resumed => &cell.paused,
        }
    }
}

/// A held request's place among the waiters; freed with its drop.
struct Place {
    until: Until,
    cell: Arc<Cell>,
    signals: Arc<Signals>,
    bytes: usize,
}

impl Place {
    fn take(edge: &Edge, cell: &Arc<Cell>, bytes: usize, (until, most): (Until, u32)) -> Option<Self> {
        let (limits, signals) = (&edge.limits, &edge.signals);
        enter(&signals.waiters, limits.waiters)?;
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= limits.held_bytes);
        if signals.held_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_err() {
            signals.waiters.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let Some(before) = enter(until.waiters(cell), most) else {
            signals.waiters.fetch_sub(1, Ordering::SeqCst);
            signals.held_bytes.fetch_sub(bytes, Ordering::SeqCst);
            return None;
        };
        if before == 0 && until == Until::Ready {
            signals.awaited(cell);
        }
        Some(Self { until, cell: Arc::clone(cell), signals: Arc::clone(signals), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.until.waiters(&self.cell).fetch_sub(1, Ordering::SeqCst);
        self.signals.waiters.fetch_sub(1, Ordering::SeqCst);
        self.signals.held_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Environments that somebody waits for.
#[derive(Default)]
pub(crate) struct Wants {
    cells: Vec<Arc<Cell>>,
}

impl Wants {
    /// Takes over the cells that entered the list.
    pub(crate) fn hear(&mut self, heard: &mut mpsc::Receiver<Arc<Cell>>) {
        while let Ok(cell) = heard.try_recv() {
            self.cells.push(cell);
        }
    }

    /// What is wanted now, all of it.
    pub(crate) fn report(&mut self) -> Option<Report> {
        let mut wanted = Vec::with_capacity(self.cells.len());
        self.cells.retain(|cell| {
            cell.wanted_listed.store(false, Ordering::SeqCst);
            let missed = cell.missed.swap(false, Ordering::SeqCst);
            let waiters = cell.waiters.load(Ordering::SeqCst);
            if waiters > 0 || missed {
                wanted.push(Wanted { environment: cell.id.clone(), epoch: cell.offer().epoch(), waiters });
            }
            waiters > 0 && !cell.wanted_listed.swap(true, Ordering::SeqCst)
        });
        (!wanted.is_empty()).then_some(Report::Wanted(wanted))
    }
}
