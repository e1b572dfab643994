//! `dormouse edge --table FILE`: serves a table file, without any control plane, and takes it again whenever it changes.
//!
//! A file that is wrong changes nothing: it is told why, and the last good one goes on being served. Another process can take
//! its place without a gap (`upgrade`).

mod door;
mod files;
mod line;
mod notify;
pub(crate) mod passed;
mod succession;
mod upgrade;

pub use files::KeyPairFiles;

use std::time::Duration;

use dormouse_link::{Report, Table, Update};
use dormouse_proxy::{Address, Config as ProxyConfig, Limits, Listener, Listening, OwnTicketKey, Proxy, Spans};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::app;
use crate::config::{Begin, EdgeConfig, ListenerConfig};
use crate::ends::{self, Ends};
use crate::failure::{Exit, Failure};
use crate::{otlp, telemetry};
use door::Door;
use files::{Files, Loaded};
use notify::Notify;
use succession::{End, Succession};
use upgrade::Inheritance;

/// How often the files are looked at. A HUP signal looks at once.
const LOOK: Duration = Duration::from_secs(1);

/// How long the edge may take to apply its first table, and to serve it.
const READY: Duration = Duration::from_secs(60);

/// Updates and reports that wait to be taken.
const CHANNEL: usize = 16;

/// Serves until it is told to stop.
pub fn run(mut config: EdgeConfig) -> Result<(), Failure> {
    let passed = std::mem::take(&mut config.passed);
    let _log = telemetry::start(&config.log)?;
    let names = (config.name.0.as_str(), config.name.1.as_str());
    let (spans, exporter) = config.otlp.as_ref().map(|export| otlp::start(export, names)).transpose()?.unzip();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Software, "cannot start").because(&error))?;
    let served = runtime.block_on(serve((&config, spans), passed));
    // A thread that waits for a disk that hangs is not waited for.
    runtime.shutdown_background();
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    served
}

async fn serve((config, spans): (&EdgeConfig, Option<Spans>), passed: Vec<Listening>) -> Result<(), Failure> {
    let mut ends = Ends::listen()?;
    let notify = Notify::new(config.notify.as_deref());
    let Some((mut edge, mut succession)) = begin((config, spans), passed, &mut ends, &notify).await? else {
        return Ok(());
    };
    let listeners = edge.proxy.listeners().map(|(name, address)| (name, Some(address.clone())));
    let admin = ("admin", edge.proxy.admin().map(Address::from));
    let ready = app::ready(&listeners.chain([admin]).collect::<Vec<_>>());
    match (Failure::print(&ready), config.run.as_ref().map(|run| run.begin)) {
        // Nobody else serves any more; it must not end because nobody reads.
        (Err(failure), Some(Begin::Upgrade)) => tracing::warn!(%failure, "the ready line was not written"),
        (printed, _) => printed?,
    }
    notify.ready();
    // Each arm is cancel-safe, or the process comes to its end.
    let end = tokio::select! {
        () = edge.tables.follow(&edge.proxy) => End::Told(None),
        end = succession.end(&edge.proxy, &mut ends) => end,
    };
    let End::Told(mut child) = end else {
        succession.leave();
        tracing::info!("stopping: requests that run may finish; a signal ends at once");
        tokio::select! {
            () = edge.proxy.hand_over(config.drain) => {}
            () = ends.told() => tracing::warn!("told to stop: ended without waiting"),
        }
        return Ok(());
    };
    notify.stopping();
    edge.proxy.announce();
    if !config.drain_delay.is_zero() {
        tracing::info!("stopping: /readyz says so, and all is served for a while; a second signal ends at once");
    }
    let ended = async {
        tokio::select! {
            () = edge.tables.follow(&edge.proxy) => {}
            () = sleep(config.drain_delay) => {}
        }
        tracing::info!("stopping: requests that run may finish; a second signal ends at once");
        edge.proxy.shutdown(config.drain).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(ended, succession::see_off(&mut child)) } => {}
        () = ends.told() => tracing::warn!("told twice: ended without waiting"),
    }
    Ok(())
}

/// Starts, alone or in place of another edge; nothing where it was told to end meanwhile.
async fn begin(
    (config, spans): (&EdgeConfig, Option<Spans>),
    passed: Vec<Listening>,
    ends: &mut Ends,
    notify: &Notify,
) -> Result<Option<(Edge, Succession)>, Failure> {
    let mut succession = Succession::new(notify.clone())?;
    let inherit = async {
        match &config.run {
            Some(run) if run.begin == Begin::Upgrade => upgrade::inherit(&run.folder).await.map(Some),
            Some(run) => door::vacant(&run.folder).await.map(|()| None),
            None => Ok(None),
        }
    };
    // A signal ends whatever is begun: nobody was told to wait for it, and a predecessor sees the line's end.
    let inheritance = tokio::select! {
        inherited = inherit => inherited?,
        () = ends.told() => return Ok(None),
    };
    let (mut sockets, ticket_keys, predecessor) = match inheritance {
        Some(Inheritance { sockets, ticket_keys, predecessor }) => (sockets, ticket_keys, Some(predecessor)),
        None => (Vec::new(), Vec::new(), None),
    };
    // Behind those of the predecessor, which are the same ones where it got them from the service manager, too.
    sockets.extend(passed);
    let started = tokio::select! {
        started = Edge::start((config, spans), (sockets, ticket_keys), notify) => started,
        () = ends.told() => return Ok(None),
    };
    let edge = match (started, &predecessor) {
        (Ok(edge), _) => edge,
        (Err(failure), Some(predecessor)) => {
            predecessor.give_up(&failure).await;
            return Err(failure);
        }
        (Err(failure), None) => return Err(failure),
    };
    if let Some(predecessor) = &predecessor {
        let relieved = tokio::select! {
            relieved = predecessor.relieve() => relieved.map(Some),
            () = ends.told() => Ok(None),
        };
        if !matches!(relieved, Ok(Some(()))) {
            tokio::select! {
                () = edge.proxy.shutdown(config.drain) => {}
                () = ends.told() => tracing::warn!("told to stop: ended without waiting"),
            }
            return relieved.map(|_| None);
        }
        tracing::info!(pid = predecessor.pid, "serving in place of another process");
    }
    edge.proxy.alone();
    if let Some(run) = &config.run {
        match (Door::open(&run.folder), &predecessor) {
            (Ok(door), _) => succession.open(run.clone(), door),
            // Nobody else serves any more.
            (Err(failure), Some(_)) => tracing::error!(%failure, "no other process can take over from this one"),
            (Err(failure), None) => return Err(failure),
        }
    }
    Ok(Some((edge, succession)))
}

