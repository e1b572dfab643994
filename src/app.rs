//! Joins the control plane and the proxy in one process: starts them, tells where they are, ends them in order.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dormouse_control::engine::docker::Docker;
use dormouse_control::engine::{Engine, EngineError};
use dormouse_control::store::StoreError;
use dormouse_control::{Config as ControlConfig, Control, ControlError, EdgePorts, is_disk_full, open_store};
use dormouse_proxy::{Address, Config as ProxyConfig, Listener, Proxy, Spans, StartError, raise_descriptor_limit};
use tokio::net::TcpListener;

use crate::client::demo;
use crate::config::{Demo, UpConfig};
use crate::ends::Ends;
use crate::failure::{Exit, Failure};
use crate::folder::Folder;
use crate::{otlp, telemetry};

/// How long requests that run may go on when the program is told to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// The region of what runs in one process.
const REGION: &str = "default";

/// How long the control plane's loops may take to end.
const STOP: Duration = Duration::from_secs(15);

/// How long the edge may take to apply its first table.
const READY: Duration = Duration::from_secs(30);

/// Both halves, running in this process.
pub struct App {
    folder: Folder,
    control: Control,
    proxy: Proxy,
    api: SocketAddr,
}

/// Where an [`App`] is.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Plain HTTP, for visitors.
    pub http: Option<SocketAddr>,
    /// HTTPS, for visitors.
    pub https: Option<SocketAddr>,
    /// The API, and git.
    pub api: SocketAddr,
    /// Health, for operators.
    pub admin: Option<SocketAddr>,
}

/// Runs both halves until it is told to stop.
pub fn run_up(config: UpConfig) -> Result<(), Failure> {
    let _log = telemetry::start(&config.log)?;
    let names = (config.name.as_str(), REGION);
    let (spans, exporter) = config.otlp.as_ref().map(|export| otlp::start(export, names)).transpose()?.unzip();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("dormouse-control")
        .build()
        .map_err(|error| Failure::new(Exit::Software, "cannot start").because(&error))?;
    let ended = runtime.block_on(up(config, spans));
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    ended
}

async fn up(config: UpConfig, spans: Option<Spans>) -> Result<(), Failure> {
    let mut ends = Ends::listen()?;
    let engine = async |installation: String| {
        let docker = Docker::connect(config.engine.as_deref(), &installation).await?;
        Ok(Arc::new(docker) as Arc<dyn Engine>)
    };
    let app = tokio::select! {
        app = App::start(&config, engine, spans) => app?,
        () = ends.told() => return Ok(()),
    };
    let at = app.addresses();
    let all = [("http", at.http), ("https", at.https), ("api", Some(at.api)), ("admin", at.admin)];
    Failure::print(&ready(&all.map(|(name, address)| (name, address.map(Address::from)))))?;
    let beside = async {
        if config.demo == Demo::Hello
            && let Err(failure) = demo::hello(app.folder.path()).await
        {
            failure.tell();
        }
        std::future::pending::<()>().await;
    };
    // A demo that is not done is taken up again at the next start.
    tokio::select! {
        () = beside => {}
        () = ends.told() => {}
    }
    app.proxy.announce();
    if !config.drain_delay.is_zero() {
        tracing::info!("stopping: /readyz says so, and all is served for a while; a second signal ends at once");
        tokio::select! {
            () = tokio::time::sleep(config.drain_delay) => {}
            () = ends.told() => {
                tracing::warn!("told twice: ended without waiting");
                return Ok(());
            }
        }
    }
    tracing::info!("stopping: requests that run may finish, containers run on; a second signal ends at once");
    tokio::select! {
        () = app.stop() => {}
        () = ends.told() => tracing::warn!("told twice: ended without waiting"),
    }
    Ok(())
}

impl App {
    /// Takes the folder, then the ports, then the engine, and serves when all of it is there. `engine` connects to the
    /// container engine, given the installation's id.
    pub async fn start(
        config: &UpConfig,
        engine: impl AsyncFnOnce(String) -> Result<Arc<dyn Engine>, EngineError>,
        spans: Option<Spans>,
    ) -> Result<Self, Failure> {
        let folder = Folder::take(&config.data)?;
        raise_descriptors();
        let token = folder.token()?;
        let listener = TcpListener::bind(config.api).await.map_err(|error| port("api", &config.api.into(), &error))?;
        let api = listener.local_addr().map_err(|error| port("api", &config.api.into(), &error))?;
        let store = open_store(folder.path()).await.map_err(|error| no_store(folder.path(), &error))?;
        let engine = engine(store.installation().to_owned()).await.map_err(|error| no_engine(&error))?;
        let told = ControlConfig {
            data: folder.path().to_owned(),
            zone: config.zone.clone(),
            token,
            pushes: config.pushes,
            build_deadline: config.build_deadline,
            crash: config.crash.clone(),
        };
        let control = Control::start(told, store, engine).await.map_err(|error| no_control(folder.path(), &error))?;
        let link = control.join();
        let proxy = match Proxy::start(ProxyConfig { spans, ..proxy_config(config) }, link.updates, link.reports) {
            Ok(proxy) => proxy,
            Err(error) => {
                control.stop(STOP).await;
                return Err(match &error {
                    error if is_disk_full(error) => Failure::disk_full(folder.path()).because(error),
                    error => no_edge(error),
                });
            }
        };
        let port = |listener| proxy.address(listener).map(|at| at.port());
        let ports = EdgePorts { http: port("http"), https: port("https") };
        control.serve(listener, api, ports);
        control.go().await;
        control.applied(READY).await;
        folder.announce(api)?;
        Ok(Self { folder, control, proxy, api })
    }

