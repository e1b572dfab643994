//! What is done for an environment while the engine is away or hangs: nobody waits long for what cannot happen.
//!
//! Only the store and the signals are asked. What serves goes on serving; whoever waits for a wake is told that it failed,
//! with the reason. The environment's reconciler waits here between its passes, and wakes it as soon as the engine is back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::EnvironmentId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::act::move_to;
use crate::backoff::{Backoff, chance};
use crate::engine::EngineError;
use crate::error::chain;
use crate::model::{Asked, Environment, EnvironmentState, now};
use crate::plan::{Move, Traffic};
use crate::world::World;

/// An engine that is back within this time was only started again: visitors wait so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pauses between looks for an engine that is away: short, because a look costs little and somebody may wait.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(250), max: Duration::from_secs(1) };

/// An engine that is away, as one environment sees it.
#[derive(Debug)]
pub(crate) struct Outage {
    /// The beginning of the first pass that failed.
    since: Instant,
    looks: u32,
    reason: String,
}

impl Outage {
    /// The engine was not there in a pass that began at `began`.
    pub(crate) fn went_on(before: Option<Self>, began: Instant, error: &EngineError) -> Self {
        let (since, looks) = before.map_or((began, 0), |before| (before.since, before.looks));
        Self { since, looks: looks.saturating_add(1), reason: format!("the engine is away: {}", chain(error)) }
    }

    /// It is the first word of it.
    pub(crate) fn is_news(&self) -> bool {
        self.looks == 1
    }

    /// Waits until it is time to look again; whoever waits for the environment meanwhile is not left to wait.
    pub(crate) async fn wait(&self, world: &Arc<World>, id: &EnvironmentId, bell: &Notify) {
        self.relieve(world, id).await;
        let mut again = pin!(async {
            mend(world).await;
            tokio::time::sleep(PAUSES.delay(self.looks, chance())).await;
        });
        let stop = world.tasks.token();
        loop {
            // Cancel safe: mending can be begun again at any point, and a bell that was heard is a reason to look, which
            // is what comes next anyway.
            tokio::select! {
                () = &mut again => return,
                () = stop.cancelled() => return,
                () = bell.notified() => self.relieve(world, id).await,
            }
        }
    }

    async fn relieve(&self, world: &World, id: &EnvironmentId) {
        let patient = self.since.elapsed() < PATIENCE;
        let relieved = async {
            let Some(environment) = world.store.environment(id).await? else { return Ok(()) };
            let traffic = world.signals.traffic(id, environment.generation, now());
            match relief(&environment, traffic, &self.reason) {
                // What was not told to stop serves on: nobody has to wait for that.
                Some(to) if patient && to != Move::Reopen => Ok(()),
                Some(to) => move_to(world, &environment, to).await,
                None => Ok(()),
            }
        };
        if let Err(error) = relieved.await {
            tracing::warn!(environment.id = %id, error = chain(&error), "who waits could not be told");
        }
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
