//! What every part of a running proxy shares.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::watch;

use crate::access::AccessLog;
use crate::checks::{Asker, Verifier};
use crate::config::Limits;
use crate::dice::Dice;
use crate::drain::Phase;
use crate::front::listen::balance::Balance;
use crate::front::listen::budget::Budget;
use crate::live::Live;
use crate::live::signals::Signals;
use crate::metrics::{Metrics, Tally};
use crate::overload::Overload;
use crate::quiet::Quiet;
use crate::spans::Spans;

/// One worker's view of the proxy: all of it shared, but for the dice.
pub(crate) struct Edge {
    pub(crate) limits: Arc<Limits>,
    pub(crate) live: Arc<Live>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) access: AccessLog,
    /// Where spans are left, if somebody exports them.
    pub(crate) spans: Option<Spans>,
    pub(crate) metrics: Arc<Metrics>,
    /// What its thread alone counts in.
    pub(crate) tally: Arc<Tally>,
    pub(crate) dice: Dice,
    /// Answers that its thread compresses now.
    pub(crate) compressing: AtomicU32,
    /// What all connections may take.
    pub(crate) budget: Arc<Budget>,
    /// What is let go when all of it is too much.
    pub(crate) overload: Arc<Overload>,
    /// How they are spread.
    pub(crate) balance: Arc<Balance>,
    /// What is logged of no environment.
    pub(crate) quiet: Arc<Quiet>,
    /// Where passwords are verified.
    pub(crate) verifier: Arc<Verifier>,
    /// Asks those who decide elsewhere; each worker has its own.
    pub(crate) asker: Asker,
    /// Whether the first table was applied.
    pub(crate) ready: watch::Receiver<bool>,
    /// Whether the proxy is ending: a connection's next answer is its last.
    pub(crate) stopping: watch::Receiver<bool>,
    /// How it is ending.
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Edge {
    /// Whether what is known of a request is told when it ended.
    pub(crate) fn tells(&self) -> bool {
        self.access.is_kept() || self.spans.is_some()
    }

    /// Whether visitors are served, and will be for a while.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow() && matches!(*self.phase.borrow(), Phase::Serving)
    }
}
