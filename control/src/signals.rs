//! What edges say, kept in memory: who is wanted, who was seen, what is applied and drained.
//!
//! Signals are level-triggered: an edge repeats them for as long as they hold, so that nothing here needs to survive a crash.
//! Only the newest word of each edge counts; a word is no reason to act but a reason to look.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_link::{EnvironmentId, Generation, ObjectId, Report};
use tokio::sync::Notify;

use crate::model::Millis;
use crate::plan::Traffic;

/// How long a `Wanted` holds: an edge repeats it each second.
const WANTED_HOLDS: Duration = Duration::from_millis(2500);

/// An edge as this control plane knows it.
pub(crate) type EdgeId = u64;

/// What all edges say.
#[derive(Debug)]
pub(crate) struct Signals {
    inner: Mutex<Inner>,
    acks: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Idle times count from here: nobody knows what was before.
    began_at: Millis,
    edges: HashMap<EdgeId, Edge>,
    environments: HashMap<EnvironmentId, Word>,
    /// Those that were looked at before every edge had applied them: the next ack is news for them.
    unacked: HashSet<EnvironmentId>,
}

#[derive(Debug, Default)]
struct Edge {
    acked: Generation,
    /// What it did not take, by the version that it refused last.
    refused: HashMap<EnvironmentId, Generation>,
    drained: HashMap<EnvironmentId, Generation>,
}

#[derive(Debug, Default)]
struct Word {
    wanted_at: Option<Millis>,
    last_active_at: Option<Millis>,
}

