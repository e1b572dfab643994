//! What is counted of all that passes, for operators: on the request path plain additions, sums when somebody asks.
//!
//! Each worker counts for itself ([`Tally`]), and nobody else writes there; `/metrics` of the admin listener adds them up
//! ([`scrape`]). An environment has a place in every tally, which its cell knows, so that nothing is looked up by name for a
//! request. Labels are bounded: applications and environments of the table, up to a number; never a host, a path or an address.

mod count;
mod door;
mod scrape;
mod site;
mod tally;

pub(crate) use door::Door;
pub(crate) use scrape::{Believed, scrape};
pub(crate) use site::Outcome;
pub(crate) use tally::{Goaway, NoHandshake, Tally};

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// Environments with labels of their own; those beyond are counted together.
pub(crate) const ENVIRONMENTS_MAX: usize = 1000;

/// The app and environment of requests to environments beyond [`ENVIRONMENTS_MAX`]; neither can be called so.
pub(crate) const OTHER: &str = "_other";

/// Everything that is counted in one proxy.
pub(crate) struct Metrics {
    tallies: Box<[Arc<Tally>]>,
    doors: Vec<Arc<Door>>,
    places: Mutex<Places>,
    alive: AtomicUsize,
    /// Workers that began, again and again.
    starts: AtomicU64,
    /// Updates that were applied.
    pub(crate) updates: AtomicU64,
    /// Objects that were refused.
    pub(crate) rejected: AtomicU64,
    /// Updates that did not follow.
    pub(crate) gaps: AtomicU64,
    /// When the last update was applied, on the clock of [`crate::live::signals::Signals`].
    pub(crate) updated: AtomicU64,
}

/// An environment's place in every tally; its cell keeps it. Without one, requests are counted as nobody's.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicU32);

/// Where requests to no environment are counted.
const NOBODY: u32 = 0;
/// Where requests to environments beyond the limit are.
const BEYOND: u32 = 1;
/// The first place of an environment.
const FIRST: u32 = 2;
/// Places of a tally.
const PLACES: usize = ENVIRONMENTS_MAX + FIRST as usize;

impl Place {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who has which place.
#[derive(Default)]
struct Places {
    names: Vec<Option<(String, String)>>,
    free: Vec<u32>,
}

impl Places {
    fn room(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let next = u32::try_from(self.names.len()).ok()? + FIRST;
            (self.names.len() < ENVIRONMENTS_MAX).then(|| {
                self.names.push(None);
                next
            })
        })
    }

    fn name(&mut self, place: u32) -> Option<&mut Option<(String, String)>> {
        self.names.get_mut(place.checked_sub(FIRST)? as usize)
    }
}

/// A worker that runs; counted until its drop.
pub(crate) struct Alive(Arc<Metrics>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new(workers: usize, doors: Vec<Arc<Door>>) -> Arc<Self> {
        Arc::new(Self {
            tallies: (0..workers).map(|_| Arc::new(Tally::new())).collect(),
            doors,
            places: Mutex::default(),
            alive: AtomicUsize::new(0),
            starts: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            updated: AtomicU64::new(0),
        })
    }

    /// What a worker counts in, and no other thread; without a worker of that number, what nobody reads.
    pub(crate) fn tally(&self, worker: usize) -> Arc<Tally> {
        self.tallies.get(worker).map_or_else(|| Arc::new(Tally::new()), Arc::clone)
    }

    /// A worker runs.
    pub(crate) fn alive(self: &Arc<Self>) -> Alive {
        self.alive.fetch_add(1, Ordering::Relaxed);
        self.starts.fetch_add(1, Ordering::Relaxed);
        Alive(Arc::clone(self))
    }

    /// Gives an environment its place, if it has none and there is one; only the feed calls it.
    pub(crate) fn enter(&self, place: &Place, app: &str, environment: &str) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match place.get() {
            NOBODY | BEYOND => places.room().unwrap_or(BEYOND),
            at => at,
        };
        if let Some(name) = places.name(at) {
            *name = Some((app.to_owned(), environment.to_owned()));
        }
        place.0.store(at, Ordering::Relaxed);
    }

    /// Frees the place of an environment that no request has any more; only the feed calls it.
    pub(crate) fn leave(&self, place: &Place) {
        let at = place.0.swap(NOBODY, Ordering::Relaxed);
        // Whoever counted there has let go of the cell, and is seen to have.
        fence(Ordering::Acquire);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = places.name(at) {
            *name = None;
            places.free.push(at);
            self.tallies.iter().for_each(|tally| tally.forget(at));
        }
    }
}

#[cfg(test)]
mod tests;
