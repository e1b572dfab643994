//! Joins the loops and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_link::Host;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use crate::api::{self, EdgePorts, Token};
use crate::authority::{Authority, AuthorityError};
use crate::crash::Crash;
use crate::engine::{Engine, EngineError};
use crate::git;
use crate::inventory::Inventory;
use crate::journal::Journal;
use crate::model::now;
use crate::pokes::Pokes;
use crate::publish::{self, EdgeLink};
use crate::signals::Signals;
use crate::store::{Addresses, Store, StoreError};
use crate::task::Tasks;
use crate::world::World;
use crate::{builder, certify, error::chain, reconcile, refs, sweep};

/// Containers that are started at one time; further ones wait for their turn.
const STARTS_AT_ONCE: usize = 8;

/// How long the first look at all environments is waited for.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// The store's file in the data folder.
const STORE_FILE: &str = "dormouse.db";

/// The folder of repositories in the data folder.
const REPOSITORIES: &str = "git";

/// What the control plane is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder; it is there, and nobody else uses it.
    pub data: PathBuf,
    /// The domain under which applications get their hosts.
    pub zone: Host,
    /// The secret for the API and for pushes.
    pub token: String,
    /// How much a push may bring.
    pub pushes: git::Limits,
    /// A build is stopped after this time; [`BUILD_DEADLINE`](crate::BUILD_DEADLINE) is the usual.
    pub build_deadline: Duration,
    /// Where a test ends it; nowhere by default.
    pub crash: Crash,
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The local authority's.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A folder's.
    #[error("make the folder {}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// The control plane, running.
pub struct Control {
    world: Arc<World>,
    token: Token,
    pushes: git::Limits,
}

/// The store in a data folder, from which the engine's handle gets the installation's id.
pub async fn open_store(data: &Path) -> Result<Store, StoreError> {
    let (file, repositories) = (data.join(STORE_FILE), data.join(REPOSITORIES));
    let is_empty = std::fs::metadata(&file).map_or(true, |found| found.len() == 0);
    let has_repositories = std::fs::read_dir(&repositories).is_ok_and(|mut all| all.next().is_some());
    if is_empty && has_repositories {
        // A new store owns none of them, and what nobody owns is swept away.
        return Err(StoreError::Lost { file, repositories });
    }
    Store::open(&file).await
}

impl Control {
    /// Starts the loops. What a crash left is put right from here on; nothing of it needs to be known.
    pub async fn start(config: Config, store: Store, engine: Arc<dyn Engine>) -> Result<Self, ControlError> {
        let folder = |name: &str| {
            let folder = config.data.join(name);
            std::fs::create_dir_all(&folder)
                .map(|()| folder.clone())
                .map_err(|source| ControlError::Folder { folder, source })
        };
        let logs = folder("logs")?;
        let authority = Authority::open_or_create(&config.data, std::time::SystemTime::now())?;
        let network = engine.prepare().await?;
        let world = Arc::new(World {
            store,
            inventory: Inventory::new(engine.clone()),
            engine,
            signals: Signals::new(now()),
            journal: Journal::open(&logs).map_err(|source| ControlError::Folder { folder: logs, source })?,
            authority,
            zone: config.zone,
            repositories: folder(REPOSITORIES)?,
            addresses: Mutex::new(Addresses::of(&network)),
            pokes: Pokes::default(),
            build_poke: Notify::new(),
            publish_poke: Notify::new(),
            sweep_poke: Notify::new(),
            starts: Semaphore::new(STARTS_AT_ONCE),
            build_deadline: config.build_deadline,
            crash: config.crash,
            mending: tokio::sync::Mutex::default(),
            tasks: Tasks::new(),
        });
        certify::start(&world).await?;
        sweep::start(&world).await;
        builder::start(&world);
        listen_to_engine(&world);
        Ok(Self { token: Token::new(&config.token), pushes: config.pushes, world })
    }

    /// Joins an edge of this process. Edges are joined before [`Control::go`], so that nothing is taken for drained before
    /// they spoke.
    pub fn join(&self) -> EdgeLink {
        publish::join(&self.world)
    }

    /// Lets the reconcilers go, and waits for each one's first look: what runs, and what does not, is known then.
    pub async fn go(&self) {
        let first = join_all(reconcile::watch_all(&self.world).await);
        if tokio::time::timeout(FIRST_LOOK, first).await.is_err() {
            tracing::warn!("not every environment was looked at yet");
        }
        refs::start(&self.world);
    }

    /// Serves the API on a bound socket, until [`Control::stop`].
    pub fn serve(&self, listener: TcpListener, address: SocketAddr, edge: EdgePorts) {
        let router = api::router(&self.world, self.token.clone(), format!("http://{address}"), edge, self.pushes);
        let stop = self.world.tasks.token();
        self.world.tasks.spawn("api", async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the api ended");
            }
        });
    }

    /// Waits until every edge has applied what is published, at most for `within`.
    pub async fn applied(&self, within: Duration) {
        let generation = self.world.store.generation().await.unwrap_or_default();
        if !self.world.signals.applied(generation, within).await {
            tracing::warn!("an edge has not applied its table yet");
        }
    }

    /// Ends the loops and closes the store. Containers run on; the next start carries on with them. Returns the tasks that did
    /// not end in time.
    pub async fn stop(&self, within: Duration) -> Vec<String> {
        let left = self.world.tasks.stop(within).await;
        self.world.store.close().await;
        left
    }
}

/// Something happened on the engine: every environment looks. What it was is not asked.
fn listen_to_engine(world: &Arc<World>) {
    let mut events = world.engine.events();
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn("engine events", async move {
        let stop = world.tasks.token();
        loop {
            // Cancel safe: `recv` loses nothing.
            let event = tokio::select! {
                event = events.recv() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Some(()) => world.pokes.poke_all(),
                None => return tracing::warn!("the engine's events ended; the reconcilers' period finds what happens"),
            }
        }
    });
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// An error as one line, for the program's messages.
pub fn words(error: &dyn std::error::Error) -> String {
    chain(error)
}

/// A control plane for the tests of its parts: on the scripted engine, in a folder of its own. No branch is looked at by itself.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::engine::fake::Fake;

    pub(crate) async fn world() -> (Arc<World>, tempfile::TempDir) {
        let data = tempfile::tempdir().expect("a folder");
        let config = Config {
            data: data.path().to_owned(),
            zone: "localhost".parse().expect("a host"),
            token: "secret".to_owned(),
            pushes: git::Limits::default(),
            build_deadline: crate::BUILD_DEADLINE,
            crash: Crash::default(),
        };
        let store = open_store(data.path()).await.expect("a store");
        let control = Control::start(config, store, Arc::new(Fake::new())).await.expect("it starts");
        (control.world, data)
    }
}
