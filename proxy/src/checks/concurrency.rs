//! How many requests run at a time, of an environment and of each client; those that are held run, too.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dormouse_link::policy::Limits;

use crate::clients::{Client, Clients, Full};
use crate::count::enter;
use crate::decide::refuse::Reason;

/// Who runs. Clients that have nothing running are not remembered, so there are never more of them than requests.
#[derive(Debug, Default)]
pub(super) struct Running {
    all: AtomicU32,
    clients: Clients<u32>,
}

/// A request's place among those that run; freed with its drop.
#[derive(Debug)]
pub(super) struct Slot {
    running: Arc<Running>,
    /// Where it is counted.
    counted: (bool, Option<Client>),
}

impl Running {
    /// Takes a place.
    pub(super) fn enter(self: &Arc<Self>, limits: Option<&Limits>, client: Option<IpAddr>) -> Result<Slot, Reason> {
        let mut slot = Slot { running: Arc::clone(self), counted: (false, None) };
        if let Some(most) = limits.and_then(|limits| limits.concurrency_per_client) {
            let client = Client::of(client);
            self.clients.enter(client, most.get()).map_err(|Full| Reason::ClientCrowded)?;
            slot.counted.1 = Some(client);
        }
        if let Some(most) = limits.and_then(|limits| limits.concurrency) {
            enter(&self.all, most.get()).ok_or(Reason::Crowded)?;
            slot.counted.0 = true;
        }
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (all, client) = self.counted;
        if all {
            self.running.all.fetch_sub(1, Ordering::SeqCst);
        }
        if let Some(client) = client {
            self.running.clients.leave(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limits(all: u32, client: u32) -> Limits {
        Limits {
            concurrency: NonZeroU32::new(all),
            concurrency_per_client: NonZeroU32::new(client),
            ..Limits::default()
        }
    }

    #[test]
    fn a_place_is_free_again_with_its_drop_and_nobody_is_remembered() {
        let (running, limits) = (Arc::new(Running::default()), limits(3, 2));
        let enter = |client: &str| running.enter(Some(&limits), client.parse().ok());
        let mut places = vec![enter("192.0.2.1").expect("one"), enter("192.0.2.1").expect("two")];
        assert_eq!(enter("192.0.2.1").err(), Some(Reason::ClientCrowded));
        places.push(enter("192.0.2.2").expect("another's"));
        assert_eq!(enter("192.0.2.3").err(), Some(Reason::Crowded));
        assert_eq!(running.clients.len(), 2, "who was refused is not counted");
        drop(places);
        assert_eq!((running.all.load(Ordering::SeqCst), running.clients.len()), (0, 0));
        assert!(enter("192.0.2.1").is_ok());
    }

    #[test]
    fn a_place_that_was_taken_under_other_limits_is_freed_where_it_was_counted() {
        let running = Arc::new(Running::default());
        let uncounted = running.enter(None, None).expect("no limit");
        let counted = running.enter(Some(&limits(1, 1)), None).expect("one");
        drop(uncounted);
        assert_eq!(running.all.load(Ordering::SeqCst), 1);
        drop(counted);
        assert_eq!(running.all.load(Ordering::SeqCst), 0);
    }
}