impl Signals {
    /// Nothing was said yet.
    pub(crate) fn new(now: Millis) -> Self {
        let inner = Inner { began_at: now, ..Inner::default() };
        Self { inner: Mutex::new(inner), acks: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An edge is there: nothing is acked or drained without it.
    pub(crate) fn join(&self, edge: EdgeId) {
        self.inner().edges.insert(edge, Edge::default());
    }

    /// An edge is gone for good.
    pub(crate) fn leave(&self, edge: EdgeId) {
        self.inner().edges.remove(&edge);
        self.acks.notify_waiters();
    }

    /// Waits until every edge has applied `generation`, at most for `within`; says whether they have.
    pub(crate) async fn applied(&self, generation: Generation, within: Duration) -> bool {
        let applied = async {
            loop {
                // Listened to before it is looked at, so that no ack is missed in between.
                let mut ack = pin!(self.acks.notified());
                ack.as_mut().enable();
                if self.acked() >= generation {
                    return;
                }
                ack.await;
            }
        };
        tokio::time::timeout(within, applied).await.is_ok()
    }

    /// Whether an edge refused this version of an environment, and serves by the one before.
    pub(crate) fn is_refused(&self, environment: &EnvironmentId, version: Generation) -> bool {
        self.inner().edges.values().any(|edge| edge.refused.get(environment) == Some(&version))
    }

    /// Takes an edge's word. Returns the environments that should be looked at because of it.
    pub(crate) fn hear(&self, edge: EdgeId, report: &Report, now: Millis) -> Vec<EnvironmentId> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        match report {
            Report::Acked { generation, rejected } => {
                // A word of an edge that has left says nothing about those that are there.
                let Some(edge) = inner.edges.get_mut(&edge) else { return Vec::new() };
                edge.acked = edge.acked.max(*generation);
                for rejected in rejected {
                    if let ObjectId::Environment(id) = &rejected.id {
                        edge.refused.insert(id.clone(), rejected.version);
                    }
                }
                self.acks.notify_waiters();
                inner.unacked.drain().collect()
            }
            Report::Drained { environment, generation } => {
                let Some(edge) = inner.edges.get_mut(&edge) else { return Vec::new() };
                let drained = &mut edge.drained;
                let before = drained.insert(environment.clone(), *generation);
                // A repeated word is no news.
                if before == Some(*generation) { Vec::new() } else { vec![environment.clone()] }
            }
            Report::Wanted(wanted) => {
                for wanted in wanted {
                    inner.environments.entry(wanted.environment.clone()).or_default().wanted_at = Some(now);
                }
                wanted.iter().map(|wanted| wanted.environment.clone()).collect()
            }
            Report::Seen(seen) => {
                for seen in seen {
                    let at = now - Millis::try_from(seen.idle.as_millis()).unwrap_or(Millis::MAX);
                    let word = inner.environments.entry(seen.environment.clone()).or_default();
                    word.last_active_at = word.last_active_at.max(Some(at));
                }
                Vec::new()
            }
            Report::Unreachable { environment, .. } => vec![environment.clone()],
            Report::Lost { .. } => Vec::new(),
        }
    }

    /// What is said of an environment whose cell has version `generation`. What was said in the future, before the clock was
    /// set back, was said now; who is wanted is named again.
    pub(crate) fn traffic(&self, environment: &EnvironmentId, generation: Generation, now: Millis) -> Traffic {
        let mut inner = self.inner();
        inner.began_at = inner.began_at.min(now);
        if let Some(word) = inner.environments.get_mut(environment) {
            word.last_active_at = word.last_active_at.map(|at| at.min(now));
        }
        let acked = inner.edges.values().all(|edge| edge.acked >= generation);
        if !acked {
            inner.unacked.insert(environment.clone());
        }
        let word = inner.environments.get(environment);
        let holds = Millis::try_from(WANTED_HOLDS.as_millis()).unwrap_or(Millis::MAX);
        Traffic {
            wanted: word.and_then(|word| word.wanted_at).is_some_and(|at| (0..holds).contains(&(now - at))),
            last_active_at: word.and_then(|word| word.last_active_at).unwrap_or(inner.began_at).max(inner.began_at),
            drained: drained(&inner, environment, generation),
            acked,
        }
    }

    /// Whether every edge said that it is drained of what the cell of `generation` does not offer.
    pub(crate) fn drained(&self, environment: &EnvironmentId, generation: Generation) -> bool {
        drained(&self.inner(), environment, generation)
    }

    /// What every edge has applied.
    pub(crate) fn acked(&self) -> Generation {
        let least = self.inner().edges.values().map(|edge| edge.acked).min();
        least.unwrap_or(Generation(u64::MAX))
    }

    /// When edges saw the last request for an environment, if they did since the start.
    pub(crate) fn last_active_at(&self, environment: &EnvironmentId) -> Option<Millis> {
        self.inner().environments.get(environment).and_then(|word| word.last_active_at)
    }

    /// The start of an environment answers those who wanted it until now.
    pub(crate) fn answer(&self, environment: &EnvironmentId) {
        if let Some(word) = self.inner().environments.get_mut(environment) {
            word.wanted_at = None;
        }
    }

    /// An environment is gone.
    pub(crate) fn forget(&self, environment: &EnvironmentId) {
        let mut inner = self.inner();
        inner.environments.remove(environment);
        inner.unacked.remove(environment);
        for edge in inner.edges.values_mut() {
            edge.drained.remove(environment);
        }
    }
}

fn drained(inner: &Inner, environment: &EnvironmentId, generation: Generation) -> bool {
    inner.edges.values().all(|edge| edge.drained.get(environment).is_some_and(|drained| *drained >= generation))
}

#[cfg(test)]
mod tests {
    use dormouse_link::{Seen, Wanted};

    use super::*;

    const GENERATION: Generation = Generation(5);

    fn environment() -> EnvironmentId {
        EnvironmentId::new("e")
    }

    fn drained(generation: u64) -> Report {
        Report::Drained { environment: environment(), generation: Generation(generation) }
    }

