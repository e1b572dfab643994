//! Requests as spans of traces, for whoever exports them: queued when they end, and dropped and counted where nobody takes
//! them in time. A proxy without such a queue makes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

/// Spans that wait to be exported; more are dropped.
pub const SPANS_MAX: usize = 4096;

/// Which of the traces that begin here are recorded: a share of them, by their ids, as OpenTelemetry's `TraceIdRatioBased` has
/// it. Whoever goes by the same share decides the same of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Every trace.
    pub const ALL: Self = Self(1 << 63);

    /// So much of one; `None` for what is not from 0 to 1.
    pub fn of(ratio: f64) -> Option<Self> {
        (0.0..=1.0).contains(&ratio).then_some(Self((ratio * (1_u64 << 63) as f64) as u64))
    }

    /// Whether a trace is one of them.
    pub(crate) fn has(self, trace: u128) -> bool {
        // The last eight bytes of the id, without the last bit.
        ((trace as u64) >> 1) < self.0
    }
}

/// A request whose trace somebody records.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace that it is part of.
    pub trace: u128,
    /// The span that asked, if the client named one.
    pub parent: Option<u64>,
    /// Its own number, which the application got as its parent.
    pub id: u64,
    /// When its head was there.
    pub began: SystemTime,
    /// From its head to its end.
    pub took: Duration,
    /// How it ended, by the fields of its access record.
    pub method: String,
    /// As the client sent it.
    pub host: String,
    /// Without the query.
    pub path: String,
    /// Whether the visitor spoke TLS.
    pub tls: bool,
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
    /// 0 where no answer was begun.
    pub status: u16,
    /// Why the edge answered by itself; empty where it did not.
    pub refused: &'static str,
    /// `instance`, `client` or `proxy`.
    pub ended_by: &'static str,
    /// What applications know it by.
    pub request_id: String,
    /// Whose it was; empty where it was nobody's.
    pub app: String,
    /// See `app`.
    pub environment: String,
    /// See `app`.
    pub deployment: u64,
    /// The container that served it.
    pub instance: String,
    /// How long it waited for its environment to wake, in milliseconds.
    pub held_ms: u64,
}

/// Where a proxy leaves spans.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: SyncSender<Span>,
    told: Arc<Told>,
    share: Share,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Told {
    exported: AtomicU64,
    lost: AtomicU64,
}

impl Spans {
    /// The two ends of a queue for a share of the traces that begin here. It is over when every [`Spans`] was dropped.
    pub fn queue(share: Share) -> (Self, Receiver<Span>) {
        let (queue, queued) = sync_channel(SPANS_MAX);
        (Self { queue, told: Arc::default(), share }, queued)
    }

    /// Which of the traces that begin here are recorded.
    pub(crate) fn share(&self) -> Share {
        self.share
    }

    /// Where it is counted what became of them.
    pub fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    pub(crate) fn say(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.told.lost(1);
        }
    }

    /// How many were exported and lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.told.exported.load(Ordering::Relaxed), self.told.lost.load(Ordering::Relaxed))
    }
}

impl Told {
    /// So many were taken by a collector.
    pub fn exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
    }

    /// So many were not.
    pub fn lost(&self, spans: u64) {
        self.lost.fetch_add(spans, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_traces_is_recorded_and_everywhere_the_same() {
        // Ids as a fair dice makes them: a multiplicative walk through all of them.
        let ids = (1..=100_000_u128).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let taken = |ratio| ids.clone().filter(|id| Share::of(ratio).expect("a share").has(*id)).count();
        assert_eq!((taken(0.0), taken(1.0)), (0, 100_000));
        for (ratio, expected) in [(0.25, 25_000), (0.5, 50_000), (0.01, 1_000)] {
            let taken = taken(ratio);
            assert!(taken.abs_diff(expected) < 500, "{ratio}: {taken}");
        }
        assert_eq!(Share::of(1.0), Some(Share::ALL));
        assert!(Share::ALL.has(u128::MAX) && !Share::of(0.0).expect("a share").has(0));
    }

    #[test]
    fn whoever_records_less_records_nothing_that_others_do_not() {
        let (some, more) = (Share::of(0.1).expect("a share"), Share::of(0.2).expect("a share"));
        for number in 0..10_000_u128 {
            let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            assert!(more.has(id) || !some.has(id));
        }
        // By the last eight bytes, as OpenTelemetry's SDKs do: their edge of 0.25 is 2^61, of a number of 63 bits.
        let quarter = Share::of(0.25).expect("a share");
        assert!(quarter.has((7 << 64) | ((1 << 62) - 1)) && !quarter.has((7 << 64) | (1 << 62)));
    }

    #[test]
    fn what_is_no_share_is_none() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Share::of(bad), None, "{bad}");
        }
    }
}
