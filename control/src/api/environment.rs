//! Environments: what is shown, set and done of them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dormouse_link::policy::PasswordHash;
use dormouse_link::{Label, Policy};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::Problem;
use super::input::{Document, Names, Options};
use super::policy::status;
use super::stream::Until;
use super::{Api, stream};
use crate::apps::{self, Settings};
use crate::engine::Logs;
use crate::logs;
use crate::model::{Deployment, Environment, Millis};
use crate::policy::{self, Words};
use crate::store::{deployment_state_text, environment_state_text};

/// Lines of a log that are shown unless asked otherwise, and at most.
const TAIL: u32 = 100;
const TAIL_MAX: u32 = 100_000;

/// An environment, as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct EnvironmentView {
    name: Label,
    urls: Vec<String>,
    state: &'static str,
    reason: Option<String>,
    serving: Option<DeploymentView>,
    latest: Option<DeploymentView>,
    sleep_after_ms: Option<u128>,
    ready_within_ms: u128,
    memory_bytes: u64,
    cpus_milli: u64,
    processes: u64,
    last_active_at: Option<Millis>,
    policy: PolicyView,
}

/// What a policy says, in short, without its secrets.
#[derive(Debug, Serialize)]
struct PolicyView {
    maintenance: bool,
    paused: bool,
    /// By what: `password`, `authority`, `network`.
    protected_by: Vec<&'static str>,
    /// Who has a password.
    users: Vec<String>,
    indexed: bool,
}

/// A deployment, as the API shows it. Variables are secrets, and not shown.
#[derive(Debug, Serialize)]
struct DeploymentView {
    number: u64,
    commit: String,
    state: &'static str,
    reason: Option<String>,
    last_lines: Vec<String>,
    created_at: Millis,
    ended_at: Option<Millis>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    #[serde(default, deserialize_with = "given")]
    sleep_after_ms: Option<Option<u64>>,
    #[serde(default)]
    ready_within_ms: Option<u64>,
    #[serde(default)]
    memory_bytes: Option<u64>,
    #[serde(default)]
    cpus_milli: Option<u64>,
    #[serde(default)]
    processes: Option<u64>,
    #[serde(default)]
    variables: BTreeMap<String, Option<String>>,
    #[serde(default)]
    maintenance: Option<bool>,
    #[serde(default)]
    pause: Option<bool>,
    #[serde(default)]
    indexed: Option<bool>,
    /// Hashes of passwords.
    #[serde(default)]
    passwords: BTreeMap<String, Option<PasswordHash>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    #[serde(default)]
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
}

/// Tells a `null` that was given from a field that was not.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(from).map(Some)
}

impl EnvironmentView {
    pub(crate) async fn of(api: &Api, environment: &Environment) -> Result<Self, Problem> {
        let (serving, latest) = apps::deployments(&api.world, environment).await?;
        let seen = api.world.signals.last_active_at(&environment.id);
        Ok(Self {
            name: environment.name.clone(),
            urls: urls(api, environment),
            state: environment_state_text(environment.state),
            reason: environment.reason.clone(),
            serving: serving.map(DeploymentView::of),
            latest: latest.map(DeploymentView::of),
            sleep_after_ms: environment.sleep_after.map(|after| after.as_millis()),
            ready_within_ms: environment.ready_within.as_millis(),
            memory_bytes: environment.limits.memory_bytes,
            cpus_milli: environment.limits.cpus_milli,
            processes: environment.limits.processes,
            last_active_at: environment.last_active_at.max(seen),
            policy: PolicyView::of(policy::published(environment)),
        })
    }
}

impl PolicyView {
    fn of(policy: Policy) -> Self {
        let access = policy.access.map(|access| *access).unwrap_or_default();
        let by = [
            (access.basic.is_some(), "password"),
            (access.forward_auth.is_some(), "authority"),
            (!access.allow.is_empty(), "network"),
        ];
        Self {
            maintenance: policy.maintenance.is_some(),
            paused: policy.pause.is_some(),
            protected_by: by.into_iter().filter_map(|(is, what)| is.then_some(what)).collect(),
            indexed: access.is_indexed(),
            users: access.basic.into_iter().flat_map(|basic| basic.users).map(|user| user.name).collect(),
        }
    }
}

impl DeploymentView {
    fn of(deployment: Deployment) -> Self {
        Self {
            number: deployment.number,
            commit: deployment.commit.to_string(),
            state: deployment_state_text(deployment.state),
            reason: deployment.reason,
            last_lines: deployment.last_lines,
            created_at: deployment.created_at,
            ended_at: deployment.ended_at,
        }
    }
}

fn urls(api: &Api, environment: &Environment) -> Vec<String> {
    let url = |scheme: &str, port: Option<u16>, usual: u16| {
        let port = port?;
        let host = environment.platform_host()?;
        Some(if port == usual { format!("{scheme}://{host}/") } else { format!("{scheme}://{host}:{port}/") })
    };
    [url("http", api.edge.http, 80), url("https", api.edge.https, 443)].into_iter().flatten().collect()
}

pub(crate) async fn set(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
    Document(set): Document<Set>,
) -> Result<(StatusCode, Json<EnvironmentView>), Problem> {
    let settings = Settings {
        sleep_after: set.sleep_after_ms.map(|after| after.map(Duration::from_millis)),
        ready_within: set.ready_within_ms.map(Duration::from_millis),
        variables: set.variables,
        memory_bytes: set.memory_bytes,
        cpus_milli: set.cpus_milli,
        processes: set.processes,
        words: Words { maintenance: set.maintenance, pause: set.pause, indexed: set.indexed, passwords: set.passwords },
    };
    let (environment, taken) = apps::set(&api.world, &app, &environment, settings).await?;
    Ok((status(taken), Json(EnvironmentView::of(&api, &environment).await?)))
}

pub(crate) async fn deploy(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
) -> Result<Response, Problem> {
    let deployment = apps::deploy(&api.world, &app, &environment).await?;
    Ok(stream::lines(apps::follow_deployment(&api.world, &deployment), Until::LastMessage))
}

pub(crate) async fn sleep(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
) -> Result<Response, Problem> {
    Ok(stream::lines(apps::sleep(&api.world, &app, &environment).await?, Until::LastMessage))
}

pub(crate) async fn wake(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
) -> Result<Response, Problem> {
    Ok(stream::lines(apps::wake(&api.world, &app, &environment).await?, Until::LastMessage))
}

pub(crate) async fn read_logs(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
    Options(which): Options<Which>,
) -> Result<Response, Problem> {
    let (_, environment) = apps::find_environment(&api.world, &app, &environment).await?;
    let lines = Logs { tail: which.tail.unwrap_or(TAIL).min(TAIL_MAX), follow: which.follow };
    let until = Until::Stop(api.world.tasks.token());
    Ok(stream::lines(logs::read(&api.world, &environment, lines).await?, until))
}
