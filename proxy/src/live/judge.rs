//! What an answer, or none, says of the instance: whether it is left out for a while, and how fast it is.
//!
//! Called by the lane. Where there is one instance only, nothing is noted.

use std::time::Duration;

use tracing::{info, warn};

use super::cell::{Flight, Instance};
use super::health::Verdict;
use crate::edge::Edge;

/// Answers that say that an instance cannot do its work now.
const FAILURES: std::ops::RangeInclusive<u16> = 502..=504;

impl Flight {
    /// The instance began an answer, so long after it was chosen.
    pub(crate) fn answered(&self, status: u16, took: impl FnOnce() -> Duration, edge: &Edge) {
        let Some(instance) = self.among_others() else { return };
        if FAILURES.contains(&status) {
            return self.failed(edge);
        }
        let now = self.signals.now();
        instance.latency.note(now, u64::try_from(took().as_micros()).unwrap_or(u64::MAX));
        if instance.health.answered(|| now) {
            info!(environment.id = %self.cell.id, instance.id = %instance.id, "an instance answers again, and gets requests");
        }
    }

    /// The instance could not be connected to, or gave no answer.
    pub(crate) fn failed(&self, edge: &Edge) {
        let Some(instance) = self.among_others() else { return };
        let now = self.signals.now();
        let may_go = || self.offer.plan.may_go(&self.offer.instances, self.index, now);
        if let Verdict::Out(millis) = instance.health.failed(now, may_go, edge.dice.roll(), &edge.limits) {
            edge.signals.tally.left_out();
            warn!(
                environment.id = %self.cell.id,
                instance.id = %instance.id,
                duration_ms = millis,
                "an instance failed again and again, and gets no requests for a while",
            );
        }
    }

    fn among_others(&self) -> Option<&Instance> {
        let instances = &self.offer.instances;
        (instances.len() > 1).then(|| &*instances[self.index])
    }
}