/// A proxy that serves files.
struct Edge {
    proxy: Proxy,
    tables: Tables,
}

/// What is read from files and goes to the proxy.
struct Tables {
    files: Files,
    table: Table,
    updates: mpsc::Sender<Update>,
    reports: mpsc::Receiver<Report>,
    hang_up: tokio::signal::unix::Signal,
    notify: Notify,
}

impl Edge {
    async fn start(
        (config, spans): (&EdgeConfig, Option<Spans>),
        (sockets, ticket_keys): (Vec<Listening>, Vec<OwnTicketKey>),
        notify: &Notify,
    ) -> Result<Self, Failure> {
        let mut files = Files::new(config.table.clone(), config.certificate.clone(), config.ticket_keys.clone());
        // Looked at before anything listens: whoever starts it sees at once what is wrong. On a thread of its own, since a
        // disk may hang, and signals count all the same.
        let reading = tokio::task::spawn_blocking(move || {
            let first = files.load(&Table::default());
            (files, first)
        });
        let (files, first) =
            reading.await.map_err(|error| Failure::new(Exit::Software, "cannot start").because(&error))?;
        let first = first.map_err(Failure::from)?;
        app::raise_descriptors();
        let (updates, taken) = mpsc::channel(CHANNEL);
        let (said, reports) = mpsc::channel(CHANNEL);
        let mut proxy = Proxy::adopt(ProxyConfig { spans, ..proxy_config(config)? }, sockets, taken, said)
            .map_err(|error| app::no_edge(&error))?;
        proxy.inherit_ticket_keys(&ticket_keys);
        drop(ticket_keys);
        let hang_up = ends::listen(SignalKind::hangup())?;
        let mut tables = Tables { files, table: Table::default(), updates, reports, hang_up, notify: notify.clone() };
        tables.offer(&proxy, first).await;
        let applied = async {
            while let Some(report) = tables.reports.recv().await {
                if matches!(report, Report::Acked { .. }) {
                    return;
                }
            }
        };
        timeout(READY, applied).await.map_err(|_| Failure::new(Exit::Software, "the table was not applied in time"))?;
        // A predecessor stops when it hears that this one is ready: somebody has to accept at any moment.
        let accepting = timeout(READY, proxy.accepting());
        accepting.await.map_err(|_| Failure::new(Exit::Software, "not every worker serves in time"))?;
        Ok(Self { proxy, tables })
    }
}

impl Tables {
    /// Looks at the files again and again. Reports have nobody to go to but the log, which the edge itself keeps.
    async fn follow(&mut self, proxy: &Proxy) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What cannot be read is tried again each time, and told once.
        let mut told = String::new();
        loop {
            // Each arm is cancel-safe.
            let asked = tokio::select! {
                Some(_) = self.reports.recv() => continue,
                _ = look.tick() => false,
                _ = self.hang_up.recv() => true,
            };
            if asked {
                self.notify.reloading();
            }
            if asked || self.files.changed() {
                match self.files.load(&self.table) {
                    Ok(loaded) => {
                        told.clear();
                        self.offer(proxy, loaded).await;
                    }
                    Err(error) => {
                        let why = format!("{error:?}");
                        if asked || why != told {
                            tracing::error!(
                                error = &error as &dyn std::error::Error,
                                "the files are not taken; what was served goes on"
                            );
                        }
                        told = why;
                    }
                }
            }
            if asked {
                self.notify.ready();
            }
        }
    }

    async fn offer(&mut self, proxy: &Proxy, loaded: Loaded) {
        if let Some(pair) = loaded.certificate {
            proxy.fall_back(&pair);
        }
        if let Some(keys) = loaded.ticket_keys {
            proxy.tickets(&keys);
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
    let listener = |said: &ListenerConfig| {
        let said = said.clone();
        Ok(Listener {
            name: said.name,
            address: said.address,
            protocol: said.protocol,
            http2: said.http2,
            clients: said.client_ca.as_deref().map(files::clients).transpose()?,
            proxy_protocol_from: said.proxy_protocol_from,
            trust_forwarded_from: said.trust_forwarded_from,
            limits: said.limits,
        })
    };
    let sticky_secret = config.cookie_key.as_deref().map(files::cookie_key).transpose()?;
    Ok(ProxyConfig {
        listeners: config.listeners.iter().map(listener).collect::<Result<_, Failure>>()?,
        admin: config.admin,
        workers: config.workers,
        access_log: config.access_log.clone(),
        spans: None,
        sticky_secret,
        name: config.name.0.clone(),
        region: config.name.1.clone(),
        limits: Limits { memory: config.memory, ..config.limits.over(&Limits::default()) },
    })
}
