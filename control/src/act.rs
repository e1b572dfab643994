//! Does one step of a plan. Idempotent, without choices: what to do was decided from what was seen.

use std::sync::Arc;
use std::time::Duration;

use dormouse_link::InstanceId;

use crate::attempt::Attempts;
use crate::backoff::{Backoff, chance};
use crate::crash::{self, Point};
use crate::engine::{EngineError, Instance as Start, LogLine, Logs, Started};
use crate::health::{self, ProbeLimits};
use crate::journal::Log;
use crate::model::{
    Asked, BuildState, Deployment, DeploymentState, Environment, EnvironmentState, Instance, Millis, now,
};
use crate::plan::{Move, Probe, Sighting, Situation, Step};
use crate::store::{Place, StoreError};
use crate::variables::{port, variables};
use crate::world::World;

/// How long an application may take to end after SIGTERM, before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// A new version must still listen so long after it first answered, before requests go to it.
const SETTLE: Duration = Duration::from_millis(100);

/// How many lines of a failed container or build are kept with its deployment.
const LAST_LINES: u32 = 50;

/// How long the last lines of a failed container are waited for.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(3);

/// How long an environment that cannot be started is left alone.
pub(crate) const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };

/// Why a step was not done; the pass ends and is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Does one step of the plan for `situation`.
pub(crate) async fn act(
    world: &Arc<World>,
    situation: &Situation,
    attempts: &mut Attempts,
    step: Step,
) -> Result<(), ActError> {
    let name = crash::name(&step);
    world.crash.at(Point::Before(name)).await;
    let done = take(world, situation, attempts, step).await;
    world.crash.at(Point::After(name)).await;
    done
}

async fn take(world: &Arc<World>, situation: &Situation, attempts: &mut Attempts, step: Step) -> Result<(), ActError> {
    let environment = &situation.environment;
    match step {
        Step::Launch(id) => launch(world, situation, attempts, &id).await,
        Step::Probe(id) => {
            if let Some(instance) = instance(situation, &id) {
                begin_probe(world, environment, instance, attempts);
            }
            Ok(())
        }
        Step::Stop(id) => {
            attempts.forget(&id);
            Ok(world.engine.stop(&id, STOP_GRACE).await?)
        }
        Step::Remove(id) => {
            attempts.forget(&id);
            world.engine.stop(&id, STOP_GRACE).await?;
            world.engine.remove(&id).await?;
            if let Some(instance) = instance(situation, &id) {
                world.store.remove_instance(instance, now()).await?;
            }
            Ok(())
        }
        Step::Move(to) => {
            let failed = matches!(to, Move::Fail(_));
            move_to(world, environment, to).await?;
            match environment.serving.as_ref().filter(|_| failed) {
                Some(serving) => keep_last_lines(world, situation, serving).await,
                None => Ok(()),
            }
        }
        Step::Forgive => {
            world.store.change_environment(&environment.id, now(), |environment| environment.failures = 0).await?;
            Ok(())
        }
        Step::BeginBuilding(id) => {
            let Some(target) = deployment(situation, &id) else { return Ok(()) };
            world.store.begin_building(target, &environment.app_id, now()).await?;
            world.build_poke.notify_one();
            Ok(())
        }
        Step::BeginStarting(id) => begin_starting(world, situation, &id).await,
        Step::Swap(id) => {
            let Some(target) = deployment(situation, &id) else { return Ok(()) };
            world.store.swap(target, now()).await?;
            world.publish_poke.notify_one();
            world.journal.say(Log::Deployment(&id), &format!("Requests go to deployment {} now.", target.number));
            Ok(())
        }
        Step::Fail { deployment, instance, reason } => fail(world, &deployment, instance.as_ref(), &reason).await,
        Step::Supersede(id) => {
            let reason = "a newer deployment was asked for";
            Ok(world.store.end_deployment(&id, DeploymentState::Superseded, reason, &[], now()).await?)
        }
        Step::Forget => {
            for deployment in world.store.deployment_ids(&environment.id).await? {
                world.journal.remove(Log::Deployment(&deployment));
            }
            world.store.forget_environment(&environment.id).await?;
            world.signals.forget(&environment.id);
            world.sweep_poke.notify_one();
            Ok(())
        }
    }
}

fn instance<'s>(situation: &'s Situation, id: &InstanceId) -> Option<&'s Instance> {
    situation.instances.iter().map(|sighting| &sighting.instance).find(|instance| instance.id == *id)
}

fn deployment<'s>(situation: &'s Situation, id: &str) -> Option<&'s Deployment> {
    situation.unended.iter().find(|deployment| deployment.id == id)
}

