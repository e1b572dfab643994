//! The loop that makes the world as the store says it should be: one a environment.
//!
//! It takes no input, only pokes: observe (store, engine, signals) → plan (pure) → act (without choices) → publish, and again
//! until there is nothing to do. A poke says that there may be something to see, never what; the period finds what no poke
//! told. One pass at a time for each environment, so that no two steps of one environment ever race; environments do not wait
//! for each other. What takes long (a build, a probe) runs beside the loop and pokes it when it ends.
//!
//! Rejected: reacting to events directly (a lost event would be a lost step), one queue of jobs (a job that was written before a
//! crash need not be right after it), a lock an environment (the loop is the lock).

use std::sync::Arc;
use std::time::Duration;

use dormouse_link::EnvironmentId;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::act::{ActError, act};
use crate::attempt::Attempts;
use crate::away::{Outage, pardon};
use crate::backoff::{Backoff, chance};
use crate::clock;
use crate::engine::{EngineError, Status};
use crate::error::chain;
use crate::model::{Deployment, Environment, EnvironmentState, Millis, now};
use crate::plan::{Sighting, Situation, plan};
use crate::world::World;

/// A pass happens at least so often; what no poke told is found then.
const PERIOD: Duration = Duration::from_secs(5);

/// Passes in a row without a pause; more would mean that a step does not do what its plan expects.
const PASSES_IN_A_ROW: u32 = 20;

/// The pauses after passes that failed.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(250), max: Duration::from_secs(5) };

/// The end of an environment's first pass.
type Looked = oneshot::Receiver<()>;

/// Starts the loop of every environment that has none; returns the ends of their first passes.
pub(crate) async fn watch_all(world: &Arc<World>) -> Vec<Looked> {
    match world.store.environments().await {
        Ok(environments) => environments.into_iter().filter_map(|found| watch(world, found.id)).collect(),
        Err(error) => {
            tracing::error!(error = chain(&error), "environments could not be read");
            Vec::new()
        }
    }
}

/// Starts the loop of an environment, unless it has one.
fn watch(world: &Arc<World>, id: EnvironmentId) -> Option<Looked> {
    let bell = world.pokes.listen(&id)?;
    let world = world.clone();
    let tasks = world.tasks.clone();
    let (looked, first) = oneshot::channel();
    tasks.spawn(format!("reconciler of environment {id}"), async move {
        let leaves = Leaves(&world, &id);
        run(&world, &id, &bell, looked).await;
        drop(leaves);
    });
    Some(first)
}

/// Takes the bell away however the loop ends, a panic included: the sweeper then starts another one.
struct Leaves<'w>(&'w World, &'w EnvironmentId);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.pokes.leave(self.1);
    }
}

