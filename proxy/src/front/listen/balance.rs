//! How many connections each worker has; a worker far above the mean hands what it accepts to the least loaded.
//!
//! The kernel spreads connections by a hash, which is even over many and uneven over few or long ones. A connection that was
//! handed over is counted for its new worker at once, so that nobody is flooded by all others at the same moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::accept::Entrance;
use super::budget::Place;

/// Connections that were handed to a worker and not taken yet; more stay where they were accepted.
const ARRIVALS_MAX: usize = 256;

/// A connection that was accepted and nothing more.
pub(crate) struct Arrival {
    pub(super) socket: socket2::Socket,
    /// None through a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) entrance: Arc<Entrance>,
    pub(super) seat: Seat,
    pub(super) place: Place,
}

/// See the module.
pub(crate) struct Balance(Vec<Desk>);

/// What is known of one worker.
struct Desk {
    open: AtomicUsize,
    accepted: AtomicU64,
    taken_over: AtomicU64,
    arrivals: mpsc::Sender<Arrival>,
}

impl Balance {
    /// For so many workers, with what each of them listens to.
    pub(crate) fn new(workers: usize) -> (Arc<Self>, Vec<mpsc::Receiver<Arrival>>) {
        let desk = |arrivals| Desk {
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            arrivals,
        };
        let (desks, heard) = (0..workers)
            .map(|_| {
                let (arrivals, heard) = mpsc::channel(ARRIVALS_MAX);
                (desk(arrivals), heard)
            })
            .unzip();
        (Arc::new(Self(desks)), heard)
    }

    /// Counts a connection that a worker accepted.
    pub(super) fn accepted(self: &Arc<Self>, worker: usize) -> Seat {
        self.0[worker].accepted.fetch_add(1, Ordering::Relaxed);
        self.0[worker].open.fetch_add(1, Ordering::Relaxed);
        Seat { balance: Arc::clone(self), worker }
    }

    /// Hands a connection to another worker if its own has too many; else, or if the other is slow to take them, it is back.
    pub(super) fn hand_over(&self, mut arrival: Arrival) -> Option<Arrival> {
        let from = arrival.seat.worker;
        let counts = self.0.iter().map(|desk| desk.open.load(Ordering::Relaxed));
        let Some(to) = relief(from, counts) else { return Some(arrival) };
        arrival.seat.move_to(to);
        match self.0[to].arrivals.try_send(arrival) {
            Ok(()) => {
                self.0[to].taken_over.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(mpsc::error::TrySendError::Full(mut arrival) | mpsc::error::TrySendError::Closed(mut arrival)) => {
                arrival.seat.move_to(from);
                Some(arrival)
            }
        }
    }

    /// For operators.
    pub(crate) fn shown(&self) -> Value {
        let desk = |desk: &Desk| {
            json!({
                "open": desk.open.load(Ordering::Relaxed),
                "accepted": desk.accepted.load(Ordering::Relaxed),
                "taken_over": desk.taken_over.load(Ordering::Relaxed),
            })
        };
        self.0.iter().map(desk).collect()
    }
}

/// The least loaded worker, if this one is far above the mean: more than 1.2 times of it and 8.
fn relief(this: usize, counts: impl Iterator<Item = usize> + Clone) -> Option<usize> {
    let (workers, total) = counts.clone().fold((0, 0), |(workers, total), open| (workers + 1, total + open));
    let open = counts.clone().nth(this)?;
    let far_above = open.saturating_sub(8) * workers * 5 > total * 6;
    let least = counts.enumerate().min_by_key(|(_, open)| *open)?.0;
    (far_above && least != this).then_some(least)
}

/// A connection's place at its worker; freed with its drop.
pub(super) struct Seat {
    balance: Arc<Balance>,
    worker: usize,
}

impl Seat {
    fn move_to(&mut self, worker: usize) {
        self.balance.0[worker].open.fetch_add(1, Ordering::Relaxed);
        self.balance.0[self.worker].open.fetch_sub(1, Ordering::Relaxed);
        self.worker = worker;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.balance.0[self.worker].open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_connections_stay_where_they_are() {
        for counts in [[0, 0], [8, 0], [18, 10], [128, 100]] {
            assert_eq!(relief(0, counts.into_iter()), None, "{counts:?}");
        }
        assert_eq!(relief(0, [100].into_iter()), None, "there is nobody else");
        assert_eq!(relief(0, [30, 10].into_iter()), None);
    }

    #[test]
    fn a_worker_far_above_the_mean_hands_to_the_least_loaded() {
        assert_eq!(relief(0, [50, 10].into_iter()), Some(1));
        assert_eq!(relief(2, [40, 3, 90, 41].into_iter()), Some(1));
        assert_eq!(relief(0, [40, 3, 90, 41].into_iter()), None, "it is not this one that has too many");
    }

    proptest! {
        /// However uneven the kernel is, no worker ends with more than 1.3 times the mean of many connections.
        #[test]
        fn the_fullest_worker_stays_near_the_mean(workers in 2usize..9, favour in 0usize..9, seed in any::<u64>()) {
            let (mut counts, mut dice) = (vec![0; workers], seed | 1);
            for _ in 0..workers * 250 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let random = usize::try_from(dice >> 40).expect("24 bits");
                let by = if random % 9 < favour { 0 } else { random / 9 % workers };
                let by = relief(by, counts.iter().copied()).unwrap_or(by);
                counts[by] += 1;
            }
            let most = counts.iter().max().copied().unwrap_or_default();
            prop_assert!(most * 10 <= 250 * 13, "{:?}", counts);
        }
    }
}