/// Starts an instance's container. What is the instance's own fault becomes the result of its probe; what is the engine's is
/// an error, to be tried again.
async fn launch(
    world: &Arc<World>,
    situation: &Situation,
    attempts: &mut Attempts,
    id: &InstanceId,
) -> Result<(), ActError> {
    let environment = &situation.environment;
    let Some(instance) = instance(situation, id) else { return Ok(()) };
    let Some(deployment) = world.store.deployment(&instance.deployment_id).await? else { return Ok(()) };
    let log = Log::Deployment(&deployment.id);
    if !deployment.state.ended() && !attempts.launched(id) {
        let beside = if environment.serving.is_some() { " beside the old one" } else { "" };
        world.journal.say(log, &format!("Starting a container{beside}, at {}.", instance.endpoint()));
    }
    let start = Start {
        id: instance.id.clone(),
        environment: environment.id.clone(),
        name: format!("{}-{}-{}", environment.app, environment.name, deployment.number),
        image: world.image_tag(&environment.app, &deployment.commit),
        address: instance.address,
        variables: deployment.variables.clone(),
        limits: deployment.limits,
    };
    attempts.launch(id);
    match start_once_more(world, start).await {
        Ok(_) => Ok(()),
        Err(EngineError::NoImage(tag)) => {
            // Built anew from its commit; whoever waits is told so now, and served when it is there.
            if let Some(build) = &deployment.build_id {
                world.store.lose_build(build).await?;
                world.build_poke.notify_one();
            }
            attempts.forget(id);
            if deployment.state.ended() {
                attempts.launch(id);
                let reason = format!("the engine has lost image {tag}; it is built again from its commit");
                if let Some(outcome) = attempts.begin_probe(id) {
                    outcome.set(Probe::Unstartable(reason));
                }
                world.pokes.poke(&environment.id);
            }
            Ok(())
        }
        // Its network is another one by now, which the engine says only by refusing.
        Err(EngineError::Refused { .. }) if !world.addresses().contains(instance.address) => {
            let place = Place { addresses: &world.addresses(), acked: world.signals.acked() };
            let address = world.store.move_instance(instance, place, now()).await?;
            tracing::info!(instance.id = %id, %address, "an instance moved to its engine's new network");
            // Begun anew with the next look, which sees the new address.
            attempts.forget(id);
            world.publish_poke.notify_one();
            Ok(())
        }
        Err(EngineError::Start(words) | EngineError::Refused { says: words, .. }) => {
            if let Some(outcome) = attempts.begin_probe(id) {
                outcome.set(Probe::Unstartable(format!("the container could not be started: {words}")));
            }
            world.pokes.poke(&environment.id);
            Ok(())
        }
        Err(error) => {
            attempts.forget(id);
            Err(error.into())
        }
    }
}

/// Starts an instance, a few at a time. A refusal may come from a network or a sandbox's image that was cleared by hand:
/// they are made again, and it is tried once more, unless it has no place there any more.
async fn start_once_more(world: &World, start: Start) -> Result<Started, EngineError> {
    let _turn = world.starts.acquire().await;
    match world.engine.start(start.clone()).await {
        Err(refused @ EngineError::Refused { .. }) => {
            world.prepare().await?;
            if !world.addresses().contains(start.address) {
                return Err(refused);
            }
            world.engine.start(start).await
        }
        other => other,
    }
}

fn begin_probe(world: &Arc<World>, environment: &Environment, instance: &Instance, attempts: &mut Attempts) {
    let Some(outcome) = attempts.begin_probe(&instance.id) else { return };
    let Some(host) = environment.platform_host().cloned() else { return };
    // A wake has nobody to fall back to, and somebody who waits.
    let wakes = environment.serving.as_ref() == Some(&instance.deployment_id);
    let settle = if wakes { Duration::ZERO } else { SETTLE };
    let limits = ProbeLimits { window: environment.ready_within, settle, ..ProbeLimits::default() };
    let (world, environment, target) = (world.clone(), environment.id.clone(), instance.endpoint());
    let deployment = instance.deployment_id.clone();
    let tasks = world.tasks.clone();
    tasks.spawn(format!("probe of instance {}", instance.id), async move {
        let stop = world.tasks.token();
        // Cancel safe: a probe has no effect but its result.
        let result = tokio::select! {
            result = health::probe(target, &host, limits) => result,
            () = outcome.token.cancelled() => return,
            () = stop.cancelled() => return,
        };
        match result {
            Ok(ready) => {
                let unended = world.store.deployment(&deployment).await;
                if matches!(unended, Ok(Some(deployment)) if !deployment.state.ended()) {
                    let tries = if ready.tries == 1 { "1 try".to_owned() } else { format!("{} tries", ready.tries) };
                    let line = format!("It answers, after {} ms ({tries}).", ready.took.as_millis());
                    world.journal.say(Log::Deployment(&deployment), &line);
                }
                outcome.set(Probe::Passed);
            }
            Err(error) => outcome.set(Probe::Failed(error.to_string())),
        }
        world.pokes.poke(&environment);
    });
}

