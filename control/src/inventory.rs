//! What the engine has, asked once for all who want to know at the same time.
//!
//! An answer is as new as its asker: it is from a listing that began after it was asked for. However many environments are
//! looked at at once (after an event, at the start), two listings serve them all.

use std::sync::Arc;

use tokio::sync::futures::Notified;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use crate::engine::{Engine, EngineError, Observed};

/// The engine's instances.
pub(crate) struct Inventory {
    engine: Arc<dyn Engine>,
    last: Mutex<Option<Listing>>,
    /// Rung when a listing shows something after one that did not.
    found_again: Notify,
}

/// How the last listing ended.
enum Listing {
    /// When it began, and what it showed.
    Found(Instant, Arc<[Observed]>),
    /// When it ended, because the engine was not there: where, and why.
    Away(Instant, String, String),
}

impl Inventory {
    /// Nothing was listed yet.
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, last: Mutex::default(), found_again: Notify::new() }
    }

    /// Ends when somebody finds the engine that was away.
    pub(crate) fn found_again(&self) -> Notified<'_> {
        self.found_again.notified()
    }

    /// All instances of this installation, from a listing that began after this call.
    pub(crate) async fn look(&self) -> Result<Arc<[Observed]>, EngineError> {
        let asked = Instant::now();
        // Whoever lists holds it; the others wait for the one who lists after them, and most find it done.
        let mut last = self.last.lock().await;
        match &*last {
            Some(Listing::Found(began, found)) if *began >= asked => return Ok(found.clone()),
            // An engine that hung until now does so for all who waited: else each would wait in turn.
            Some(Listing::Away(ended, address, why)) if *ended >= asked => {
                return Err(EngineError::Unavailable { address: address.clone(), source: why.clone().into() });
            }
            _ => {}
        }
        let began = Instant::now();
        match self.engine.instances().await {
            Ok(found) => {
                let found: Arc<[Observed]> = found.into();
                if matches!(*last, Some(Listing::Away(..))) {
                    self.found_again.notify_waiters();
                }
                *last = Some(Listing::Found(began, found.clone()));
                Ok(found)
            }
            Err(error) => {
                if let EngineError::Unavailable { address, source } = &error {
                    *last = Some(Listing::Away(Instant::now(), address.clone(), source.to_string()));
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{Fake, Fault, Operation};

    #[tokio::test]
    async fn a_crowd_is_served_by_two_listings_and_a_later_asker_by_a_new_one() {
        let fake = Fake::new();
        let inventory = Inventory::new(Arc::new(fake.clone()));
        let before = fake.calls(Operation::Instances);
        // All have asked before the first one may list.
        let turn = inventory.last.lock().await;
        let crowd = futures_util::future::join_all((0..100).map(|_| inventory.look()));
        let (found, ()) = tokio::join!(crowd, async { drop(turn) });
        assert!(found.iter().all(Result::is_ok));
        assert!(fake.calls(Operation::Instances) - before <= 2, "{}", fake.calls(Operation::Instances) - before);
        let before = fake.calls(Operation::Instances);
        inventory.look().await.expect("a listing");
        assert_eq!(fake.calls(Operation::Instances) - before, 1);
    }

    #[tokio::test]
    async fn a_crowd_does_not_wait_in_turn_for_an_engine_that_is_away() {
        let fake = Fake::new();
        let inventory = Inventory::new(Arc::new(fake.clone()));
        fake.set_available(crate::engine::fake::Availability::Down);
        let before = fake.calls(Operation::Instances);
        let turn = inventory.last.lock().await;
        let crowd = futures_util::future::join_all((0..100).map(|_| inventory.look()));
        let (found, ()) = tokio::join!(crowd, async { drop(turn) });
        assert!(found.iter().all(|found| matches!(found, Err(EngineError::Unavailable { .. }))));
        assert_eq!(fake.calls(Operation::Instances) - before, 1);
    }

    #[tokio::test]
    async fn a_failed_listing_is_not_the_answer_of_a_later_asker() {
        let fake = Fake::new();
        let inventory = Inventory::new(Arc::new(fake.clone()));
        fake.fail_next(Operation::Instances, Fault::Unavailable);
        assert!(inventory.look().await.is_err());
        assert!(inventory.look().await.is_ok());
    }
}