    /// Where it is.
    pub fn addresses(&self) -> Addresses {
        let at = |listener| self.proxy.address(listener);
        Addresses { http: at("http"), https: at("https"), api: self.api, admin: self.proxy.admin() }
    }

    /// Takes nothing more, lets running requests finish, and ends. Containers run on.
    pub async fn stop(self) {
        self.folder.retract();
        self.proxy.shutdown(DRAIN).await;
        let left = self.control.stop(STOP).await;
        if !left.is_empty() {
            tracing::warn!(tasks = ?left, "these did not end in time");
        }
    }
}

fn proxy_config(config: &UpConfig) -> ProxyConfig {
    ProxyConfig {
        listeners: vec![Listener::http(config.http), Listener::https(config.https)],
        admin: Some(config.admin),
        workers: config.workers,
        access_log: config.access_log.clone(),
        name: config.name.clone(),
        region: REGION.to_owned(),
        ..ProxyConfig::default()
    }
}

/// Visitors' connections need many; where it fails, fewer are served.
pub(crate) fn raise_descriptors() {
    if let Err(error) = raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of descriptors could not be raised");
    }
}

/// The one line that scripts wait for: what is listened on where.
pub(crate) fn ready(listeners: &[(&str, Option<Address>)]) -> String {
    let words = listeners.iter().filter_map(|(name, address)| Some(format!(" {name}={}", address.as_ref()?)));
    format!("ready{}\n", words.collect::<String>())
}

fn no_store(folder: &Path, error: &StoreError) -> Failure {
    if is_disk_full(error) {
        return Failure::disk_full(folder).because(error);
    }
    let hint = match error {
        StoreError::Damaged { .. } => "bring it back from your backup: docs/operating.md says how",
        StoreError::Lost { .. } => {
            "bring it back from your backup; to begin anew, move the folder git away, too: what no application owns is removed"
        }
        _ => "is the folder writable, and not of a newer Dormouse?",
    };
    Failure::new(Exit::CannotCreate, format!("cannot open the store in {}", folder.display())).because(error).hint(hint)
}

fn no_control(folder: &Path, error: &ControlError) -> Failure {
    match error {
        error if is_disk_full(error) => Failure::disk_full(folder).because(error),
        ControlError::Engine(error) => no_engine(error),
        ControlError::Authority(error) => {
            Failure::new(Exit::Configuration, "cannot use the local certificate authority")
                .because(error)
                .hint("where ca.pem and ca.key are both missing, a new one is made; browsers then have to trust that")
        }
        error => Failure::new(Exit::CannotCreate, "cannot start the control plane").because(error),
    }
}

fn no_engine(error: &EngineError) -> Failure {
    let failure = Failure::new(Exit::Unavailable, "cannot use the container engine").because(error);
    match error {
        EngineError::Unavailable { .. } if is_forbidden(error) => failure.hint(
            "this user may not use it: sudo usermod -aG docker USER, then sign in again; or say where another one is: --engine unix:///PATH",
        ),
        EngineError::Unavailable { .. } => {
            failure.hint("start Docker (sudo systemctl start docker), or say where it is: --engine unix:///PATH")
        }
        EngineError::TooOld { .. } => failure.hint("install Docker 20.10 or newer"),
        _ => failure.hint("docker info tells more"),
    }
}

/// Whether the system said that we may not.
fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

pub(crate) fn no_edge(error: &StartError) -> Failure {
    match error {
        StartError::Bind { listener, address, source } => port(listener, address, source),
        error => Failure::new(Exit::CannotCreate, "cannot start the edge").because(error),
    }
}

fn port(listener: &str, address: &Address, error: &io::Error) -> Failure {
    // Others are in a file.
    let place = if matches!(listener, "http" | "https" | "api" | "admin") { "--" } else { "the listener " };
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another program listens there; stop it, or give {place}{listener} another port (0 takes a free one)"
            )
        }
        _ if address.path().is_some() => {
            "is its folder there and writable, and nothing else at this path but maybe an old socket?".to_owned()
        }
        io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need rights: give {place}{listener} a higher one, or setcap cap_net_bind_service=+ep the program"
        ),
        _ => format!("give {place}{listener} an address of this machine"),
    };
    Failure::new(Exit::Unavailable, format!("cannot listen for {listener} on {address}")).because(error).hint(hint)
}