    #[test]
    fn nothing_is_drained_before_every_edge_said_so_of_this_version_or_a_later_one() {
        let signals = Signals::new(0);
        signals.join(1);
        signals.join(2);
        assert_eq!(signals.hear(1, &drained(5), 1), [environment()], "a reason to look");
        assert_eq!(signals.hear(1, &drained(5), 2), [], "a repeated word is none");
        assert!(!signals.traffic(&environment(), GENERATION, 2).drained, "the other edge may be connecting");
        signals.hear(2, &drained(4), 3);
        assert!(!signals.traffic(&environment(), GENERATION, 3).drained, "it speaks of an older version");
        signals.hear(2, &drained(6), 4);
        assert!(signals.traffic(&environment(), GENERATION, 4).drained);
        signals.join(3);
        assert!(!signals.drained(&environment(), GENERATION), "a new edge has not spoken");
        signals.leave(3);
        signals.hear(3, &drained(1), 5);
        assert!(signals.drained(&environment(), GENERATION));
    }

    #[test]
    fn a_wish_holds_until_it_is_answered_or_nobody_repeats_it() {
        let signals = Signals::new(0);
        let wanted =
            Report::Wanted(vec![Wanted { environment: environment(), epoch: dormouse_link::Epoch(1), waiters: 3 }]);
        signals.hear(1, &wanted, 1000);
        let is_wanted = |now| signals.traffic(&environment(), GENERATION, now).wanted;
        assert!(is_wanted(1000) && is_wanted(3000));
        assert!(!is_wanted(4000));
        signals.hear(1, &wanted, 5000);
        signals.answer(&environment());
        assert!(!is_wanted(5000));
    }

    #[test]
    fn idle_times_count_from_the_last_request_of_any_edge_and_never_from_before_the_start() {
        let signals = Signals::new(1000);
        let seen = |idle| {
            Report::Seen(vec![Seen { environment: environment(), in_flight: 0, idle: Duration::from_millis(idle) }])
        };
        let last = |now| signals.traffic(&environment(), GENERATION, now).last_active_at;
        assert_eq!(last(2000), 1000);
        signals.hear(1, &seen(500), 5000);
        signals.hear(2, &seen(3000), 5000);
        assert_eq!(last(5000), 4500);
    }

    #[test]
    fn c21_a_clock_that_was_set_back_or_forward_stretches_neither_a_wish_nor_an_idle_time() {
        const NOW: Millis = 10_000_000;
        const HOUR: Millis = 3_600_000;
        for then in [NOW + HOUR, NOW - HOUR] {
            let signals = Signals::new(then);
            let traffic = |now| signals.traffic(&environment(), GENERATION, now);
            assert!(traffic(NOW).last_active_at <= NOW && traffic(NOW + 1000).last_active_at <= NOW, "since {then}");
            let wanted =
                Report::Wanted(vec![Wanted { environment: environment(), epoch: dormouse_link::Epoch(1), waiters: 3 }]);
            let seen = Report::Seen(vec![Seen { environment: environment(), in_flight: 0, idle: Duration::ZERO }]);
            signals.hear(1, &wanted, then);
            signals.hear(1, &seen, then);
            assert!(!traffic(NOW).wanted, "of {then}; whoever waits is named again");
            assert!(traffic(NOW).last_active_at <= NOW && traffic(NOW + 1000).last_active_at <= NOW, "at {then}");
            signals.hear(1, &wanted, NOW);
            signals.hear(1, &seen, NOW + 500);
            assert!(traffic(NOW + 500).wanted);
            assert_eq!(traffic(NOW + 500).last_active_at, NOW + 500);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_ack_of_every_edge_is_waited_for_and_not_for_ever() {
        let signals = Signals::new(0);
        signals.join(1);
        signals.join(2);
        let ack = |generation| Report::Acked { generation: Generation(generation), rejected: Vec::new() };
        signals.hear(1, &ack(5), 0);
        assert!(!signals.applied(GENERATION, Duration::from_secs(1)).await);
        let (applied, _) = tokio::join!(signals.applied(GENERATION, Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            signals.hear(2, &ack(7), 0)
        });
        assert!(applied);
        assert_eq!(signals.acked(), GENERATION);
    }
}
