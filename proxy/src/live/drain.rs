//! When an environment's old instances are free: `Drained`.
//!
//! Called by the feed only, after the swap of a cell has become quiet. Said as soon as it is true, and again each period
//! for cells that are not ready, since the control plane acts on the level, not on the edge.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dormouse_link::{EnvironmentId, InstanceId, Report, State};

use super::cell::{Cell, Instance};

/// Every instance that is offered or still has requests, by environment.
#[derive(Default)]
pub(crate) struct Drains {
    instances: HashMap<EnvironmentId, Vec<Arc<Instance>>>,
    /// Cells of which something is to be said.
    watched: HashMap<EnvironmentId, Watched>,
}

struct Watched {
    cell: Arc<Cell>,
    said: Said,
}

#[derive(PartialEq)]
enum Said {
    /// This version not at all.
    NotYet,
    /// In this period.
    Already,
}

impl Drains {
    /// The instance of that id: the one that is counted already, if any.
    pub(crate) fn instance(&mut self, environment: &EnvironmentId, id: &InstanceId) -> Arc<Instance> {
        let known = self.instances.entry(environment.clone()).or_default();
        if let Some(instance) = known.iter().find(|instance| instance.id == *id) {
            return Arc::clone(instance);
        }
        let instance = Arc::new(Instance::new(id.clone()));
        known.push(Arc::clone(&instance));
        instance
    }

    /// A cell was swapped.
    pub(crate) fn changed(&mut self, cell: &Arc<Cell>) {
        let offer = cell.offer();
        for instance in self.instances.get(&cell.id).into_iter().flatten() {
            let offered = offer.endpoints().iter().any(|endpoint| endpoint.instance == instance.id);
            instance.retired.store(!offered, Ordering::SeqCst);
        }
        self.watched.insert(cell.id.clone(), Watched { cell: Arc::clone(cell), said: Said::NotYet });
    }

    /// What was said may be said again.
    pub(crate) fn period(&mut self) {
        self.watched.values_mut().for_each(|watched| watched.said = Said::NotYet);
    }

    /// Says what is true now and was not said in this period; `say` tells whether it was heard.
    pub(crate) fn say(&mut self, mut say: impl FnMut(Report) -> bool) {
        let instances = &mut self.instances;
        self.watched.retain(|id, watched| {
            if watched.said == Said::Already {
                return true;
            }
            let offer = watched.cell.offer();
            let known = instances.entry(id.clone()).or_default();
            let busy = |instance: &Arc<Instance>| instance.in_flight.load(Ordering::SeqCst) > 0;
            let retired = |instance: &Arc<Instance>| instance.retired.load(Ordering::SeqCst);
            let listed = |instance: &Arc<Instance>| offer.instances.iter().any(|other| other.id == instance.id);
            known.retain(|instance| listed(instance) || busy(instance));
            let drained = !known.iter().any(|instance| retired(instance) && busy(instance));
            if known.is_empty() {
                instances.remove(id);
            }
            if !drained || !say(Report::Drained { environment: id.clone(), generation: offer.version }) {
                return true;
            }
            watched.said = Said::Already;
            let settled = |state: &State| *state == State::Ready;
            offer.environment.as_ref().is_some_and(|environment| !settled(&environment.state))
        });
    }
}
