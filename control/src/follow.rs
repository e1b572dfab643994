//! Follows something that takes a while, line by line, for whoever asked for it: a push, a command.
//!
//! What is followed is read from the store and the journal, never from the work itself: a follower that goes away stops
//! nothing, and one that comes late misses nothing.

use std::sync::Arc;
use std::time::Duration;

use dormouse_link::EnvironmentId;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::chain;
use crate::journal::Log;
use crate::model::{App, BuildState, Deployment, DeploymentState, Environment, EnvironmentState, Millis, now};
use crate::store::StoreError;
use crate::world::World;

/// Lines that wait for a follower to take them.
const QUEUE: usize = 64;

/// A follower looks again at least so often.
const PERIOD: Duration = Duration::from_secs(1);

/// A follower of an environment's state gives up after this time.
const STATE_LIMIT: Duration = Duration::from_secs(120);

/// A deployment is told to have succeeded when all edges have it, or after this time.
const EDGES_WITHIN: Duration = Duration::from_secs(10);

/// A word to a follower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// Something happened.
    Line(String),
    /// It ended; nothing comes after this.
    Done {
        /// Whether it did what was asked.
        ok: bool,
        /// How it ended.
        text: String,
    },
}

/// Follows a deployment to its end.
pub(crate) fn deployment(world: &Arc<World>, id: String) -> mpsc::Receiver<Progress> {
    spawn(world, format!("follower of deployment {id}"), move |world, to| async move {
        let mut changes = world.store.changes();
        let mut lines = world.journal.changes();
        let mut build = None;
        let mut steps = Tail::default();
        loop {
            let deployment = world.store.deployment(&id).await?.ok_or(StoreError::Gone("the deployment"))?;
            if let Some(build_id) = &deployment.build_id {
                let build = match &mut build {
                    Some(build) => build,
                    none => none.insert(begin_build(&world, build_id, &deployment, &to).await?),
                };
                build.forward(&world, Log::Build(build_id), &to).await;
            }
            steps.forward(&world, Log::Deployment(&id), &to).await;
            if deployment.state.ended() {
                return outcome(&world, &deployment, &to).await;
            }
            // Cancel safe: watches keep what changed meanwhile.
            tokio::select! {
                _ = changes.changed() => {}
                _ = lines.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = to.closed() => return Ok(done(false, "nobody listens any more")),
            }
        }
    })
}

/// Follows an environment until `reached` says how it ended.
pub(crate) fn environment(
    world: &Arc<World>,
    id: EnvironmentId,
    reached: impl Fn(&Environment, Millis) -> Option<Progress> + Send + Sync + 'static,
) -> mpsc::Receiver<Progress> {
    let asked_at = now();
    // The limit is by a clock that nobody sets.
    let began = Instant::now();
    spawn(world, format!("follower of environment {id}"), move |world, to| async move {
        let mut changes = world.store.changes();
        let mut last: Option<EnvironmentState> = None;
        loop {
            let environment = world.store.environment(&id).await?.ok_or(StoreError::Gone("the environment"))?;
            if last.is_some_and(|last| last != environment.state) {
                let state = crate::store::environment_state_text(environment.state);
                say(&to, format!("{} is {state}.", environment.title())).await;
            }
            last = Some(environment.state);
            if let Some(end) = reached(&environment, asked_at) {
                return Ok(end);
            }
            if began.elapsed() > STATE_LIMIT {
                return Ok(done(
                    false,
                    format!("it is not done after {} s; `dormouse status` tells", STATE_LIMIT.as_secs()),
                ));
            }
            // Cancel safe: watches keep what changed meanwhile.
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = to.closed() => return Ok(done(false, "nobody listens any more")),
            }
        }
    })
}

/// Follows the removal of an application until nothing is left of it.
pub(crate) fn deletion(world: &Arc<World>, app: App) -> mpsc::Receiver<Progress> {
    spawn(world, format!("follower of the deletion of {}", app.name), move |world, to| async move {
        let mut changes = world.store.changes();
        let mut left = usize::MAX;
        loop {
            let environments = world.store.environments_of(&app.id).await?;
            if !environments.is_empty() && environments.len() < left {
                left = environments.len();
                say(&to, format!("Taking down {}.", names(&environments))).await;
            }
            if world.store.app(&app.name).await?.is_none_or(|found| found.id != app.id) {
                return Ok(done(true, format!("Deleted {}.", app.name)));
            }
            // Cancel safe: watches keep what changed meanwhile.
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = to.closed() => return Ok(done(false, "nobody listens any more")),
            }
        }
    })
}

