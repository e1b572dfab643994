//! What is in order: the state a world comes to by itself, whatever happened to it.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use dormouse_control::engine::docker::DEFAULT_ADDRESS;
use dormouse_control::engine::{Observed, Status};
use dormouse_control::git::Repository;
use dormouse_control::model::{App, DeploymentState, Environment, EnvironmentState, LIVE, TEST};
use dormouse_control::store::{Store, StoreError};
use dormouse_link::EnvironmentId;
use futures_util::future::join_all;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use crate::world::World;

/// All is in order within this time of a start.
pub(crate) const WITHIN: Duration = Duration::from_secs(15);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// What a crash left.
pub(crate) struct Left {
    pub(crate) store: Store,
    /// What slept and was not wanted, with its newest deployment.
    sleepers: Vec<(EnvironmentId, Option<String>)>,
}

/// The file is whole, whoever was in the middle of writing it. It is for looking only, and opened while nobody else writes: two
/// writers get in each other's way.
pub(crate) async fn whole_store(world: &World) -> Left {
    let store = dormouse_control::open_store(world.data()).await.expect("the store opens");
    let damage = store.damage().await.expect("it can be checked");
    assert!(damage.is_empty(), "{damage:?}");
    let mut sleepers = Vec::new();
    for environment in store.environments().await.expect("the store reads") {
        let deployments = store.deployments_of(&environment.id).await.expect("the store reads");
        let calm = environment.asked.is_none() && deployments.iter().all(|deployment| deployment.state.ended());
        if environment.state == EnvironmentState::Asleep && calm {
            sleepers.push((environment.id, deployments.first().map(|newest| newest.id.clone())));
        }
    }
    Left { store, sleepers }
}

/// Everything comes to rest in order and serves, within the time since `began`.
pub(crate) async fn comes(world: &World, Left { store, sleepers }: Left, began: Instant) {
    loop {
        let wrong = disorder(world, &store).await.unwrap_or_else(|error| Some(error.to_string()));
        let Some(wrong) = wrong else { break };
        assert!(began.elapsed() < WITHIN, "after {WITHIN:?}: {wrong}");
        sleep(PAUSE).await;
    }
    let environments = store.environments().await.expect("the store reads");
    for environment in &environments {
        let newest =
            store.deployments_of(&environment.id).await.expect("the store reads").first().map(|it| it.id.clone());
        // A push whose ref had moved is deployed now, which wakes.
        let slept = sleepers.contains(&(environment.id.clone(), newest));
        let asleep = environment.state == EnvironmentState::Asleep;
        assert!(asleep || !slept, "{} slept, nobody wanted it, and it is {:?}", environment.title(), environment.state);
    }
    let serve = environments.iter().filter(|found| found.state != EnvironmentState::Empty).map(async |environment| {
        let serves = timeout_at(began + WITHIN, serves(world, &store, environment));
        serves.await.unwrap_or_else(|_| panic!("{} does not serve within {WITHIN:?}", environment.title()));
    });
    join_all(serve).await;
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
    if let Some(fake) = &world.fake {
        let stray = fake.images().into_iter().find(|tag| !images.contains(tag));
        return Ok(stray.map(|tag| format!("the image {tag} has no owner")));
    }
    let instances = store.instance_ids().await?.into_iter().map(|id| id.to_string()).collect();
    Ok(left_on_docker(store.installation(), &images, instances).await)
}

/// What Docker itself shows under an installation's label, that nobody owns.
async fn left_on_docker(installation: &str, images: &[String], instances: Vec<String>) -> Option<String> {
    let network = format!("dormouse-{installation}");
    let images = images.iter().map(|tag| tag.replacen('/', &format!("/{installation}/"), 1)).collect();
    // An image without a name is a layer that a build made on its way.
    let shown: [(&[&str], &str, Vec<String>); 3] = [
        (&["images"], "{{.Repository}}:{{.Tag}}", images),
        (&["network", "ls"], "{{.Name}}", vec![network.clone(), format!("{network}-build")]),
        // Those of a build's steps have no instance.
        (&["ps", "--all"], "{{.Label \"dormouse.instance\"}}", instances),
    ];
    for (what, format, owned) in shown {
        let mut docker = Command::new("docker");
        docker.args(["--host", DEFAULT_ADDRESS]).args(what).args(["--no-trunc", "--format", format]);
        docker.args(["--filter", &format!("label=dormouse.installation={installation}")]).stdin(Stdio::null());
        let output = docker.output().await.expect("docker runs");
        assert!(output.status.success(), "{what:?}: {}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("text");
        if let Some(line) = lines.lines().find(|line| !owned.iter().any(|owned| owned == line)) {
            return Some(format!("docker {} shows {line:?}, which has no owner", what.join(" ")));
        }
    }
    None
}
