//! What the control plane needs of a container engine, and no more.
//!
//! The trait is coarse (an instance is a sandbox *and* its application container), idempotent (every call may be repeated,
//! and starts from whatever is there), and made of owned data, so that an agent on another host can serve it later.
//! Two things implement it, under one contract test-suite: [`docker`] and the scripted [`fake`].
//!
//! Everything made carries the installation's id as a label and in its name: two Dormouses on one engine never touch each
//! other's containers.

pub mod docker;
pub mod fake;
mod lines;
mod log;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_link::{EnvironmentId, InstanceId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::limits::Limits;

/// The port on which a sandbox answers its instance's id.
pub const SANDBOX_PORT: u16 = 16441;

/// The label that says of which build an image is; among [`Build::labels`].
pub const BUILD: &str = "dormouse.build";

/// Said of a commit that cannot be built because it does not say how.
const NO_DOCKERFILE: &str = "the commit has no Dockerfile at its root: add one, commit it, and push again";

/// The program inside a sandbox: a static executable for this machine. Its argument is the port, variable
/// `DORMOUSE_INSTANCE` the id it answers.
pub fn sandbox_program() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/sandbox"))
}

/// A container engine that hosts instances and builds images.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Reaches the engine and makes what instances need: the network of this installation and the sandbox's image.
    /// Returns the network; its subnet stays the same for as long as the network exists. To be repeated when the engine was
    /// away: it may have come back as another version, or without what was on it.
    async fn prepare(&self) -> Result<Network, EngineError>;

    /// Builds `context` without layer cache and tags the image. Lines go to `log` as they are made; when `log`'s reader is
    /// gone the build goes on. Dropping the future stops the build.
    async fn build(&self, build: Build, log: mpsc::Sender<String>) -> Result<Image, BuildError>;

    /// The image of a tag, or `None` where the engine does not have it.
    async fn image(&self, tag: &str) -> Result<Option<Image>, EngineError>;

    /// What builds made and nothing is made from: on the way of one that runs or was cut off, or an image that was built once
    /// more. Those that can be removed first come first.
    async fn leftovers(&self) -> Result<Vec<Leftover>, EngineError>;

    /// Removes one of them, unless it is needed by now.
    async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), EngineError>;

    /// Removes a tag, and the image with it where nothing else uses it.
    async fn remove_image(&self, tag: &str) -> Result<(), EngineError>;

    /// Every instance of this installation that the engine has anything of.
    async fn instances(&self) -> Result<Vec<Observed>, EngineError>;

    /// Brings the instance to run, from whatever is there: sandbox first, then the application container joined to it; both
    /// anew where the sandbox is dead or gone. Says which parts it really started. What an instance is never changes: a
    /// container that is there is started as it was made. A command that cannot be run is an [`EngineError::Start`] where
    /// the engine itself notices, and else an instance that stops at once with code 126 or 127 and says so in its log.
    async fn start(&self, instance: Instance) -> Result<Started, EngineError>;

    /// Stops the application container: SIGTERM, and after `grace` SIGKILL. The sandbox and its address stay.
    async fn stop(&self, instance: &InstanceId, grace: Duration) -> Result<(), EngineError>;

    /// Removes every trace of the instance.
    async fn remove(&self, instance: &InstanceId) -> Result<(), EngineError>;

    /// Whether the application was ended because it went beyond its memory. A listing does not tell; to be asked of one
    /// that [`Status::was_killed`]. Yes is certain; no is not, as engines miss it when the end comes too fast.
    async fn ran_out_of_memory(&self, instance: &InstanceId) -> Result<bool, EngineError>;

    /// What the application container wrote. With `follow` the channel ends when the container does or the reader goes.
    async fn logs(&self, instance: &InstanceId, lines: Logs) -> Result<mpsc::Receiver<LogLine>, EngineError>;

    /// A signal whenever something happened to an instance (or the stream of events was lost and found again): a reason
    /// to look, never more. Ends only with the engine's handle.
    fn events(&self) -> mpsc::Receiver<()>;

    /// Removes everything of this installation: instances, images, network.
    async fn remove_all(&self) -> Result<(), EngineError>;
}

/// The network that instances are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name on the engine.
    pub name: String,
    /// First address of the subnet.
    pub subnet: Ipv4Addr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// The address the engine keeps for itself.
    pub gateway: Ipv4Addr,
}

