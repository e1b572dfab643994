//! What people do with applications: make, delete, deploy, put to sleep, wake, set. Behind the API and the push; no HTTP here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::{Host, Label, Policy};
use tokio::sync::mpsc;

use crate::authority::AuthorityError;
use crate::engine::EngineError;
use crate::follow::{self, Progress, done};
use crate::git::{Repository, RepositoryError};
use crate::limits::Limits;
use crate::model::{App, Asked, Deployment, Environment, EnvironmentState, LIVE, Millis, TEST, new_id, now};
use crate::policy::{self, PolicyError, Words};
use crate::reconcile;
use crate::refs;
use crate::store::{NewApp, NewEnvironment, Runs, StoreError};
use crate::sweep;
use crate::world::World;

/// Names that stand for parts of the platform itself.
const RESERVED: [&str; 5] = ["api", "git", "www", "admin", "panel"];

/// The branch that is deployed to Test.
const BRANCH: &str = "develop";

/// Test sleeps after so long without a request (Divio's time).
const SLEEP_AFTER: Duration = Duration::from_secs(15 * 60);

/// How long a new instance may take to answer (Divio's time).
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The most that `ready_within` may be.
const READY_WITHIN_MAX: Duration = Duration::from_secs(15 * 60);

/// How long whoever changes what edges serve by is kept waiting until they do.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// The most that `sleep_after` may be.
const SLEEP_AFTER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest value of a variable, in bytes.
const VARIABLE_MAX_BYTES: usize = 64 * 1024;

/// All variables of an environment together, in bytes: each deployment keeps a copy of them.
const VARIABLES_MAX_BYTES: usize = 256 * 1024;

/// Why something was not done, in words for whoever asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppsError {
    /// The name stands for a part of the platform.
    #[error("the name {0} is reserved")]
    Reserved(Label),
    /// No such application.
    #[error("there is no application {0}")]
    NoApp(String),
    /// No such environment.
    #[error("{app} has no environment {environment}")]
    NoEnvironment {
        /// The application.
        app: Label,
        /// What was asked for.
        environment: String,
    },
    /// There is nothing to deploy.
    #[error("{0}")]
    NothingToDeploy(String),
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
    /// A policy that cannot be.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Being deleted.
    #[error("{0} is being deleted")]
    Deleting(Label),
    /// The repository's.
    #[error("use the repository")]
    Git(#[from] RepositoryError),
    /// The local authority's.
    #[error("certify the host")]
    Authority(#[from] AuthorityError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What may be set of an environment; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Sleep after this time without a request; `Some(None)`: never.
    pub sleep_after: Option<Option<Duration>>,
    /// How long a new instance may take to answer.
    pub ready_within: Option<Duration>,
    /// Variables to set, or to remove.
    pub variables: BTreeMap<String, Option<String>>,
    /// Memory of an instance, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors of an instance, in thousandths.
    pub cpus_milli: Option<u64>,
    /// Processes and threads of an instance.
    pub processes: Option<u64>,
    /// What its policy is to say.
    pub words: Words,
}

/// What became of a change that edges serve by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Every edge serves by it.
    Applied,
    /// It is kept, and some edge has yet to take it, or refused it.
    Kept,
}

impl Settings {
    /// The limits that were `before`, with those that are given.
    fn limits(&self, before: Limits) -> Limits {
        Limits {
            memory_bytes: self.memory_bytes.unwrap_or(before.memory_bytes),
            cpus_milli: self.cpus_milli.unwrap_or(before.cpus_milli),
            processes: self.processes.unwrap_or(before.processes),
        }
    }
}

