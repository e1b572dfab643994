//! The life of a proxy: bind, serve, drain, end. Every thread is started here, and none outlives its proxy.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime};

use dormouse_link::{Report, Table, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::access::AccessLog;
use crate::admin;
use crate::config::{Config, Limits, Protocol};
use crate::dice::Dice;
use crate::edge::Edge;
use crate::front::listen::{Entrance, Socket, bind, block_on, work};
use crate::front::tls::tickets::{self, Tickets};
use crate::front::tls::{KeyPair, TicketKeys, Tls, TlsError};
use crate::live::Live;
use crate::live::feed::Feed;
use crate::live::signals::{Heard, Signals};
use crate::quiet::Quiet;

/// A running data plane.
pub struct Proxy {
    listeners: Vec<Bound>,
    admin: Option<SocketAddr>,
    stop: watch::Sender<Stop>,
    stopping: watch::Sender<bool>,
    /// The workers first, then the feed, then the access log.
    workers: Threads,
    feed: Threads,
    access: Option<JoinHandle<()>>,
}

/// A listener that is bound.
struct Bound {
    name: &'static str,
    address: SocketAddr,
    entrance: Arc<Entrance>,
}

/// Why a proxy did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listen for {listener} on {address}")]
    Bind {
        /// Which listener: `http`, `https` or `admin`.
        listener: &'static str,
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("open the access log {path}")]
    AccessLog {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A thread cannot be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// Whether somebody else listens there already.
    pub fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

/// Whether, and until when, a worker is to come to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    No,
    At(Instant),
}

impl Stop {
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self, Self::At(_))
    }
}

/// Threads that hold a sender until they end.
struct Threads {
    threads: Vec<JoinHandle<()>>,
    running: mpsc::Sender<Infallible>,
    ended: mpsc::Receiver<Infallible>,
}

impl Threads {
    fn new() -> Self {
        let (running, ended) = mpsc::channel(1);
        Self { threads: Vec::new(), running, ended }
    }

    fn start(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let running = self.running.clone();
        let thread = Builder::new().name(name).spawn(move || {
            run();
            drop(running);
        });
        self.threads.push(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    /// Waits until all have ended, which they were told before.
    async fn ended(mut self) {
        drop(self.running);
        let _ = self.ended.recv().await;
        join(self.threads);
    }
}

/// Threads that have come to their last lines.
fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // It reported its own panic; there is nothing more to do about it here.
        let _ = thread.join();
    }
}

impl Proxy {
    /// Binds every address, and serves as soon as the first update was applied; until then, connections wait.
    ///
    /// `updates` come from one control plane. `reports` may be left unread for a while: what repeats is dropped, what does
    /// not is kept.
    pub fn start(
        config: Config,
        updates: mpsc::Receiver<Update>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Self, StartError> {
        let workers = config.workers.max(1);
        let live = Arc::new(Live::new());
        let mut listeners = Vec::with_capacity(config.listeners.len());
        let mut sockets: Vec<Vec<Socket>> = std::iter::repeat_with(Vec::new).take(workers).collect();
        for listener in &config.listeners {
            let bound = listen(listener.name, listener.address, workers)?;
            let address = address(&bound).unwrap_or(listener.address);
            let no_tls = |error: TlsError| StartError::Tls(error.into());
            let tls = match listener.protocol {
                Protocol::Plain => None,
                Protocol::Tls => Some(Tls::new(&live, listener).map_err(no_tls)?),
            };
            let entrance = Arc::new(Entrance { tls, http2: listener.http2 });
            listeners.push(Bound { name: listener.name, address, entrance: Arc::clone(&entrance) });
            for (worker, listener) in sockets.iter_mut().zip(bound) {
                worker.push(Socket { listener, entrance: Arc::clone(&entrance) });
            }
        }
        let mut admin = config.admin.map_or(Ok(Vec::new()), |address| listen("admin", address, 1))?;
        let (access, access_thread) = open_access_log(config.access_log, &config.limits)?;
        let (stop, stop_heard) = watch::channel(Stop::No);
        let (stopping, stopping_heard) = watch::channel(false);
        let (ready, ready_heard) = watch::channel(false);
        let (signals, heard) = Signals::new();
        let limits = Arc::new(config.limits);
        let quiet = Arc::new(Quiet::default());
        let edge = || {
            Arc::new(Edge {
                limits: Arc::clone(&limits),
                live: Arc::clone(&live),
                signals: Arc::clone(&signals),
                access: access.clone(),
                dice: Dice::default(),
                quiet: Arc::clone(&quiet),
                ready: ready_heard.clone(),
                stopping: stopping_heard.clone(),
            })
        };
        let mut proxy = Self {
            listeners,
            admin: address(&admin),
            stop,
            stopping,
            workers: Threads::new(),
            feed: Threads::new(),
            access: access_thread,
        };
        let tickets =
            proxy.listeners.iter().filter_map(|bound| Some(Arc::clone(bound.entrance.tls.as_ref()?.tickets())));
        let background = Background {
            edge: edge(),
            admin: admin.pop(),
            tickets: tickets.collect(),
            updates,
            reports,
            heard,
            ready,
            stop: stop_heard.clone(),
        };
        proxy.feed.start("dormouse-feed".into(), move || background.run())?;
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (edge, stop) = (edge(), stop_heard.clone());
            proxy.workers.start(format!("dormouse-edge-{number}"), move || work(sockets, &edge, &stop))?;
        }
        Ok(proxy)
    }

