//! Docker Engine 20.10 or later, by bollard; the only place where bollard's types appear.
//!
//! Everything made here carries the installation's id as a label, and only what carries it is ever touched. Each call is
//! a question with a deadline of its own (bollard's covers a response's head only), so an engine that hangs is told from
//! one that works. Calls look first and act then, from whatever is there: the engine's state is never remembered.

mod build;
mod container;
mod events;
mod image;
mod instance;
mod layers;
mod logs;
mod network;
mod parts;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, ClientVersion};
use dormouse_link::{InstanceId, Label};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Build, BuildError, Engine, EngineError, Image, Instance, Leftover, LogLine, Logs, Network, Observed, Started,
};

/// Where the engine is when nobody says so.
pub const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// The oldest API that has what we need: Docker 20.10.
const API_NEEDED: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// The longest wait for the answer to a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The longest wait for one change: a container created, started or removed. An engine that hangs is found long before.
const CHANGE_WITHIN: Duration = Duration::from_secs(30);

/// A call that takes longer than this is watched: the engine is asked for a sign of life, again and again.
const PULSE_EVERY: Duration = Duration::from_secs(2);

/// An engine that gives no sign of life within this time hangs; one that works at something does.
const PULSE_WITHIN: Duration = Duration::from_secs(4);

/// bollard's own limit, in seconds; above all of ours, of which the longest is a build's.
const BOLLARD_SECONDS: u64 = 24 * 60 * 60;

/// The label with the installation's id.
const INSTALLATION: &str = "dormouse.installation";
/// The label with the instance's id.
const INSTANCE: &str = "dormouse.instance";
/// The label with the environment's id.
const ENVIRONMENT: &str = "dormouse.environment";
/// The label that says what it is: one of the following.
const PART: &str = "dormouse.part";
/// The label of an application with the end of its sandbox's network: another one after the sandbox was started anew.
const ENDPOINT: &str = "dormouse.endpoint";
const SANDBOX: &str = "sandbox";
const APP: &str = "app";
const IMAGE: &str = "image";
/// What a build makes on its way.
const LAYER: &str = "layer";
const NETWORK: &str = "network";

/// A Docker Engine, as one installation uses it.
pub struct Docker {
    address: String,
    installation: String,
    sandbox_tag: String,
    /// Replaced by [`Engine::prepare`], because an engine may come back with another version.
    client: RwLock<bollard::Docker>,
    /// Networks are made one at a time: two of a name are no error to an engine.
    making_network: tokio::sync::Mutex<()>,
    /// Ends the tasks that listen for events.
    open: CancellationToken,
    _close: DropGuard,
}

impl Docker {
    /// Reaches the engine at `address` (`unix://PATH`, `PATH`, `tcp://HOST:PORT`; [`DEFAULT_ADDRESS`] if nothing is given)
    /// and agrees on a version. `installation` is a DNS label that no other Dormouse on this engine uses.
    pub async fn connect(address: Option<&str>, installation: &str) -> Result<Self, EngineError> {
        let address = address.unwrap_or(DEFAULT_ADDRESS);
        if let Err(error) = installation.parse::<Label>() {
            return Err(EngineError::Refused {
                doing: format!("use installation id {installation:?}"),
                says: error.to_string(),
            });
        }
        let client = open(address).await?;
        let open = CancellationToken::new();
        Ok(Self {
            address: address.to_owned(),
            installation: installation.to_owned(),
            sandbox_tag: image::sandbox_tag(),
            client: RwLock::new(client),
            making_network: tokio::sync::Mutex::default(),
            _close: open.clone().drop_guard(),
            open,
        })
    }

    fn client(&self) -> bollard::Docker {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Awaits `call`, but not for ever, and no longer than the engine lives.
    async fn ask<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>> + Send,
    ) -> Result<T, Fault> {
        let client = self.client();
        // Whichever is dropped: the call is like one whose answer was lost, and a pulse has no effect.
        tokio::select! {
            answer = ask(within, call) => answer,
            fault = hangs(&client) => Err(fault),
        }
    }

    /// Filters by labels: ours, and the given ones.
    fn filters(&self, labels: &[(&str, &str)]) -> Option<HashMap<String, Vec<String>>> {
        let ours = [(INSTALLATION, self.installation.as_str())];
        let wanted = ours.iter().chain(labels).map(|(name, value)| format!("{name}={value}")).collect();
        Some(HashMap::from([("label".to_owned(), wanted)]))
    }