/// Makes an application with its environments Test and Live, and its repository.
pub(crate) async fn create(world: &Arc<World>, name: Label) -> Result<App, AppsError> {
    if RESERVED.contains(&name.as_str()) {
        return Err(AppsError::Reserved(name));
    }
    let at = now();
    let mut environments = Vec::new();
    for (environment, sleep_after) in [(TEST, Some(SLEEP_AFTER)), (LIVE, None)] {
        let host = platform_host(&name, environment, &world.zone)?;
        environments.push(NewEnvironment {
            name: environment.parse().expect("test and live are labels"),
            certificate: world.authority.issue(&host, std::time::SystemTime::now())?,
            sleep_after,
            ready_within: READY_WITHIN,
        });
    }
    let branch = BRANCH.parse().expect("develop is a branch");
    let new = NewApp { id: new_id(), name: name.clone(), branch, environments };
    // First the folder, then the row: a folder without a row is nothing, and removed at the next start.
    let folder = world.repository(&new.id);
    let made = async {
        Repository::create(&folder, &new.branch).await?;
        Ok(world.store.create_app(&new, at).await?)
    };
    if let Err(error) = made.await {
        sweep::remove_folder(&folder).await;
        return Err(error);
    }
    drop(reconcile::watch_all(world).await);
    world.publish_poke.notify_one();
    world.store.app(&name).await?.ok_or_else(|| AppsError::NoApp(name.to_string()))
}

/// `APP.ZONE` for Live, `APP-ENVIRONMENT.ZONE` for the others.
fn platform_host(app: &Label, environment: &str, zone: &Host) -> Result<Host, AppsError> {
    let host = if environment == LIVE { format!("{app}.{zone}") } else { format!("{app}-{environment}.{zone}") };
    host.parse().map_err(|error| AppsError::Value(format!("{host} cannot be a host: {error}")))
}

/// Deletes an application with everything of it; the stream tells how far it is.
pub(crate) async fn delete(world: &Arc<World>, name: &str) -> Result<mpsc::Receiver<Progress>, AppsError> {
    let app = find(world, name).await?;
    world.store.delete_app(&app.id, now()).await?;
    world.publish_poke.notify_one();
    world.pokes.poke_all();
    world.sweep_poke.notify_one();
    world.build_poke.notify_one();
    Ok(follow::deletion(world, app))
}

/// The application of a name, as somebody wrote it.
pub(crate) async fn find(world: &World, name: &str) -> Result<App, AppsError> {
    let no_app = || AppsError::NoApp(name.to_owned());
    let label = name.parse().map_err(|_| no_app())?;
    world.store.app(&label).await?.ok_or_else(no_app)
}

/// An environment of an application, as somebody wrote them.
pub(crate) async fn find_environment(
    world: &World,
    app: &str,
    environment: &str,
) -> Result<(App, Environment), AppsError> {
    let app = find(world, app).await?;
    let found =
        world.store.environments_of(&app.id).await?.into_iter().find(|found| found.name.as_str() == environment);
    match found {
        Some(found) if found.state == EnvironmentState::Deleting => Err(AppsError::Deleting(app.name)),
        Some(found) => Ok((app, found)),
        None => Err(AppsError::NoEnvironment { app: app.name, environment: environment.to_owned() }),
    }
}

/// Deploys an environment: Test from the head of the branch, others with the very image that Test runs.
pub(crate) async fn deploy(world: &Arc<World>, app: &str, environment: &str) -> Result<Deployment, AppsError> {
    let (app, environment) = find_environment(world, app, environment).await?;
    let runs = if environment.name.as_str() == TEST {
        let head = refs::head(world, &app).await?.ok_or_else(|| {
            let (name, branch) = (&app.name, &app.branch);
            AppsError::NothingToDeploy(format!("nothing was pushed to the branch {branch} of {name} yet"))
        })?;
        Runs::Commit(head)
    } else {
        tested_image(world, &app).await?
    };
    let deployment = world.store.ask_deployment(&environment.id, runs, now()).await?;
    world.pokes.poke(&environment.id);
    Ok(deployment)
}