async fn run(world: &Arc<World>, id: &EnvironmentId, bell: &Notify, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    let stop = world.tasks.token();
    let mut attempts = Attempts::default();
    let mut failures = 0;
    let mut passes = 0;
    let mut outage: Option<Outage> = None;
    loop {
        let began = Instant::now();
        let passed = pass(world, id, &mut attempts).await;
        if let Some(looked) = looked.take() {
            // Nobody waits for it after the start.
            let _ = looked.send(());
        }
        if passed.is_ok() && outage.take().is_some() {
            tracing::info!(environment.id = %id, "the engine is back");
            pardon(world, id).await;
        }
        let (pause, bell) = match passed {
            Ok(Passed::Gone) => return,
            Ok(Passed::Acted) if passes < PASSES_IN_A_ROW => {
                passes += 1;
                failures = 0;
                (Duration::ZERO, Some(bell))
            }
            Ok(Passed::Acted) => {
                tracing::warn!(environment.id = %id, "an environment does not come to rest");
                passes = 0;
                (PERIOD, Some(bell))
            }
            Ok(Passed::Rests(again)) => {
                passes = 0;
                failures = 0;
                (again.map_or(PERIOD, |again| again.min(PERIOD)), Some(bell))
            }
            Err(ActError::Engine(error @ EngineError::Unavailable { .. })) => {
                let so_far = outage.take();
                let lasting = outage.insert(Outage::went_on(so_far, began, &error));
                if lasting.is_news() {
                    tracing::warn!(environment.id = %id, error = chain(&error), "the engine is away; looking for it");
                }
                lasting.wait(world, id, bell).await;
                (Duration::ZERO, None)
            }
            Err(error) => {
                failures += 1;
                let pause = PAUSES.delay(failures, chance());
                tracing::warn!(environment.id = %id, error = chain(&error),
                    pause_ms = pause.as_millis(), "a pass failed and is tried again");
                // Not the bell: what the failed pass itself did rings it, and would make the pause void.
                (pause, None)
            }
        };
        if stop.is_cancelled() {
            return;
        }
        if !pause.is_zero() {
            // Cancel safe: a bell rung meanwhile is kept by `Notify`.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = rung(bell) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

async fn rung(bell: Option<&Notify>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

/// How a pass ended.
enum Passed {
    /// Something was done: look again.
    Acted,
    /// There is nothing to do, until a poke or this time has passed.
    Rests(Option<Duration>),
    /// The environment is no more.
    Gone,
}

async fn pass(world: &Arc<World>, id: &EnvironmentId, attempts: &mut Attempts) -> Result<Passed, ActError> {
    let Some(situation) = observe(world, id, attempts).await? else { return Ok(Passed::Gone) };
    let plan = plan(&situation);
    let rests = plan.steps.is_empty();
    let stop = world.tasks.token();
    for planned in plan.steps {
        if stop.is_cancelled() {
            break;
        }
        tracing::debug!(environment.id = %id, step = ?planned.step, why = planned.why, "step");
        act(world, &situation, attempts, planned.step).await?;
    }
    if !rests {
        return Ok(Passed::Acted);
    }
    let again = plan.again_at.map(|at| Duration::from_millis(u64::try_from(at - now()).unwrap_or(0).max(1)));
    Ok(Passed::Rests(again))
}

async fn observe(world: &World, id: &EnvironmentId, attempts: &Attempts) -> Result<Option<Situation>, ActError> {
    let Some(environment) = world.store.environment(id).await? else { return Ok(None) };
    let mut instances = world.store.instances(id).await?;
    let environment = clock::catch_up(world, environment, &mut instances, now()).await?;
    let unended = world.store.unended_deployments(id).await?;
    let build = match unended.first().and_then(|deployment| deployment.build_id.as_ref()) {
        Some(build) => world.store.build(build).await?,
        None => None,
    };
    // First what the probes found, then what the engine has: an instance that answered and ended is seen to have ended.
    let probes: Vec<_> = instances.iter().map(|instance| attempts.probe(&instance.id)).collect();
    // Nothing of it can be on the engine: then the engine is not asked, so that a push is taken while it is away.
    let observed = if instances.is_empty() { Arc::default() } else { world.inventory.look().await? };
    let now: Millis = now();
    let mut sightings = Vec::with_capacity(instances.len());
    for (instance, probe) in instances.into_iter().zip(probes) {
        let mut status = observed.iter().find(|seen| seen.id == instance.id).map(|seen| seen.status.clone());
        let explained = explained(&environment, &unended, &instance.deployment_id);
        if explained
            && status.as_ref().is_some_and(Status::was_killed)
            && world.engine.ran_out_of_memory(&instance.id).await?
        {
            status = Some(Status::OutOfMemory);
        }
        sightings.push(Sighting {
            status,
            launched: attempts.launched(&instance.id),
            probe,
            drained: instance.retired.is_some_and(|(generation, _)| world.signals.drained(id, generation)),
            instance,
        });
    }
    let traffic = world.signals.traffic(id, environment.generation, now);
    Ok(Some(Situation { now, environment, unended, build, instances: sightings, traffic }))
}

/// Whether somebody is told why an instance of this deployment ended. It takes a question of its own to the engine, which
/// is not asked of those that sleep.
fn explained(environment: &Environment, unended: &[Deployment], deployment: &str) -> bool {
    let serves = matches!(environment.state, EnvironmentState::Ready | EnvironmentState::Waking);
    let serving = environment.serving.as_deref().filter(|_| serves);
    let newest = unended.first().map(|newest| newest.id.as_str());
    [serving, newest].contains(&Some(deployment))
}