    /// Where a listener is, by its name.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|bound| bound.name == listener).map(|bound| bound.address)
    }

    /// Sets what a listener offers, from now on, to names that no certificate was published for.
    pub fn fall_back(&self, listener: &str, pair: KeyPair) {
        let bound = self.listeners.iter().find(|bound| bound.name == listener);
        if let Some(tls) = bound.and_then(|bound| bound.entrance.tls.as_ref()) {
            tls.fall_back(pair);
        }
    }

    /// Seals session tickets with these keys from now on, in place of those that were given before. Without any that is in
    /// use, a proxy makes its own.
    pub fn tickets(&self, keys: &TicketKeys) {
        for tls in self.listeners.iter().filter_map(|bound| bound.entrance.tls.as_ref()) {
            tls.tickets().give(keys, SystemTime::now());
        }
    }

    /// Where the admin listener is.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Accepts nothing more, lets running requests finish for at most `deadline`, and returns when every thread has ended
    /// and the access log is written.
    pub async fn shutdown(mut self, deadline: Duration) {
        let at = Instant::now() + deadline;
        self.stopping.send_replace(true);
        self.stop.send_replace(Stop::At(at));
        std::mem::replace(&mut self.workers, Threads::new()).ended().await;
        // The feed ends after them: it serves the admin listener, and says what was drained.
        self.stop.send_replace(Stop::At(Instant::now()));
        std::mem::replace(&mut self.feed, Threads::new()).ended().await;
        join(self.access.take().into_iter().collect());
    }
}

/// A proxy that is dropped without a shutdown ends at once.
impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        self.stop.send_replace(Stop::At(Instant::now()));
    }
}

fn listen(listener: &'static str, address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, StartError> {
    bind(address, count).map_err(|source| StartError::Bind { listener, address, source })
}

fn address(listeners: &[TcpListener]) -> Option<SocketAddr> {
    listeners.first().and_then(|listener| listener.local_addr().ok())
}

fn open_access_log(path: Option<PathBuf>, limits: &Limits) -> Result<(AccessLog, Option<JoinHandle<()>>), StartError> {
    let shown = path.clone().unwrap_or_default();
    AccessLog::start(path, limits).map_err(|source| StartError::AccessLog { path: shown, source })
}

/// What runs on the feed's thread.
struct Background {
    edge: Arc<Edge>,
    admin: Option<TcpListener>,
    tickets: Vec<Arc<Tickets>>,
    updates: mpsc::Receiver<Update>,
    reports: mpsc::Sender<Report>,
    heard: Heard,
    ready: watch::Sender<bool>,
    stop: watch::Receiver<Stop>,
}

impl Background {
    fn run(self) {
        let ended = block_on(async move {
            let Self { edge, admin, tickets, updates, reports, heard, ready, stop } = self;
            let table = Rc::new(RefCell::new(Table::default()));
            let feed = Feed::new(Arc::clone(&edge.live), Arc::clone(&edge.signals), Rc::clone(&table), ready);
            let limits = Arc::clone(&edge.limits);
            if let Some(listener) = admin.and_then(|listener| tokio::net::TcpListener::from_std(listener).ok()) {
                tokio::task::spawn_local(admin::serve(listener, edge, table));
            }
            tokio::task::spawn_local(tickets::turn(tickets));
            // Ends with the workers, or at once where there is no shutdown; what it was doing is worth nothing then.
            tokio::select! {
                () = feed.run(&limits, updates, reports, heard) => {}
                () = feed_stop(stop) => {}
            }
        });
        if let Err(error) = ended {
            tracing::error!(%error, "the feed could not run");
        }
    }
}

/// Resolves when the workers' deadline is over, which a shutdown brings forward to when they have ended.
async fn feed_stop(mut stop: watch::Receiver<Stop>) {
    loop {
        match *stop.borrow_and_update() {
            Stop::At(at) if at <= Instant::now() => return,
            _ => {}
        }
        if stop.changed().await.is_err() {
            return;
        }
    }
}
