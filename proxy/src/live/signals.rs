//! What workers tell the feed, which tells the control plane.
//!
//! Lists, not scans: a cell enters a list when it has something to say and leaves it when it was said, so a million idle
//! environments cost nothing. A full list loses nothing for good: what is level-triggered comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use dormouse_link::Report;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::cell::Cell;
use super::retries::Tally;

/// Cells that wait to be taken over by the feed, per list; it takes them each period.
const LISTED_MAX: usize = 65_536;
/// Failures to connect that wait to be reported; each is repeated by the next failure.
const UNREACHABLE_MAX: usize = 256;

/// The workers' ends.
#[derive(Debug)]
pub(crate) struct Signals {
    /// The feed should look now, not at its next period.
    pub(crate) poke: Notify,
    /// The poke is for somebody who waits.
    pub(crate) first_waiter: AtomicBool,
    /// Requests held in all.
    pub(crate) waiters: AtomicU32,
    /// What they may have in memory.
    pub(crate) held_bytes: AtomicUsize,
    /// Times that somebody was the first to wait.
    pub(crate) wakes: AtomicU64,
    wanted: mpsc::Sender<Arc<Cell>>,
    seen: mpsc::Sender<Arc<Cell>>,
    unreachable: mpsc::Sender<Report>,
    /// What was retried and left out.
    pub(crate) tally: Tally,
    start: Instant,
}

/// The feed's ends.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) wanted: mpsc::Receiver<Arc<Cell>>,
    pub(crate) seen: mpsc::Receiver<Arc<Cell>>,
    pub(crate) unreachable: mpsc::Receiver<Report>,
}

impl Signals {
    pub(crate) fn new() -> (Arc<Self>, Heard) {
        let (wanted, wanted_heard) = mpsc::channel(LISTED_MAX);
        let (seen, seen_heard) = mpsc::channel(LISTED_MAX);
        let (unreachable, unreachable_heard) = mpsc::channel(UNREACHABLE_MAX);
        let signals = Self {
            poke: Notify::new(),
            first_waiter: AtomicBool::new(false),
            waiters: AtomicU32::new(0),
            held_bytes: AtomicUsize::new(0),
            wakes: AtomicU64::new(0),
            wanted,
            seen,
            unreachable,
            tally: Tally::default(),
            start: Instant::now(),
        };
        let heard = Heard { wanted: wanted_heard, seen: seen_heard, unreachable: unreachable_heard };
        (Arc::new(signals), heard)
    }

    /// Milliseconds since this edge began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request runs on it.
    pub(crate) fn seen(&self, cell: &Arc<Cell>) {
        list(&self.seen, &cell.seen_listed, cell);
    }

    /// Somebody waits for it, the first of them since nobody did.
    pub(crate) fn awaited(&self, cell: &Arc<Cell>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        list(&self.wanted, &cell.wanted_listed, cell);
        self.hurry();
    }

    /// Somebody wants it who does not wait: who was refused because it failed, or says something while it is to sleep.
    pub(crate) fn missed(&self, cell: &Arc<Cell>) {
        cell.missed.store(true, Ordering::SeqCst);
        list(&self.wanted, &cell.wanted_listed, cell);
    }

    /// Who is wanted is to be said now, and not with the next period.
    pub(crate) fn hurry(&self) {
        self.first_waiter.store(true, Ordering::SeqCst);
        self.poke.notify_one();
    }

    /// One of its endpoints could not be connected to.
    pub(crate) fn unreachable(&self, report: Report) {
        // A full list means that the control plane has plenty to look at already.
        let _ = self.unreachable.try_send(report);
        self.poke.notify_one();
    }
}

/// Whoever calls has counted first what it has to say, and the feed takes the flag away before it reads the counts. In that
/// one order of all (so nothing weaker will do) either the feed sees the count, or the flag is seen to be gone.
fn list(to: &mpsc::Sender<Arc<Cell>>, listed: &AtomicBool, cell: &Arc<Cell>) {
    if listed.load(Ordering::SeqCst) || listed.swap(true, Ordering::SeqCst) {
        return;
    }
    if to.try_send(Arc::clone(cell)).is_err() {
        listed.store(false, Ordering::SeqCst);
    }
}