async fn tested_image(world: &World, app: &App) -> Result<Runs, AppsError> {
    let test = find_environment(world, app.name.as_str(), TEST).await?.1;
    let serving = match &test.serving {
        Some(serving) => world.store.deployment(serving).await?,
        None => None,
    };
    let image = serving.and_then(|deployment| Some((deployment.commit, deployment.build_id?)));
    let (commit, build_id) = image.ok_or_else(|| {
        AppsError::NothingToDeploy(format!(
            "{} test has no successful deployment whose image could be promoted",
            app.name
        ))
    })?;
    Ok(Runs::Image { commit, build_id })
}

/// Follows a deployment to its end.
pub(crate) fn follow_deployment(world: &Arc<World>, deployment: &Deployment) -> mpsc::Receiver<Progress> {
    follow::deployment(world, deployment.id.clone())
}

/// Puts an environment to sleep as soon as nothing runs, and follows it there.
pub(crate) async fn sleep(
    world: &Arc<World>,
    app: &str,
    environment: &str,
) -> Result<mpsc::Receiver<Progress>, AppsError> {
    ask(world, app, environment, Asked::Sleep).await
}

/// Wakes an environment and follows it there.
pub(crate) async fn wake(
    world: &Arc<World>,
    app: &str,
    environment: &str,
) -> Result<mpsc::Receiver<Progress>, AppsError> {
    ask(world, app, environment, Asked::Wake).await
}

async fn ask(world: &Arc<World>, app: &str, name: &str, asked: Asked) -> Result<mpsc::Receiver<Progress>, AppsError> {
    let (_, environment) = find_environment(world, app, name).await?;
    if environment.state == EnvironmentState::Empty {
        let title = environment.title();
        return Err(AppsError::NothingToDeploy(format!("nothing is deployed on {title} yet")));
    }
    world
        .store
        .change_environment(&environment.id, now(), |environment| environment.asked = wish(environment, asked))
        .await?;
    world.pokes.poke(&environment.id);
    Ok(follow::environment(world, environment.id, move |environment, asked_at| reached(environment, asked, asked_at)))
}

/// What is to be noted: nothing where it is so already.
fn wish(environment: &Environment, asked: Asked) -> Option<Asked> {
    let already = match asked {
        Asked::Sleep => EnvironmentState::Asleep,
        Asked::Wake => EnvironmentState::Ready,
    };
    (environment.state != already).then_some(asked)
}

fn reached(environment: &Environment, asked: Asked, asked_at: Millis) -> Option<Progress> {
    let title = environment.title();
    match (asked, environment.state) {
        (Asked::Sleep, EnvironmentState::Asleep) => Some(done(true, format!("{title} is asleep."))),
        (Asked::Wake, EnvironmentState::Ready) => Some(done(true, format!("{title} is awake."))),
        (Asked::Wake, EnvironmentState::Failed) if environment.state_since >= asked_at => {
            let reason = environment.reason.clone().unwrap_or_default();
            Some(done(false, format!("{title} could not be woken: {reason}")))
        }
        (Asked::Sleep, EnvironmentState::Ready) if environment.asked.is_none() => Some(done(
            false,
            format!("{title} stays awake: a request or a deployment came in between. Try again later."),
        )),
        (_, EnvironmentState::Deleting) => Some(done(false, format!("{title} is being deleted"))),
        _ => None,
    }
}

