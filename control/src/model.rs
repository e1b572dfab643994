//! What the control plane keeps, as values: rows of the store with their states as enums.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dormouse_link::{EnvironmentId, Epoch, Generation, Host, InstanceId, Label, OrganisationId, Policy};

use crate::git::{Branch, Commit};
use crate::limits::Limits;

/// Unix time in milliseconds.
pub type Millis = i64;

/// The environment that a push deploys.
pub const TEST: &str = "test";

/// The environment that visitors see: never sleeps by itself, not in DEBUG, at the application's shortest host name.
pub const LIVE: &str = "live";

/// An application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its id; names its repository's folder.
    pub id: String,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Its name, unique.
    pub name: Label,
    /// The branch that is deployed to Test.
    pub branch: Branch,
    /// When it was made.
    pub created_at: Millis,
}

/// How an environment is, as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvironmentState {
    /// Nothing was deployed yet.
    Empty,
    /// The serving instance gets requests.
    Ready,
    /// Edges hold requests and let the running ones end.
    Closing,
    /// The container is stopped.
    Asleep,
    /// The container is being started.
    Waking,
    /// It could not be started; tried again at `retry_at`.
    Failed,
    /// Being taken down for good.
    Deleting,
}

/// What somebody asked for by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Sleep now, as soon as nothing runs.
    Sleep,
    /// Wake now.
    Wake,
}

/// An environment: intent and what was observed, side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Of which application.
    pub app_id: String,
    /// That application's name.
    pub app: Label,
    /// That application's branch.
    pub branch: Branch,
    /// Its name: `test`, `live` or another.
    pub name: Label,
    /// Its hosts; the platform domain first.
    pub hosts: Vec<Host>,
    /// Random, stable, given to the application.
    pub secret_key: String,
    /// The user's own variables; they override the built-in ones.
    pub variables: BTreeMap<String, String>,
    /// What its next deployment may use.
    pub limits: Limits,
    /// How its requests are to be treated, as its owner said.
    pub policy: Policy,
    /// Sleeps after so long without a request; `None`: never.
    pub sleep_after: Option<Duration>,
    /// How long a new instance may take to answer.
    pub ready_within: Duration,
    /// What somebody asked for.
    pub asked: Option<Asked>,
    /// The deployment that requests are for.
    pub serving: Option<String>,
    /// How it is.
    pub state: EnvironmentState,
    /// Since when.
    pub state_since: Millis,
    /// Of its endpoints.
    pub epoch: Epoch,
    /// The version of its cell.
    pub generation: Generation,
    /// Why it failed.
    pub reason: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// When a failed one may be tried again.
    pub retry_at: Millis,
    /// The last request that was written down; edges know newer ones.
    pub last_active_at: Option<Millis>,
    /// The branch's head that the newest deployment was made for.
    pub seen_commit: Option<Commit>,
}

impl Environment {
    /// `APP ENVIRONMENT`, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.app, self.name)
    }

    /// The host that always exists.
    pub fn platform_host(&self) -> Option<&Host> {
        self.hosts.first()
    }
}

/// How a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildState {
    /// Waits for a builder.
    Queued,
    /// Is being built; a crash leads back to `Queued`.
    Running,
    /// The engine has (or had) its image.
    Succeeded,
    /// See its reason and log.
    Failed,
}

/// A commit built, or to be built, to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its id; names its log.
    pub id: String,
    /// Of which application.
    pub app_id: String,
    /// What is built.
    pub commit: Commit,
    /// How it is.
    pub state: BuildState,
    /// The engine's id of the image.
    pub image_id: Option<String>,
    /// The ports that the image exposes.
    pub exposed: Vec<u16>,
    /// PORT among the image's variables.
    pub image_port: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Millis,
}

/// How a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentState {
    /// Not looked at yet.
    Queued,
    /// Waits for its build.
    Building,
    /// Its instance is started and probed beside the old one.
    Starting,
    /// Requests went to it; it may have been replaced since.
    Succeeded,
    /// See its reason; nothing changed for visitors.
    Failed,
    /// A newer one took its place before it was done.
    Superseded,
}

impl DeploymentState {
    /// Whether nothing will happen to it any more.
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Superseded)
    }
}

/// The attempt to make one environment run one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its id; names its log.
    pub id: String,
    /// Of which environment.
    pub environment: EnvironmentId,
    /// Counted in the environment from 1.
    pub number: u64,
    /// What runs.
    pub commit: Commit,
    /// The build whose image runs, once known.
    pub build_id: Option<String>,
    /// How it is.
    pub state: DeploymentState,
    /// Why it failed.
    pub reason: Option<String>,
    /// What its failed container wrote last.
    pub last_lines: Vec<String>,
    /// The variables it runs with.
    pub variables: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// When it was asked for.
    pub created_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

impl Deployment {
    /// Whether it came as far as to have a container.
    pub fn began_starting(&self) -> bool {
        // Each instance is told its port, at least.
        !self.variables.is_empty()
    }
}

/// One container of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Of which environment.
    pub environment: EnvironmentId,
    /// Of which deployment.
    pub deployment_id: String,
    /// Its address, ours to give.
    pub address: IpAddr,
    /// Where its application listens.
    pub port: u16,
    /// The generation that no longer offers it, and when that was; `None` while it is, or was never, offered.
    pub retired: Option<(Generation, Millis)>,
}

impl Instance {
    /// Where its application listens.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Now.
pub fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A new random id: 80 bits, hexadecimal.
pub fn new_id() -> String {
    random_hex::<10>()
}

/// `N` random bytes, hexadecimal.
pub fn random_hex<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    //! Rows for the tests of what is decided from them.

    use super::*;

    pub(crate) fn environment(name: &str) -> Environment {
        let host = if name == LIVE { "hello.localhost".to_owned() } else { format!("hello-{name}.localhost") };
        Environment {
            id: EnvironmentId::new("e"),
            organisation: OrganisationId::new("default"),
            app_id: "a".into(),
            app: "hello".parse().expect("a label"),
            branch: "develop".parse().expect("a branch"),
            name: name.parse().expect("a label"),
            hosts: vec![host.parse().expect("a host")],
            secret_key: "secret".into(),
            variables: BTreeMap::new(),
            limits: Limits::default(),
            policy: Policy::default(),
            sleep_after: (name != LIVE).then_some(Duration::from_secs(900)),
            ready_within: Duration::from_secs(60),
            asked: None,
            serving: None,
            state: EnvironmentState::Empty,
            state_since: 0,
            epoch: Epoch(0),
            generation: Generation(1),
            reason: None,
            failures: 0,
            retry_at: 0,
            last_active_at: None,
            seen_commit: None,
        }
    }

    pub(crate) fn deployment(environment: &Environment, number: u64) -> Deployment {
        Deployment {
            id: format!("d{number}"),
            environment: environment.id.clone(),
            number,
            commit: format!("{number:040x}").parse().expect("a commit"),
            build_id: Some(format!("b{number}")),
            state: DeploymentState::Queued,
            reason: None,
            last_lines: Vec::new(),
            variables: BTreeMap::new(),
            limits: Limits::default(),
            created_at: 0,
            ended_at: None,
        }
    }

    pub(crate) fn instance(deployment: &Deployment, last: u8) -> Instance {
        Instance {
            id: InstanceId::new(format!("i{}", deployment.number)),
            environment: deployment.environment.clone(),
            deployment_id: deployment.id.clone(),
            address: IpAddr::from([10, 0, 0, last]),
            port: 80,
            retired: None,
        }
    }
}
