//! When an environment's old instances are free: `Drained`.
//!
//! Called by the feed only, after the swap of a cell has become quiet. Said as soon as it is true, and again each period
//! for cells that are not ready, since the control plane acts on the level, not on the edge.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dormouse_link::{EnvironmentId, InstanceId, Report, State};

use super::cell::{Cell, Instance, Offer};

/// Those that are to be free.
#[derive(Default)]
pub(crate) struct Drains {
    /// Instances that their environment's cell has no longer, and that may still have requests.
    gone: HashMap<EnvironmentId, Vec<Arc<Instance>>>,
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
    pub(crate) fn instance(&self, cell: &Cell, id: &InstanceId) -> Arc<Instance> {
        let offer = cell.offer();
        let mut known = offer.instances.iter().chain(self.gone.get(&cell.id).into_iter().flatten());
        let found = known.find(|instance| instance.id == *id);
        found.map_or_else(|| Arc::new(Instance::new(id.clone())), Arc::clone)
    }

    /// A cell was swapped, and offered this before.
    pub(crate) fn changed(&mut self, cell: &Arc<Cell>, before: &Offer) {
        let offer = cell.offer();
        let is_gone = |instance: &&Arc<Instance>| !has(&offer.instances, instance);
        if before.instances.iter().any(|instance| is_gone(&instance)) {
            let gone = self.gone.entry(cell.id.clone()).or_default();
            gone.extend(before.instances.iter().filter(is_gone).cloned());
        }
        if let Some(gone) = self.gone.get_mut(&cell.id) {
            gone.retain(|instance| is_gone(&instance));
        }
        for instance in offer.instances.iter().chain(self.gone.get(&cell.id).into_iter().flatten()) {
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
        let all_gone = &mut self.gone;
        self.watched.retain(|id, watched| {
            if watched.said == Said::Already {
                return true;
            }
            let offer = watched.cell.offer();
            let busy = |instance: &Arc<Instance>| instance.in_flight.load(Ordering::SeqCst) > 0;
            let retired = |instance: &Arc<Instance>| instance.retired.load(Ordering::SeqCst);
            if let Some(gone) = all_gone.get_mut(id) {
                gone.retain(busy);
                if gone.is_empty() {
                    all_gone.remove(id);
                }
            }
            let known = offer.instances.iter().chain(all_gone.get(id).into_iter().flatten());
            let drained = !known.into_iter().any(|instance| retired(instance) && busy(instance));
            if !drained || !say(Report::Drained { environment: id.clone(), generation: offer.version }) {
                return true;
            }
            watched.said = Said::Already;
            let settled = |state: &State| *state == State::Ready;
            offer.environment.as_ref().is_some_and(|environment| !settled(&environment.state))
        });
    }
}

fn has(instances: &[Arc<Instance>], instance: &Arc<Instance>) -> bool {
    instances.iter().any(|other| Arc::ptr_eq(other, instance))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use dormouse_link::{Endpoint, Environment, Epoch, Generation, Policy};

    use super::*;
    use crate::live::sticky::{StickyKey, StickySecret};

    /// Swaps a cell as the feed does.
    fn swap(drains: &mut Drains, cell: &Arc<Cell>, version: u64, names: &[&str]) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let ids: Vec<_> = names.iter().map(|name| InstanceId::new(*name)).collect();
        let environment = Environment {
            id: cell.id.clone(),
            app: "a".parse().expect("a label"),
            name: "test".parse().expect("a label"),
            deployment: version,
            state: State::Ready,
            epoch: Epoch(version),
            endpoints: ids.iter().map(|id| Endpoint::new(id.clone(), address)).collect(),
            policy: Policy::default(),
        };
        let instances = ids.iter().map(|id| drains.instance(cell, id)).collect();
        let key = StickyKey::new(&StickySecret::new([0; 32]));
        let before = cell.offer();
        cell.swap(Offer::new(Generation(version), environment, instances, &key));
        drains.changed(cell, &before);
    }

    fn drained(drains: &mut Drains) -> usize {
        let mut said = 0;
        drains.say(|_| {
            said += 1;
            true
        });
        said
    }

    #[test]
    fn it_is_drained_when_the_last_request_of_an_instance_that_left_has_ended() {
        let (mut drains, cell) = (Drains::default(), Arc::new(Cell::new(EnvironmentId::new("e"))));
        swap(&mut drains, &cell, 1, &["old"]);
        assert_eq!(drained(&mut drains), 1, "nothing left");
        let old = Arc::clone(&cell.offer().instances[0]);
        old.in_flight.store(1, Ordering::SeqCst);
        swap(&mut drains, &cell, 2, &["new"]);
        swap(&mut drains, &cell, 3, &["newer"]);
        assert_eq!((drained(&mut drains), old.retired.load(Ordering::SeqCst)), (0, true));
        old.in_flight.store(0, Ordering::SeqCst);
        assert_eq!(drained(&mut drains), 1);
        assert!(drains.gone.is_empty() && drains.watched.is_empty(), "and nothing is kept of it");
    }

    #[test]
    fn an_instance_that_comes_back_is_the_one_that_is_counted() {
        let (mut drains, cell) = (Drains::default(), Arc::new(Cell::new(EnvironmentId::new("e"))));
        swap(&mut drains, &cell, 1, &["old"]);
        let old = Arc::clone(&cell.offer().instances[0]);
        old.in_flight.store(1, Ordering::SeqCst);
        swap(&mut drains, &cell, 2, &["new"]);
        swap(&mut drains, &cell, 3, &["new", "old"]);
        assert!(Arc::ptr_eq(&old, &cell.offer().instances[1]));
        assert_eq!((drained(&mut drains), old.retired.load(Ordering::SeqCst)), (1, false));
    }
}
