//! What this process did to start an environment's instances: in memory only, because after a crash it is done again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_link::InstanceId;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::plan::Probe;

/// The attempts of one environment's reconciler.
#[derive(Debug, Default)]
pub(crate) struct Attempts(HashMap<InstanceId, Attempt>);

#[derive(Debug)]
struct Attempt {
    probe: Arc<Mutex<Probe>>,
    /// Ends the probing when the attempt is forgotten.
    _end: DropGuard,
    token: CancellationToken,
}

/// Where a prober leaves its result.
pub(crate) struct Outcome {
    probe: Arc<Mutex<Probe>>,
    /// Cancelled when nobody wants to know any more.
    pub(crate) token: CancellationToken,
}

impl Outcome {
    pub(crate) fn set(&self, probe: Probe) {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = probe;
    }
}

impl Attempts {
    /// Whether the instance was started since it was last stopped.
    pub(crate) fn launched(&self, id: &InstanceId) -> bool {
        self.0.contains_key(id)
    }

    /// How far its probing is.
    pub(crate) fn probe(&self, id: &InstanceId) -> Probe {
        let attempt = self.0.get(id);
        attempt.map_or(Probe::Never, |attempt| attempt.probe.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The instance was started.
    pub(crate) fn launch(&mut self, id: &InstanceId) {
        let token = CancellationToken::new();
        let attempt = Attempt { probe: Arc::new(Mutex::new(Probe::Never)), _end: token.clone().drop_guard(), token };
        self.0.insert(id.clone(), attempt);
    }

    /// A prober begins, unless one did already.
    pub(crate) fn begin_probe(&mut self, id: &InstanceId) -> Option<Outcome> {
        let attempt = self.0.get(id)?;
        let mut probe = attempt.probe.lock().unwrap_or_else(PoisonError::into_inner);
        if *probe != Probe::Never {
            return None;
        }
        *probe = Probe::Running;
        Some(Outcome { probe: attempt.probe.clone(), token: attempt.token.clone() })
    }

    /// The instance was stopped or removed: what was known of its start is void.
    pub(crate) fn forget(&mut self, id: &InstanceId) {
        self.0.remove(id);
    }
}
