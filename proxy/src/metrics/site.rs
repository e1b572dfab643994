//! What is counted of one environment's requests, by one worker; and the sum over workers.

use std::time::Duration;

use super::count::{ByWord, Count, Durations, Histogram};
use crate::access::EndedBy;

/// What clients spoke; last, what was no request.
pub(super) const PROTOCOLS: [&str; 4] = ["HTTP/1.0", "HTTP/1.1", "HTTP/2", "none"];
/// The first digit of the status; first, where no answer was begun.
pub(super) const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// See [`EndedBy`].
pub(super) const ENDERS: [&str; 3] = ["instance", "client", "proxy"];

const KINDS: usize = PROTOCOLS.len() * STATUSES.len() * ENDERS.len();

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// As the record has it.
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) ended_by: EndedBy,
    /// As the record has it: empty where it was not refused.
    pub(crate) refused: &'static str,
    pub(crate) total: Duration,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) held: Option<Duration>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) retries: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Site {
    requests: [Count; KINDS],
    refused: ByWord,
    total: Histogram,
    first_byte: Histogram,
    held: Histogram,
    received: Count,
    sent: Count,
    retries: Count,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            requests: [const { Count::zero() }; KINDS],
            refused: ByWord::empty(),
            total: Histogram::empty(),
            first_byte: Histogram::empty(),
            held: Histogram::empty(),
            received: Count::zero(),
            sent: Count::zero(),
            retries: Count::zero(),
        }
    }
}

impl Site {
    pub(super) fn count(&self, outcome: &Outcome) {
        self.requests[kind(outcome)].add(1);
        self.total.observe(outcome.total);
        if let Some(first_byte) = outcome.first_byte {
            self.first_byte.observe(first_byte);
        }
        if let Some(held) = outcome.held {
            self.held.observe(held);
        }
        if !outcome.refused.is_empty() {
            self.refused.add(outcome.refused);
        }
        if outcome.retries > 0 {
            self.retries.add(outcome.retries.into());
        }
        self.received.add(outcome.received);
        self.sent.add(outcome.sent);
    }

    pub(super) fn add_to(&self, sum: &mut Sum) {
        for (sum, count) in sum.requests.iter_mut().zip(&self.requests) {
            *sum += count.get();
        }
        for (word, count) in self.refused.each().filter(|(_, count)| *count > 0) {
            match sum.refused.iter_mut().find(|(known, _)| *known == word) {
                Some((_, sum)) => *sum += count,
                None => sum.refused.push((word, count)),
            }
        }
        self.total.add_to(&mut sum.total);
        self.first_byte.add_to(&mut sum.first_byte);
        self.held.add_to(&mut sum.held);
        sum.received += self.received.get();
        sum.sent += self.sent.get();
        sum.retries += self.retries.get();
    }

    /// Only while nobody counts.
    pub(super) fn reset(&self) {
        self.requests.iter().chain([&self.received, &self.sent, &self.retries]).for_each(Count::reset);
        self.refused.reset();
        [&self.total, &self.first_byte, &self.held].into_iter().for_each(Histogram::reset);
    }
}

fn kind(outcome: &Outcome) -> usize {
    let protocol = PROTOCOLS.iter().position(|name| *name == outcome.protocol).unwrap_or(PROTOCOLS.len() - 1);
    let status = match outcome.status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    };
    let ender = match outcome.ended_by {
        EndedBy::Instance => 0,
        EndedBy::Client => 1,
        EndedBy::Proxy => 2,
    };
    (protocol * STATUSES.len() + status) * ENDERS.len() + ender
}

/// The sum of sites.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    requests: [u64; KINDS],
    pub(super) refused: Vec<(&'static str, u64)>,
    pub(super) total: Durations,
    pub(super) first_byte: Durations,
    pub(super) held: Durations,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) retries: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            requests: [0; KINDS],
            refused: Vec::new(),
            total: Durations::default(),
            first_byte: Durations::default(),
            held: Durations::default(),
            received: 0,
            sent: 0,
            retries: 0,
        }
    }
}

impl Sum {
    /// Protocol, status and who ended it, of those that there were.
    pub(super) fn requests(&self) -> impl Iterator<Item = ([&'static str; 3], u64)> {
        let names = PROTOCOLS.iter().flat_map(|protocol| {
            STATUSES.iter().flat_map(move |status| ENDERS.iter().map(move |ender| [*protocol, *status, *ender]))
        });
        names.zip(self.requests).filter(|(_, count)| *count > 0)
    }
}
