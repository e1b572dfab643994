//! What the control plane's loops work with, joined once: store, engine, signals, journal.
//!
//! Loops receive this and nothing else; none of them holds another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_link::Host;
use tokio::sync::{Notify, Semaphore};

use crate::authority::Authority;
use crate::crash::Crash;
use crate::engine::{Engine, EngineError};
use crate::inventory::Inventory;
use crate::journal::Journal;
use crate::pokes::Pokes;
use crate::signals::Signals;
use crate::store::{Addresses, Store};
use crate::task::Tasks;

/// Shared by all loops.
pub(crate) struct World {
    /// What should be true, and what was observed.
    pub store: Store,
    /// Where instances run and images are built.
    pub engine: Arc<dyn Engine>,
    /// What the engine has.
    pub(crate) inventory: Inventory,
    /// What edges say.
    pub signals: Signals,
    /// The logs of builds and deployments.
    pub journal: Journal,
    /// Who vouches for the platform's hosts.
    pub authority: Authority,
    /// The domain under which applications get their hosts.
    pub zone: Host,
    /// The folder of repositories.
    pub repositories: PathBuf,
    /// The addresses that instances may have, by the engine's last word.
    pub addresses: Mutex<Addresses>,
    /// Wakes the reconciler of an environment.
    pub pokes: Pokes,
    /// Wakes the builder.
    pub build_poke: Notify,
    /// Wakes the publisher.
    pub publish_poke: Notify,
    /// Wakes the sweeper.
    pub(crate) sweep_poke: Notify,
    /// A place for each start under way: after the engine's restart everything starts at once.
    pub(crate) starts: Semaphore,
    /// A build is stopped after this time.
    pub(crate) build_deadline: std::time::Duration,
    /// Where a test ends all this.
    pub(crate) crash: Crash,
    /// Held by whoever makes again what an engine lacks that was away.
    pub(crate) mending: tokio::sync::Mutex<()>,
    /// Starts tasks, and ends them.
    pub tasks: Tasks,
}

impl World {
    /// The engine makes what instances need, where it is not there any more. Its network may be another one by then.
    pub(crate) async fn prepare(&self) -> Result<(), EngineError> {
        let network = self.engine.prepare().await?;
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = Addresses::of(&network);
        Ok(())
    }

    /// The addresses that instances may have.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The repository of an application.
    pub(crate) fn repository(&self, app_id: &str) -> PathBuf {
        self.repositories.join(format!("{app_id}.git"))
    }

    /// The tag of a commit's image.
    pub(crate) fn image_tag(&self, app: &dormouse_link::Label, commit: &crate::git::Commit) -> String {
        format!("dormouse/{app}:{commit}")
    }
}
