//! Numbers that one thread raises, by a load and a store, and others read at any time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a histogram's buckets, in microseconds; what takes longer is in one more.
pub(super) const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Words that one [`ByWord`] tells apart; those beyond are counted together.
const WORDS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(super) const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Only its one thread may call it: it is no atomic addition, which would cost several times as much.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Only while nobody adds.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// How long things took.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: [Count; BOUNDS.len() + 1],
    sum_micros: Count,
}

impl Histogram {
    pub(super) const fn empty() -> Self {
        Self { counts: [const { Count::zero() }; BOUNDS.len() + 1], sum_micros: Count::zero() }
    }

    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < micros)].add(1);
        self.sum_micros.add(micros);
    }

    pub(super) fn add_to(&self, sum: &mut Durations) {
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        sum.sum_micros = sum.sum_micros.wrapping_add(self.sum_micros.get());
    }

    pub(super) fn reset(&self) {
        self.counts.iter().chain([&self.sum_micros]).for_each(Count::reset);
    }
}

/// The sum of histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Durations {
    /// By bucket; not added up yet.
    pub(super) counts: [u64; BOUNDS.len() + 1],
    pub(super) sum_micros: u64,
}

/// A number for each of a few words that the program itself has.
#[derive(Debug)]
pub(super) struct ByWord([(OnceLock<&'static str>, Count); WORDS_MAX]);

impl ByWord {
    pub(super) const fn empty() -> Self {
        Self([const { (OnceLock::new(), Count::zero()) }; WORDS_MAX])
    }

    pub(super) fn add(&self, word: &'static str) {
        let mut of_word = self.0.iter().filter(|(known, _)| *known.get_or_init(|| word) == word);
        if let Some((_, count)) = of_word.next().or(self.0.last()) {
            count.add(1);
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map_while(|(word, count)| Some((*word.get()?, count.get())))
    }

    pub(super) fn reset(&self) {
        self.0.iter().for_each(|(_, count)| count.reset());
    }
}
