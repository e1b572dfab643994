//! What ran, told upwards once a period: `Seen`. What may last for ever (`live::lasting`) is in flight, and idle without data.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_link::{Report, Seen};
use tokio::sync::mpsc;

use crate::live::cell::Cell;
use crate::live::signals::Signals;

/// Environments with requests in flight, or since the last report.
#[derive(Default)]
pub(crate) struct Activity {
    cells: Vec<Arc<Cell>>,
}

impl Activity {
    /// Takes over the cells that entered the list.
    pub(crate) fn hear(&mut self, heard: &mut mpsc::Receiver<Arc<Cell>>) {
        while let Ok(cell) = heard.try_recv() {
            self.cells.push(cell);
        }
    }

    /// All that may have requests in flight.
    pub(crate) fn cells(&self) -> &[Arc<Cell>] {
        &self.cells
    }

    /// The report of this period. A cell leaves the list before it is looked at, so that a request that comes in between
    /// lists it again; the loss of one report costs a period.
    pub(crate) fn report(&mut self, signals: &Signals) -> Option<Report> {
        let now = signals.now();
        let mut seen = Vec::with_capacity(self.cells.len());
        self.cells.retain(|cell| {
            cell.seen_listed.store(false, Ordering::SeqCst);
            // In this order: what ends in between is taken for one that lasts, at worst.
            let lasting = cell.lasting.load(Ordering::SeqCst);
            let in_flight = cell.in_flight.load(Ordering::SeqCst);
            let last = cell.last_ended.load(Ordering::SeqCst).max(cell.last_data.load(Ordering::SeqCst));
            let idle = if in_flight > lasting { 0 } else { now.saturating_sub(last) };
            seen.push(Seen { environment: cell.id.clone(), in_flight, idle: Duration::from_millis(idle) });
            // Lost the race for the flag: a request listed it again, and it comes back through the channel.
            in_flight > 0 && !cell.seen_listed.swap(true, Ordering::SeqCst)
        });
        (!seen.is_empty()).then_some(Report::Seen(seen))
    }
}