async fn begin_starting(world: &World, situation: &Situation, id: &str) -> Result<(), ActError> {
    let environment = &situation.environment;
    let (Some(target), Some(build)) = (deployment(situation, id), &situation.build) else { return Ok(()) };
    let port = match port(environment, build) {
        Ok(port) => port,
        Err(error) => return fail(world, id, None, &error.to_string()).await,
    };
    let variables = variables(environment, target, port);
    let place = Place { addresses: &world.addresses(), acked: world.signals.acked() };
    match world.store.begin_starting(target, port, &variables, place, now()).await {
        Err(error @ StoreError::NoAddress(_)) => fail(world, id, None, &error.to_string()).await,
        done => Ok(done?),
    }
}

/// Ends a deployment that failed, with what its container wrote last. The instance is removed by a later step, because its
/// deployment has ended: so a crash between the two leaves nothing behind.
async fn fail(world: &World, deployment: &str, instance: Option<&InstanceId>, reason: &str) -> Result<(), ActError> {
    let lines = match instance {
        Some(instance) => last_lines(world, instance).await,
        None => last_lines_of_build(world, deployment).await?,
    };
    world.store.end_deployment(deployment, DeploymentState::Failed, reason, &lines, now()).await?;
    Ok(())
}

/// Of a version that served until it failed: what its container wrote last goes with its deployment, for `status`.
async fn keep_last_lines(world: &World, situation: &Situation, serving: &str) -> Result<(), ActError> {
    let there = |sighting: &&Sighting| sighting.instance.deployment_id == serving && sighting.status.is_some();
    let Some(sighting) = situation.instances.iter().find(there) else { return Ok(()) };
    let lines = last_lines(world, &sighting.instance.id).await;
    Ok(world.store.keep_last_lines(serving, &lines).await?)
}

/// What the build of a deployment said last, where it is the build that failed.
async fn last_lines_of_build(world: &World, deployment: &str) -> Result<Vec<String>, ActError> {
    let build = world.store.deployment(deployment).await?.and_then(|deployment| deployment.build_id);
    let Some(build) = build else { return Ok(Vec::new()) };
    let failed = world.store.build(&build).await?.is_some_and(|build| build.state == BuildState::Failed);
    Ok(if failed { world.journal.last(Log::Build(&build), LAST_LINES as usize) } else { Vec::new() })
}

async fn last_lines(world: &World, instance: &InstanceId) -> Vec<String> {
    let read = async {
        let mut lines = Vec::new();
        match world.engine.logs(instance, Logs { tail: LAST_LINES, follow: false }).await {
            Ok(mut log) => {
                while let Some(LogLine { text, .. }) = log.recv().await {
                    lines.push(text);
                }
            }
            Err(error) => tracing::warn!(instance.id = %instance, %error, "the last lines could not be read"),
        }
        lines
    };
    let mut lines = tokio::time::timeout(LAST_LINES_WITHIN, read).await.unwrap_or_default();
    let excess = lines.len().saturating_sub(LAST_LINES as usize);
    lines.drain(..excess);
    lines
}

/// Moves an environment to another state, and tells edges.
pub(crate) async fn move_to(world: &World, environment: &Environment, to: Move) -> Result<(), ActError> {
    let now = now();
    let last_active_at = world.signals.last_active_at(&environment.id);
    let from = environment.state;
    let moved = world
        .store
        .change_environment(&environment.id, now, |environment| {
            // Somebody may have deleted it since it was looked at.
            if environment.state == from {
                apply(environment, &to, now);
                environment.last_active_at = environment.last_active_at.max(last_active_at);
            }
        })
        .await?;
    if matches!(to, Move::Serve | Move::Reopen | Move::Fail(_) | Move::Lack(_)) {
        world.signals.answer(&environment.id);
    }
    world.publish_poke.notify_one();
    tracing::info!(environment.id = %environment.id, app = %environment.app, environment = %environment.name,
        state = crate::store::environment_state_text(moved.state), reason = moved.reason, "environment moved");
    Ok(())
}

/// Writes a move into the environment. Pure.
fn apply(environment: &mut Environment, to: &Move, now: Millis) {
    environment.state_since = now;
    match to {
        Move::Close => environment.state = EnvironmentState::Closing,
        Move::Reopen => {
            environment.state = EnvironmentState::Ready;
            environment.asked = None;
        }
        Move::Sleep => {
            environment.state = EnvironmentState::Asleep;
            environment.asked = environment.asked.filter(|asked| *asked != Asked::Sleep);
        }
        Move::Wake => environment.state = EnvironmentState::Waking,
        Move::Serve => {
            environment.state = EnvironmentState::Ready;
            environment.asked = environment.asked.filter(|asked| *asked != Asked::Wake);
            environment.epoch.0 += 1;
            environment.reason = None;
        }
        Move::Fail(reason) | Move::Lack(reason) => {
            environment.state = EnvironmentState::Failed;
            environment.asked = environment.asked.filter(|asked| *asked != Asked::Wake);
            let delay = if matches!(to, Move::Fail(_)) {
                environment.failures = environment.failures.saturating_add(1);
                BACKOFF.delay(environment.failures, chance())
            } else {
                BACKOFF.first
            };
            environment.retry_at = now + Millis::try_from(delay.as_millis()).unwrap_or(Millis::MAX);
            environment.reason = Some(reason.clone());
        }
    }
}
