//! What is in order: the state a world comes to by itself, whatever happened to it.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use dormouse_control::engine::{Observed, Status};
use dormouse_control::git::Repository;
use dormouse_control::model::{App, DeploymentState, Environment, EnvironmentState, LIVE, TEST};
use dormouse_control::store::{Store, StoreError};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::world::World;

/// All is in order within this time of a start.
pub(crate) const WITHIN: Duration = Duration::from_secs(15);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// The file is whole, whoever was in the middle of writing it. It is for looking only, and opened while nobody else writes: two
/// writers get in each other's way.
pub(crate) async fn whole_store(world: &World) -> Store {
    let store = dormouse_control::open_store(world.data()).await.expect("the store opens");
    let damage = store.damage().await.expect("it can be checked");
    assert!(damage.is_empty(), "{damage:?}");
    store
}

/// Everything comes to rest in order, within the time since `began`.
pub(crate) async fn comes(world: &World, store: Store, began: Instant) {
    loop {
        let wrong = disorder(world, &store).await.unwrap_or_else(|error| Some(error.to_string()));
        let Some(wrong) = wrong else { break };
        assert!(began.elapsed() < WITHIN, "after {WITHIN:?}: {wrong}");
        sleep(PAUSE).await;
    }
    let environments = store.environments().await.expect("the store reads");
    for environment in environments.iter().filter(|found| found.state != EnvironmentState::Empty) {
        let left = WITHIN.saturating_sub(began.elapsed()).max(Duration::from_secs(5));
        let serves = timeout(left, serves(world, &store, environment));
        serves.await.unwrap_or_else(|_| panic!("{} does not serve", environment.title()));
    }
    store.close().await;
}

/// Live serves and a sleeper wakes, and what is seen is what the deployment's commit says.
async fn serves(world: &World, store: &Store, environment: &Environment) {
    let id = environment.serving.as_ref().expect("what is not empty has it");
    let commit = store.deployment(id).await.expect("the store reads").expect("it is there").commit;
    let file = format!("{commit}:message.txt");
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(repository(world, &environment.app_id).path()).args(["show", &file]).stdin(Stdio::null());
    let message = git.output().await.expect("git runs").stdout;
    let message = String::from_utf8(message).expect("a message");
    assert!(!message.is_empty(), "{} has its commit", environment.title());
    let host = match environment.name.as_str() {
        LIVE => format!("{}.localhost", environment.app),
        name => format!("{}-{name}.localhost", environment.app),
    };
    let mut answer = world.get(&host).await;
    // The rows were looked at, which the edge follows a moment later.
    while answer.status != 200 {
        sleep(PAUSE).await;
        answer = world.get(&host).await;
    }
    assert!(answer.body.contains(message.trim()), "{host} is not {message}: {}", answer.body);
}

fn repository(world: &World, app_id: &str) -> Repository {
    Repository::at(world.data().join(format!("git/{app_id}.git")))
}

/// The first thing that is not as it should be at rest.
async fn disorder(world: &World, store: &Store) -> Result<Option<String>, StoreError> {
    let apps = store.apps().await?;
    // First the engine, then the rows: a row is there before its containers are.
    let engine = match world.engine.instances().await {
        Ok(all) => all,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let rows: HashSet<_> = store.instance_ids().await?.into_iter().collect();
    if let Some(found) = engine.iter().find(|found| !rows.contains(&found.id)) {
        return Ok(Some(format!("{found:?} has no row")));
    }
    for app in &apps {
        let environments = store.environments_of(&app.id).await?;
        if environments.is_empty() {
            return Ok(Some(format!("{} is not gone", app.name)));
        }
        if store.builds_run(&app.id).await? {
            return Ok(Some(format!("a build of {} is noted as running", app.name)));
        }
        for environment in environments {
            if let Some(wrong) = environment_disorder(world, store, app, &environment, &engine).await? {
                return Ok(Some(format!("{}: {wrong}", environment.title())));
            }
        }
    }
    if let Some(build) = store.needed_builds().await?.first() {
        return Ok(Some(format!("{build:?} waits")));
    }
    left_over(world, store, &apps).await
}

async fn environment_disorder(
    world: &World,
    store: &Store,
    app: &App,
    environment: &Environment,
    engine: &[Observed],
) -> Result<Option<String>, StoreError> {
    let wrong = |what: String| Ok(Some(what));
    let deployments = store.deployments_of(&environment.id).await?;
    if let Some(unended) = deployments.iter().find(|deployment| !deployment.state.ended()) {
        return wrong(format!("deployment {} is {:?}", unended.number, unended.state));
    }
    let succeeded = deployments.iter().find(|deployment| deployment.state == DeploymentState::Succeeded);
    if environment.serving.as_ref() != succeeded.map(|deployment| &deployment.id) {
        return wrong(format!("{:?} serves, not the newest that succeeded", environment.serving));
    }
    if environment.name.as_str() == TEST {
        let head = repository(world, &app.id).head(&app.branch).await;
        let head = head.unwrap_or_else(|error| panic!("{error}"));
        if head.as_ref() != deployments.first().map(|deployment| &deployment.commit) {
            return wrong(format!("the branch is at {head:?}, which is not what was deployed last"));
        }
    }
    if environment.asked.is_some() {
        return wrong(format!("{:?} is not done", environment.asked));
    }
    let instances = store.instances(&environment.id).await?;
    let deployed: Vec<_> = instances.iter().map(|instance| Some(&instance.deployment_id)).collect();
    let expected: Vec<_> = environment.serving.iter().map(Some).collect();
    if deployed != expected {
        return wrong(format!("it has instances of {deployed:?}, and {expected:?} serves"));
    }
    let status = engine.iter().find(|found| instances.iter().any(|instance| instance.id == found.id));
    let runs = status.is_some_and(|found| found.status == Status::Running);
    let lives = status.is_some_and(|found| found.status.lives());
    match environment.state {
        EnvironmentState::Empty if expected.is_empty() => Ok(None),
        EnvironmentState::Ready if runs => Ok(None),
        EnvironmentState::Asleep if !lives && environment.name.as_str() != LIVE => Ok(None),
        state => wrong(format!("it is {state:?}, and its instance is {status:?}")),
    }
}

/// Folders, logs and images that nobody owns.
async fn left_over(world: &World, store: &Store, apps: &[App]) -> Result<Option<String>, StoreError> {
    let mut images = Vec::new();
    let mut logs = Vec::new();
    for app in apps {
        let built = store.built_commits(&app.id).await?;
        images.extend(built.iter().map(|commit| format!("dormouse/{}:{commit}", app.name)));
        logs.extend(store.builds_of(&app.id).await?.iter().map(|id| format!("build-{id}.log")));
        for environment in store.environments_of(&app.id).await? {
            let ids = store.deployment_ids(&environment.id).await?;
            logs.extend(ids.iter().map(|id| format!("deployment-{id}.log")));
        }
    }
    let folders: Vec<_> = apps.iter().map(|app| format!("{}.git", app.id)).collect();
    for (folder, owned) in [("git", &folders), ("logs", &logs)] {
        let all = std::fs::read_dir(world.data().join(folder)).expect("the folder is there").flatten();
        let mut names = all.map(|found| found.file_name().to_string_lossy().into_owned());
        if let Some(name) = names.find(|name| !owned.contains(name)) {
            return Ok(Some(format!("{folder}/{name} has no owner")));
        }
    }
    let found = world.fake.as_ref().map(|fake| fake.images()).unwrap_or_default();
    let stray = found.into_iter().find(|tag| !images.contains(tag));
    Ok(stray.map(|tag| format!("the image {tag} has no owner")))
}
