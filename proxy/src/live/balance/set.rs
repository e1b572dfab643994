//! One set of endpoints, and the ways to pick one of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dormouse_link::Endpoint;

use super::{GOLDEN, Wish, mix};
use crate::dice::Dice;
use crate::live::cell::Instance;
use crate::live::health::Standing;
use crate::live::signals::Signals;

/// Endpoints that are chosen among, by their places in the offer.
#[derive(Debug)]
pub(super) struct Set {
    /// With a weight.
    pub(super) members: Box<[usize]>,
    weights: Box<[u64]>,
    /// The sums of the weights up to each.
    ends: Box<[u64]>,
    /// Without.
    pub(super) spare: Box<[usize]>,
    /// How many may be left out at a time.
    pub(super) out_max: usize,
    turn: AtomicU32,
}

/// What there is to pick by.
pub(crate) struct Ask<'a> {
    pub(crate) instances: &'a [Arc<Instance>],
    pub(crate) wish: &'a Wish,
    /// Whether the endpoint at that place could not be connected to.
    pub(crate) tried: &'a dyn Fn(usize) -> bool,
    pub(crate) dice: &'a Dice,
    pub(crate) signals: &'a Signals,
}

/// Whether an endpoint can be picked.
pub(super) enum Fits {
    Yes,
    /// It has to be picked: the one place of a trial was taken.
    OnTrial,
    No,
}

impl Set {
    pub(super) fn new(endpoints: &[Endpoint], all: Vec<usize>, out_max: usize) -> Self {
        let weight = |at: &usize| u64::from(endpoints[*at].weight);
        let (spare, members): (Vec<_>, Vec<_>) = all.into_iter().partition(|at| weight(at) == 0);
        // Where none has a weight, all are alike.
        let (spare, members, least) = if members.is_empty() { (members, spare, 1) } else { (spare, members, 0) };
        let weights: Box<[u64]> = members.iter().map(|at| weight(at).max(least)).collect();
        let mut sum = 0;
        let ends = weights.iter().map(|weight| {
            sum += weight;
            sum
        });
        Self {
            ends: ends.collect(),
            members: members.into(),
            weights,
            spare: spare.into(),
            out_max,
            turn: AtomicU32::new(0),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = usize> + use<'_> {
        self.members.iter().chain(&self.spare).copied()
    }

    fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The member whose part of the whole has that number in it.
    fn at(&self, number: u64) -> usize {
        self.ends.partition_point(|&end| end <= number).min(self.members.len().saturating_sub(1))
    }

    /// Of two different ones, drawn by their weights.
    pub(super) fn less_busy_of_two(&self, ask: &Ask<'_>) -> Option<usize> {
        let total = self.total();
        let first = self.at(scale(ask.dice.roll(), total));
        let drawn = self.members.get(first).copied()?;
        let rest = total - self.weights[first];
        if rest == 0 {
            return (!matches!(ask.fits(self, drawn), Fits::No)).then_some(drawn);
        }
        let number = scale(ask.dice.roll(), rest);
        let begin = self.ends[first] - self.weights[first];
        let second = self.at(if number < begin { number } else { number + self.weights[first] });
        let mut best: Option<usize> = None;
        for place in [first, second] {
            match ask.fits(self, self.members[place]) {
                Fits::OnTrial => return Some(self.members[place]),
                Fits::Yes => {
                    let better = best.is_none_or(|best| ask.is_better(self, place, best));
                    best = if better { Some(place) } else { best };
                }
                Fits::No => {}
            }
        }
        best.map(|place| self.members[place])
    }

    /// Whose turn it is: one after the other, or as near to the weights as can be.
    pub(super) fn next(&self, ask: &Ask<'_>) -> Option<usize> {
        let (count, total) = (self.members.len(), self.total());
        let even = total == self.weights.first().copied().unwrap_or(0) * count as u64;
        (0..count).find_map(|_| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let place =
                if even { turn as usize % count } else { self.at(scale(u64::from(turn).wrapping_mul(GOLDEN), total)) };
            Some(self.members[place]).filter(|&index| !matches!(ask.fits(self, index), Fits::No))
        })
    }

    /// The one with the highest score for the key; the scores of others do not depend on who is there.
    pub(super) fn nearest(&self, ask: &Ask<'_>, seeds: &[u64], key: u64) -> Option<usize> {
        let score = |place: usize| score(seeds[self.members[place]], key, self.weights[place]);
        let mut below = f64::INFINITY;
        for _ in 0..self.members.len() {
            let scores = (0..self.members.len()).map(|place| (place, score(place)));
            let (place, best) = scores.filter(|(_, score)| *score < below).max_by(|a, b| a.1.total_cmp(&b.1))?;
            if !matches!(ask.fits(self, self.members[place]), Fits::No) {
                return Some(self.members[place]);
            }
            below = best;
        }
        None
    }
}

impl Ask<'_> {
    pub(super) fn fits(&self, set: &Set, index: usize) -> Fits {
        if (self.tried)(index) {
            return Fits::No;
        }
        let health = &self.instances[index].health;
        if health.is_fit() {
            return Fits::Yes;
        }
        let now = self.signals.now();
        match health.standing(now) {
            Standing::Fit => Fits::Yes,
            Standing::Due if health.try_out(now) => Fits::OnTrial,
            Standing::Due => Fits::No,
            Standing::Out(until) => {
                let later = |at: &usize| match self.instances[*at].health.standing(now) {
                    Standing::Out(other) => (other, *at) > (until, index),
                    Standing::Fit | Standing::Due => false,
                };
                if set.all().filter(later).count() < set.out_max { Fits::No } else { Fits::Yes }
            }
        }
    }

    pub(super) fn busy(&self, index: usize) -> u64 {
        u64::from(self.instances[index].in_flight.load(Ordering::Relaxed))
    }

    /// Whether a member has less to do than another for its weight; or as much, and the other is far slower.
    fn is_better(&self, set: &Set, one: usize, other: usize) -> bool {
        let (index, other_index) = (set.members[one], set.members[other]);
        let (load, other_load) = (self.busy(index) * set.weights[other], self.busy(other_index) * set.weights[one]);
        let slower = || {
            let (latency, other) = (&self.instances[index].latency, &self.instances[other_index].latency);
            other.is_slower(latency, || self.signals.now())
        };
        load < other_load || (load == other_load && slower())
    }

    /// Of those that fit, one that has least to do.
    pub(super) fn least_busy(&self, set: &Set, places: &[usize]) -> Option<usize> {
        let mut best: Option<usize> = None;
        for &index in places {
            match self.fits(set, index) {
                Fits::OnTrial => return Some(index),
                Fits::Yes if best.is_none_or(|best| self.busy(index) < self.busy(best)) => best = Some(index),
                Fits::Yes | Fits::No => {}
            }
        }
        best
    }
}

/// A number below `below`, as far into it as `roll` is into all numbers.
fn scale(roll: u64, below: u64) -> u64 {
    ((u128::from(roll) * u128::from(below)) >> 64) as u64
}

/// Rendezvous hashing with weights: the highest score wins, and wins as often as its weight is of all.
fn score(seed: u64, key: u64, weight: u64) -> f64 {
    let part = ((mix(seed ^ key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    weight as f64 / -part.ln()
}
