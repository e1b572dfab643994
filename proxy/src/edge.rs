//! What every part of a running proxy shares.

use std::sync::Arc;

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
use crate::quiet::Quiet;

/// One worker's view of the proxy: all of it shared, but for the dice.
pub(crate) struct Edge {
    pub(crate) limits: Arc<Limits>,
    pub(crate) live: Arc<Live>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) access: AccessLog,
    pub(crate) dice: Dice,
    /// What all connections may take.
    pub(crate) budget: Arc<Budget>,
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