/// What an image is built from.
#[derive(Clone, Debug)]
pub struct Build {
    /// The tag the image gets: `dormouse/APP:COMMIT`. On the engine it is kept apart from other installations' tags.
    pub tag: String,
    /// A tar archive of the commit's tree.
    pub context: Bytes,
    /// Noted on the image, beside the installation's id.
    pub labels: BTreeMap<String, String>,
    /// The build is stopped after this time.
    pub deadline: Duration,
}

/// A layer that a build made on its way, or its image without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The engine's own id.
    pub image: String,
    /// The build's label [`BUILD`].
    pub build: String,
}

/// An image on the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The engine's own id; it changes with the engine's store.
    pub id: String,
    /// The TCP ports it exposes, ascending.
    pub exposed: Vec<u16>,
    /// The value of PORT among its variables.
    pub port: Option<String>,
}

/// An instance to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Whose it is.
    pub environment: EnvironmentId,
    /// A name for people: `APP-ENVIRONMENT-NUMBER`; part of the containers' names and the host name inside.
    pub name: String,
    /// The image's tag.
    pub image: String,
    /// Its address on the network.
    pub address: IpAddr,
    /// The variables it gets.
    pub variables: BTreeMap<String, String>,
    /// What its application may use.
    pub limits: Limits,
}

/// What [`Engine::start`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It ran already.
    Nothing,
    /// The application container was started.
    Container,
}

/// An instance as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its id.
    pub id: InstanceId,
    /// Whose it is.
    pub environment: EnvironmentId,
    /// How it is.
    pub status: Status,
}

/// How an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Sandbox and application run, and belong together.
    Running,
    /// The sandbox runs; the application was never started, was stopped, or ended by itself.
    Stopped {
        /// The application's exit code, where it has run.
        code: Option<i64>,
    },
    /// Stopped, because the application went beyond its memory. A listing says [`Status::Stopped`];
    /// [`Engine::ran_out_of_memory`] knows better.
    OutOfMemory,
    /// Paused by hand.
    Paused,
    /// The application lives, but in the network of a sandbox that is dead or gone: nobody reaches it. Starting makes both
    /// anew.
    Stranded,
    /// Only parts of it are there, or they do not belong together, and none lives: starting makes them anew.
    Broken,
}

/// The exit code of what got SIGKILL.
const KILLED: i64 = 128 + 9;

impl Status {
    /// Whether the application lives, and is to be stopped where nothing should run.
    pub fn lives(&self) -> bool {
        matches!(self, Self::Running | Self::Stranded)
    }

    /// Whether it ended by SIGKILL: after its grace, by hand, or for want of memory.
    pub fn was_killed(&self) -> bool {
        matches!(self, Self::Stopped { code: Some(KILLED) })
    }
}

/// Which lines of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// The last so many.
    pub tail: u32,
    /// Whether to go on with new ones.
    pub follow: bool,
}

/// One line that a container wrote, without its line end; what is not UTF-8 is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Whether it went to standard error.
    pub stderr: bool,
    /// The line, at most 16 KiB.
    pub text: String,
}

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be reached, or does not answer in time.
    #[error("reach the container engine at {address}")]
    Unavailable {
        /// Where it was looked for.
        address: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It speaks an API older than what we need.
    #[error("use the container engine at {address}: it speaks API {found}, at least {needed} is needed (Docker 20.10)")]
    TooOld {
        /// Where it is.
        address: String,
        /// What it speaks.
        found: String,
        /// What is needed.
        needed: String,
    },
    /// The image is not there.
    #[error("find image {0}")]
    NoImage(String),
    /// No such instance.
    #[error("find instance {0}")]
    NoInstance(InstanceId),
    /// No subnet is free for the network.
    #[error("find a free subnet for network {0}: remove networks that nobody uses (docker network prune)")]
    NoSubnet(String),
    /// The application's command could not be started: its file is missing, not executable, or for another machine.
    #[error("start the container: {0}")]
    Start(String),
    /// It refused.
    #[error("{doing}: the container engine says {says}")]
    Refused {
        /// What was asked.
        doing: String,
        /// Its words.
        says: String,
    },
}

/// `30 minutes`, or seconds where it is no whole number of them.
fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        _ => format!("{} s", time.as_secs_f64()),
    }
}

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The application's own fault: in words for its developer. The log has the details.
    #[error("{0}")]
    Failed(String),
    /// It took longer than allowed.
    #[error("the build took longer than {} and was stopped", minutes(*.0))]
    Deadline(Duration),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
