//! What is done for an environment while the engine is away or hangs: nobody waits long for what cannot happen.
//!
//! Only the store and the signals are asked. What serves goes on serving; whoever waits for a wake is told that it failed,
//! with the reason, unless a last look finds the engine back. The environment's reconciler waits here between its passes, until
//! it is time to look again or another one found the engine; what is held against the environment by then is dropped.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::EnvironmentId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::act::{ActError, move_to};
use crate::backoff::{Backoff, chance};
use crate::engine::EngineError;
use crate::error::chain;
use crate::model::{Asked, Environment, EnvironmentState, now};
use crate::plan::{Move, Traffic};
use crate::store::StoreError;
use crate::world::World;

/// An engine that is back within this time was only started again: visitors wait so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pauses between looks for an engine that is away: short, because a look costs little and somebody may wait.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(250), max: Duration::from_secs(1) };

/// The last look before somebody is told that the engine is away. With the time in which an engine is found to hang, it is
/// within what a wake may take to fail.
const LAST_LOOK_WITHIN: Duration = Duration::from_secs(2);

/// An engine that is away, as one environment sees it.
#[derive(Debug)]
pub(crate) struct Outage {
    /// The beginning of the first pass that failed.
    since: Instant,
    looks: u32,
    reason: String,
    /// A last look found the engine, but the pass after it did not: the next one who waits is told so.
    found_in_vain: bool,
}

impl Outage {
    /// The engine was not there in a pass that began at `began`.
    pub(crate) fn went_on(before: Option<Self>, began: Instant, error: &EngineError) -> Self {
        let reason = format!("the engine is away: {}", chain(error));
        match before {
            Some(before) => Self { looks: before.looks.saturating_add(1), reason, ..before },
            None => Self { since: began, looks: 1, reason, found_in_vain: false },
        }
    }

    /// It is the first word of it.
    pub(crate) fn is_news(&self) -> bool {
        self.looks == 1
    }

    /// Waits until it is time to look again; whoever waits for the environment meanwhile is not left to wait.
    pub(crate) async fn wait(&mut self, world: &Arc<World>, id: &EnvironmentId, bell: &Notify) {
        let mut found = pin!(world.inventory.found_again());
        // Listened to before anything else is done, so that nothing is missed meanwhile.
        found.as_mut().enable();
        if self.relieve(world, id).await.is_break() {
            return;
        }
        let pause = PAUSES.delay(self.looks, chance());
        let mut again = pin!(async { tokio::join!(mend(world), tokio::time::sleep(pause)) });
        let stop = world.tasks.token();
        loop {
            // Cancel safe: mending can be begun again at any point, and a bell that was heard is a reason to look, which
            // is what comes next anyway.
            tokio::select! {
                _ = &mut again => return,
                () = &mut found => return,
                () = stop.cancelled() => return,
                () = bell.notified() => if self.relieve(world, id).await.is_break() { return },
            }
        }
    }

    /// Helps whoever waits; breaks where it found the engine, which is the best help.
    async fn relieve(&mut self, world: &World, id: &EnvironmentId) -> ControlFlow<()> {
        self.try_to_relieve(world, id).await.unwrap_or_else(|error| {
            tracing::warn!(environment.id = %id, error = chain(&error), "who waits could not be told");
            ControlFlow::Continue(())
        })
    }

    async fn try_to_relieve(&mut self, world: &World, id: &EnvironmentId) -> Result<ControlFlow<()>, ActError> {
        let patient = self.since.elapsed() < PATIENCE;
        let Some(environment) = world.store.environment(id).await? else { return Ok(ControlFlow::Continue(())) };
        let traffic = world.signals.traffic(id, environment.generation, now());
        match relief(&environment, traffic, &self.reason) {
            // What was not told to stop serves on: nobody has to wait for that.
            Some(to) if patient && to != Move::Reopen => {}
            // Whoever came since the engine was looked for must not be told what is no longer true.
            Some(Move::Lack(_)) if !self.found_in_vain && answers(world).await => {
                self.found_in_vain = true;
                return Ok(ControlFlow::Break(()));
            }
            Some(to) => move_to(world, &environment, to).await?,
            None => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Whether the engine is there now.
async fn answers(world: &World) -> bool {
    matches!(tokio::time::timeout(LAST_LOOK_WITHIN, world.inventory.look()).await, Ok(Ok(_)))
}

/// An engine that goes takes along what runs, and fails what is started: that is nobody's own failure. After its return all
/// is tried at once, as if it were for the first time.
pub(crate) async fn pardon(world: &World, id: &EnvironmentId) {
    let now = now();
    let pardoned = world.store.change_environment(id, now, |environment| {
        environment.failures = 0;
        environment.retry_at = environment.retry_at.min(now);
    });
    match pardoned.await {
        // The last pass may have planned a longer rest.
        Ok(_) => world.pokes.poke(id),
        // It was deleted meanwhile.
        Err(StoreError::Gone(_)) => {}
        Err(error) => tracing::warn!(environment.id = %id, error = chain(&error), "its back-off could not be ended"),
    }
}

/// An engine that was away may lack the network or the sandbox's image: they are made again. One mends for all.
async fn mend(world: &World) {
    let Ok(_turn) = world.mending.try_lock() else { return };
    if let Err(error) = world.prepare().await {
        tracing::debug!(error = chain(&error), "the engine is not ready yet");
    }
}

/// How those who wait for an environment are helped without the engine.
fn relief(environment: &Environment, traffic: Traffic, reason: &str) -> Option<Move> {
    let awaited = traffic.wanted || environment.asked == Some(Asked::Wake);
    match environment.state {
        EnvironmentState::Asleep | EnvironmentState::Waking if awaited => Some(Move::Lack(reason.to_owned())),
        // It may have been told to stop already: then it must not be offered before that is known.
        EnvironmentState::Closing if awaited && traffic.drained => Some(Move::Lack(reason.to_owned())),
        EnvironmentState::Closing if awaited => Some(Move::Reopen),
        _ => None,
    }
}