/// Sets what is given; variables and limits apply from the next deployment on, the policy when every edge has taken it.
pub(crate) async fn set(
    world: &Arc<World>,
    app: &str,
    name: &str,
    mut settings: Settings,
) -> Result<(Environment, Taken), AppsError> {
    check(&settings)?;
    let (_, environment) = find_environment(world, app, name).await?;
    let mut after = environment.variables.clone();
    change_variables(&mut after, settings.variables.clone());
    if after.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > VARIABLES_MAX_BYTES {
        return Err(AppsError::Value(format!(
            "the variables of an environment have at most {VARIABLES_MAX_BYTES} bytes together"
        )));
    }
    let words = std::mem::take(&mut settings.words);
    let of_policy = !words.is_empty();
    let mut refused = None;
    let changed = world
        .store
        .change_environment(&environment.id, now(), |environment| {
            // Of the policy as it is by now: somebody else may have changed it meanwhile.
            if of_policy {
                match words.changed(&environment.policy) {
                    Ok(policy) => environment.policy = policy,
                    Err(error) => return refused = Some(error),
                }
            }
            if let Some(sleep_after) = settings.sleep_after {
                environment.sleep_after = sleep_after;
            }
            if let Some(ready_within) = settings.ready_within {
                environment.ready_within = ready_within;
            }
            environment.limits = settings.limits(environment.limits);
            change_variables(&mut environment.variables, settings.variables);
        })
        .await?;
    if let Some(refused) = refused {
        return Err(refused.into());
    }
    world.pokes.poke(&changed.id);
    let taken = if of_policy { taken(world, &changed).await } else { Taken::Applied };
    Ok((changed, taken))
}

/// Sets how an environment's requests are to be treated; an empty policy is as if none was ever said.
pub(crate) async fn set_policy(
    world: &Arc<World>,
    app: &str,
    name: &str,
    policy: Policy,
) -> Result<(Environment, Taken), AppsError> {
    let policy = policy::checked(policy)?;
    let (_, environment) = find_environment(world, app, name).await?;
    let change = |environment: &mut Environment| environment.policy = policy;
    let changed = world.store.change_environment(&environment.id, now(), change).await?;
    let taken = taken(world, &changed).await;
    Ok((changed, taken))
}

/// Waits for a while until every edge serves by an environment's newest cell.
async fn taken(world: &World, environment: &Environment) -> Taken {
    world.publish_poke.notify_one();
    let applied = world.signals.applied(environment.generation, TAKEN_WITHIN).await;
    let refused = world.signals.is_refused(&environment.id, environment.generation);
    if applied && !refused { Taken::Applied } else { Taken::Kept }
}

fn change_variables(variables: &mut BTreeMap<String, String>, change: BTreeMap<String, Option<String>>) {
    for (name, value) in change {
        match value {
            Some(value) => variables.insert(name, value),
            None => variables.remove(&name),
        };
    }
}

fn check(settings: &Settings) -> Result<(), AppsError> {
    if let Some(Some(after)) = settings.sleep_after
        && !(Duration::from_secs(1)..=SLEEP_AFTER_MAX).contains(&after)
    {
        return Err(AppsError::Value("sleep-after is from 1s to 365d, or never".to_owned()));
    }
    if let Some(within) = settings.ready_within
        && !(Duration::from_millis(100)..=READY_WITHIN_MAX).contains(&within)
    {
        return Err(AppsError::Value("ready-within is from 100ms to 15m".to_owned()));
    }
    settings.limits(Limits::default()).checked().map_err(|error| AppsError::Value(error.to_string()))?;
    for (name, value) in &settings.variables {
        let head = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !head || name.len() > 200 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(AppsError::Value(format!(
                "{name:?} is no name of a variable: letters, digits and _, no digit first"
            )));
        }
        let value = value.as_deref().unwrap_or_default();
        if value.len() > VARIABLE_MAX_BYTES || value.contains('\0') {
            return Err(AppsError::Value(format!(
                "the value of {name} has a NUL or more than {VARIABLE_MAX_BYTES} bytes"
            )));
        }
    }
    Ok(())
}

/// What the API shows of an environment's deployments.
pub(crate) async fn deployments(
    world: &World,
    environment: &Environment,
) -> Result<(Option<Deployment>, Option<Deployment>), AppsError> {
    let all = world.store.deployments_of(&environment.id).await?;
    let latest = all.first().cloned();
    let serving = match &environment.serving {
        Some(id) => match all.into_iter().find(|deployment| deployment.id == *id) {
            Some(found) => Some(found),
            None => world.store.deployment(id).await?,
        },
        None => None,
    };
    Ok((serving, latest))
}

#[cfg(test)]
mod tests;