    /// The labels of something we make: our installation, and the given ones.
    fn labels(&self, labels: &[(&str, &str)]) -> Option<HashMap<String, String>> {
        let ours = [(INSTALLATION, self.installation.as_str())];
        Some(ours.iter().chain(labels).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// What a fault means to the caller.
    fn error(&self, doing: impl Into<String>, fault: Fault) -> EngineError {
        match fault {
            Fault::Said { says, .. } => EngineError::Refused { doing: doing.into(), says },
            Fault::Silent(source) => EngineError::Unavailable { address: self.address.clone(), source },
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
enum Fault {
    /// The engine answered so.
    Said { status: u16, says: String },
    /// No answer: it cannot be reached, or not in time.
    Silent(Box<dyn std::error::Error + Send + Sync>),
}

impl From<bollard::errors::Error> for Fault {
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Said { status: status_code, says: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => Self::Said { status: 200, says: error.trim().to_owned() },
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                Self::Said { status: 200, says: format!("something we do not understand: {error}") }
            }
            error => Self::Silent(error.into()),
        }
    }
}

/// Awaits `call`, but not for ever.
async fn ask<T>(
    within: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>> + Send,
) -> Result<T, Fault> {
    match tokio::time::timeout(within, call).await {
        Ok(answer) => answer.map_err(Fault::from),
        Err(_) => Err(Fault::Silent(format!("no answer within {} s", within.as_secs()).into())),
    }
}

/// Ends when the engine hangs. One that is gone ends its calls by itself.
async fn hangs(client: &bollard::Docker) -> Fault {
    loop {
        tokio::time::sleep(PULSE_EVERY).await;
        if tokio::time::timeout(PULSE_WITHIN, client.ping()).await.is_err() {
            return Fault::Silent(format!("it hangs: no sign of life within {} s", PULSE_WITHIN.as_secs()).into());
        }
    }
}

/// A client for the engine at `address`, with the newest version that both speak.
async fn open(address: &str) -> Result<bollard::Docker, EngineError> {
    let unavailable = |fault| match fault {
        Fault::Said { says, .. } => EngineError::Refused { doing: "agree on an API version".to_owned(), says },
        Fault::Silent(source) => EngineError::Unavailable { address: address.to_owned(), source },
    };
    let client = if let Some(path) = address.strip_prefix("unix://").or(address.starts_with('/').then_some(address)) {
        bollard::Docker::connect_with_unix(path, BOLLARD_SECONDS, API_DEFAULT_VERSION)
    } else if address.starts_with("tcp://") || address.starts_with("http://") {
        bollard::Docker::connect_with_http(address, BOLLARD_SECONDS, API_DEFAULT_VERSION)
    } else {
        let words = "an engine's address is unix://PATH, or tcp://HOST:PORT without TLS";
        return Err(EngineError::Unavailable { address: address.to_owned(), source: words.into() });
    };
    let client = client.map_err(|error| unavailable(error.into()))?;
    let client = ask(ANSWER_WITHIN, client.negotiate_version()).await.map_err(unavailable)?;
    let found = client.client_version();
    if found < API_NEEDED {
        let (found, needed) = (found.to_string(), API_NEEDED.to_string());
        return Err(EngineError::TooOld { address: address.to_owned(), found, needed });
    }
    Ok(client)
}

#[async_trait]
impl Engine for Docker {
    async fn prepare(&self) -> Result<Network, EngineError> {
        let client = open(&self.address).await?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        self.ensure_sandbox_image().await?;
        self.ensure_network(&self.network_name()).await.map(|(_, network)| network)
    }

    async fn build(&self, build: Build, log: mpsc::Sender<String>) -> Result<Image, BuildError> {
        self.build_image(build, log).await
    }

    async fn image(&self, tag: &str) -> Result<Option<Image>, EngineError> {
        self.find_image(tag).await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, EngineError> {
        self.find_leftovers().await
    }

    async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), EngineError> {
        self.remove_layer(leftover).await;
        Ok(())
    }

    async fn remove_image(&self, tag: &str) -> Result<(), EngineError> {
        self.remove_tag(tag).await
    }

    async fn instances(&self) -> Result<Vec<Observed>, EngineError> {
        self.observe().await
    }

    async fn start(&self, instance: Instance) -> Result<Started, EngineError> {
        self.start_instance(&instance).await
    }

    async fn stop(&self, instance: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        self.stop_instance(instance, grace).await
    }

    async fn remove(&self, instance: &InstanceId) -> Result<(), EngineError> {
        self.remove_containers(&[(INSTANCE, instance.as_str())]).await
    }

    async fn ran_out_of_memory(&self, instance: &InstanceId) -> Result<bool, EngineError> {
        self.oom_killed(instance).await
    }

    async fn logs(&self, instance: &InstanceId, lines: Logs) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        self.read_logs(instance, lines).await
    }

    fn events(&self) -> mpsc::Receiver<()> {
        self.watch_events()
    }

    async fn remove_all(&self) -> Result<(), EngineError> {
        self.remove_containers(&[]).await?;
        self.remove_images().await?;
        self.remove_networks().await?;
        // A start that was under way when this began.
        self.remove_containers(&[]).await
    }
}

#[cfg(test)]
mod tests;