fn names(environments: &[Environment]) -> String {
    environments.iter().map(Environment::title).collect::<Vec<_>>().join(", ")
}

pub(crate) fn done(ok: bool, text: impl Into<String>) -> Progress {
    Progress::Done { ok, text: text.into() }
}

pub(crate) async fn say(to: &mpsc::Sender<Progress>, line: String) {
    // A follower that is gone misses it; what is followed goes on.
    let _gone = to.send(Progress::Line(line)).await;
}

fn spawn<F>(
    world: &Arc<World>,
    name: String,
    follow: impl FnOnce(Arc<World>, mpsc::Sender<Progress>) -> F + Send + 'static,
) -> mpsc::Receiver<Progress>
where
    F: Future<Output = Result<Progress, StoreError>> + Send,
{
    let (to, lines) = mpsc::channel(QUEUE);
    let stop = world.tasks.token();
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn(name, async move {
        let end = tokio::select! {
            end = follow(world, to.clone()) => end.unwrap_or_else(|error| done(false, chain(&error))),
            // What was asked for is in the store, and goes on at the next start.
            () = stop.cancelled() => done(false, "Dormouse is being stopped; it carries on at its next start"),
        };
        let _gone = to.send(end).await;
    });
    lines
}

/// The log of a deployment's build; at its end where the image was there before the deployment was asked for.
async fn begin_build(
    world: &World,
    build_id: &str,
    deployment: &Deployment,
    to: &mpsc::Sender<Progress>,
) -> Result<Tail, StoreError> {
    let build = world.store.build(build_id).await?;
    if let Some(build) =
        build.filter(|build| build.state == BuildState::Succeeded && build.created_at < deployment.created_at)
    {
        say(to, format!("The image of commit {} is built already, and taken as it is.", build.commit.short())).await;
        return Ok(Tail(u64::MAX));
    }
    Ok(Tail::default())
}

/// How far a log was forwarded.
#[derive(Default)]
struct Tail(u64);

impl Tail {
    async fn forward(&mut self, world: &World, log: Log<'_>, to: &mpsc::Sender<Progress>) {
        while self.0 != u64::MAX
            && let Ok((lines, offset)) = world.journal.read(log, self.0)
        {
            if offset == self.0 {
                return;
            }
            self.0 = offset;
            for line in lines {
                say(to, line).await;
            }
        }
    }
}

async fn outcome(world: &World, deployment: &Deployment, to: &mpsc::Sender<Progress>) -> Result<Progress, StoreError> {
    let environment =
        world.store.environment(&deployment.environment).await?.ok_or(StoreError::Gone("the environment"))?;
    let title = environment.title();
    let number = deployment.number;
    let reason = deployment.reason.clone().unwrap_or_default();
    Ok(match deployment.state {
        DeploymentState::Succeeded => {
            // Said when it is true for visitors: every edge has the new version.
            if !world.signals.applied(environment.generation, EDGES_WITHIN).await {
                say(to, "An edge has not applied it yet, and may show the version before for a while.".to_owned())
                    .await;
            }
            let host = environment.platform_host().map(ToString::to_string).unwrap_or_default();
            done(true, format!("Deployment {number} of {title} succeeded: it serves {host}."))
        }
        DeploymentState::Superseded => done(false, format!("Deployment {number} of {title} was superseded: {reason}.")),
        _ => {
            // Those of a build were told as they came.
            if deployment.began_starting() && !deployment.last_lines.is_empty() {
                say(to, format!("The last {} lines of its container:", deployment.last_lines.len())).await;
                for line in &deployment.last_lines {
                    say(to, format!("  | {line}")).await;
                }
            }
            let old = match &environment.serving {
                Some(_) => "The version before it serves on.",
                None => "Nothing serves there yet.",
            };
            done(false, format!("Deployment {number} of {title} FAILED: {reason}. {old}"))
        }
    })
}
