//! What `logs` shows: what the serving container wrote, and what went wrong with the environment since.
//!
//! A deployment that failed has no container any more; its last lines are told here as well as by `status`.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::apps::{AppsError, deployments};
use crate::engine::{EngineError, LogLine, Logs};
use crate::model::{DeploymentState, Environment};
use crate::world::World;

/// Lines that wait for a reader to take them.
const QUEUE: usize = 64;

/// The lines of an environment. What went wrong stands at the end, where people look, or before what is followed.
pub(crate) async fn read(
    world: &Arc<World>,
    environment: &Environment,
    which: Logs,
) -> Result<mpsc::Receiver<LogLine>, AppsError> {
    let trouble = trouble(world, environment).await?;
    let instances = world.store.instances(&environment.id).await?;
    let serving = instances.iter().find(|instance| Some(&instance.deployment_id) == environment.serving.as_ref());
    let written = match serving.or(instances.last()) {
        Some(instance) => Some(world.engine.logs(&instance.id, which).await),
        None => None,
    };
    let mut written = match written {
        Some(Ok(written)) => Some(written),
        // There was a container, and it is gone: there may be enough to say without it.
        Some(Err(EngineError::NoInstance(_))) | None if !trouble.is_empty() => None,
        Some(Err(error)) => return Err(error.into()),
        None => return Err(EngineError::NoInstance(dormouse_link::InstanceId::new("none")).into()),
    };
    if trouble.is_empty()
        && let Some(written) = written
    {
        return Ok(written);
    }
    let (to, lines) = mpsc::channel(QUEUE);
    let stop = world.tasks.token();
    world.tasks.spawn(format!("log of {}", environment.title()), async move {
        let hand_on = async {
            let (mut first, mut last) = (trouble, Vec::new());
            if !which.follow {
                std::mem::swap(&mut first, &mut last);
            }
            for line in first {
                to.send(line).await.ok()?;
            }
            while let Some(line) = written.as_mut()?.recv().await {
                to.send(line).await.ok()?;
            }
            Some(last)
        };
        // Cancel safe: a log that nobody reads any more has nothing to lose.
        let last = tokio::select! {
            last = hand_on => last,
            () = to.closed() => None,
            () = stop.cancelled() => None,
        };
        for line in last.unwrap_or_default() {
            // A reader that is gone misses it.
            let _gone = to.send(line).await;
        }
    });
    Ok(lines)
}

/// Why the newest deployment failed, with what it wrote last; why the environment does not serve.
async fn trouble(world: &Arc<World>, environment: &Environment) -> Result<Vec<LogLine>, AppsError> {
    let (_, latest) = deployments(world, environment).await?;
    let mut lines = Vec::new();
    if let Some(failed) = latest.filter(|latest| latest.state == DeploymentState::Failed) {
        let reason = failed.reason.unwrap_or_default();
        lines.push(format!("dormouse: deployment {} of {} failed: {reason}", failed.number, environment.title()));
        lines.extend(failed.last_lines.iter().map(|line| format!("  | {line}")));
    }
    if let Some(reason) = &environment.reason {
        lines.push(format!("dormouse: {} is {}: {reason}", environment.title(), state(environment)));
    }
    Ok(lines.into_iter().map(|text| LogLine { stderr: true, text }).collect())
}

fn state(environment: &Environment) -> &'static str {
    crate::store::environment_state_text(environment.state)
}
