//! `dormouse edge --table FILE`: serves a table file, without any control plane, and takes it again whenever it changes.
//!
//! A file that is wrong changes nothing: it is told why, and the last good one goes on being served.

mod files;

pub use files::KeyPairFiles;

use std::time::Duration;

use dormouse_link::{Report, Table, Update};
use dormouse_proxy::{Address, Config as ProxyConfig, Limits, Listener, Proxy};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::app;
use crate::config::EdgeConfig;
use crate::ends::{self, Ends};
use crate::failure::{Exit, Failure};
use crate::telemetry;
use files::{Files, Loaded};

/// How often the files are looked at. A HUP signal looks at once.
const LOOK: Duration = Duration::from_secs(1);

/// How long the edge may take to apply its first table.
const READY: Duration = Duration::from_secs(60);

/// Updates and reports that wait to be taken.
const CHANNEL: usize = 16;

/// Serves until it is told to stop.
pub fn run(config: &EdgeConfig) -> Result<(), Failure> {
    telemetry::start(config.log.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Software, "cannot start").because(&error))?;
    runtime.block_on(serve(config))
}

async fn serve(config: &EdgeConfig) -> Result<(), Failure> {
    let mut ends = Ends::listen()?;
    let mut edge = Edge::start(config).await?;
    let at = |listener| edge.proxy.at(listener).cloned();
    let admin = edge.proxy.admin().map(Address::from);
    let ready = app::ready(&[("http", at("http")), ("https", at("https")), ("admin", admin)]);
    Failure::print(&ready)?;
    tokio::select! {
        () = edge.follow() => {}
        () = ends.told() => {}
    }
    tracing::info!("stopping: requests that run may finish; a second signal ends at once");
    tokio::select! {
        () = edge.proxy.shutdown(config.drain) => {}
        () = ends.told() => tracing::warn!("told twice: ended without waiting"),
    }
    Ok(())
}

/// A proxy that serves files.
struct Edge {
    files: Files,
    table: Table,
    proxy: Proxy,
    updates: mpsc::Sender<Update>,
    reports: mpsc::Receiver<Report>,
    hang_up: tokio::signal::unix::Signal,
}

impl Edge {
    async fn start(config: &EdgeConfig) -> Result<Self, Failure> {
        let mut files = Files::new(config.table.clone(), config.certificate.clone(), config.ticket_keys.clone());
        // Looked at before anything listens: whoever starts it sees at once what is wrong.
        let first = files.load(&Table::default()).map_err(Failure::from)?;
        app::raise_descriptors();
        let (updates, taken) = mpsc::channel(CHANNEL);
        let (said, reports) = mpsc::channel(CHANNEL);
        let proxy = Proxy::start(proxy_config(config)?, taken, said).map_err(|error| app::no_edge(&error))?;
        let hang_up = ends::listen(SignalKind::hangup())?;
        let mut edge = Self { files, table: Table::default(), proxy, updates, reports, hang_up };
        edge.offer(first).await;
        let applied = async {
            while let Some(report) = edge.reports.recv().await {
                if matches!(report, Report::Acked { .. }) {
                    return;
                }
            }
        };
        timeout(READY, applied).await.map_err(|_| Failure::new(Exit::Software, "the table was not applied in time"))?;
        Ok(edge)
    }

    /// Looks at the files again and again. Reports have nobody to go to but the log, which the edge itself keeps.
    async fn follow(&mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Each arm is cancel-safe.
            tokio::select! {
                Some(_) = self.reports.recv() => continue,
                _ = look.tick() => {}
                _ = self.hang_up.recv() => {}
            }
            if !self.files.changed() {
                continue;
            }
            match self.files.load(&self.table) {
                Ok(loaded) => self.offer(loaded).await,
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the files are not taken; what was served goes on"
                ),
            }
        }
    }

    async fn offer(&mut self, loaded: Loaded) {
        if let Some(pair) = loaded.certificate {
            self.proxy.fall_back("https", pair);
        }
        if let Some(keys) = loaded.ticket_keys {
            self.proxy.tickets(&keys);
        }
        let update =
            if self.table == Table::default() { loaded.table.snapshot() } else { self.table.diff(&loaded.table) };
        tracing::info!(
            generation = update.generation.0,
            changed = update.put.len(),
            removed = update.remove.len(),
            "table file taken"
        );
        // The feed takes updates for as long as the proxy runs, and never waits for us meanwhile.
        let _ended = self.updates.send(update).await;
        self.table = loaded.table;
    }
}

fn proxy_config(config: &EdgeConfig) -> Result<ProxyConfig, Failure> {
    let clients = config.client_ca.as_deref().map(files::clients).transpose()?;
    let http = config.http.clone().map(|address| Listener { http2: config.http2, ..Listener::http(address) });
    let https = config.https.clone().map(|address| Listener { clients, ..Listener::https(address) });
    let with_proxies = |listener| Listener {
        proxy_protocol_from: config.proxy_protocol_from.clone(),
        trust_forwarded_from: config.trust_forwarded_from.clone(),
        ..listener
    };
    let limits = Limits::default();
    Ok(ProxyConfig {
        listeners: http.into_iter().chain(https).map(with_proxies).collect(),
        admin: config.admin,
        workers: config.workers,
        access_log: config.access_log.clone(),
        limits: Limits {
            connections: config.connections.unwrap_or(limits.connections),
            connections_per_client: config.connections_per_client,
            ..limits
        },
    })
}
