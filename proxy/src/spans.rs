//! Requests as spans of traces, for whoever exports them: queued when they end, and dropped and counted where nobody takes
//! them in time. A proxy without such a queue makes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

/// Spans that wait to be exported; more are dropped.
pub const SPANS_MAX: usize = 4096;

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
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Told {
    exported: AtomicU64,
    lost: AtomicU64,
}

impl Spans {
    /// The two ends of a queue. It is over when every [`Spans`] was dropped.
    pub fn queue() -> (Self, Receiver<Span>) {
        let (queue, queued) = sync_channel(SPANS_MAX);
        (Self { queue, told: Arc::default() }, queued)
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
