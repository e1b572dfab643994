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
use crate::config::{Address, Config, Limits, Listener, Protocol};
use crate::descriptors::{self, Shares};
use crate::dice::Dice;
use crate::edge::Edge;
use crate::front::listen::accept::Entrance;
use crate::front::listen::balance::Balance;
use crate::front::listen::budget::Budget;
use crate::front::listen::sockets::{Listening, SOCKETS_PER_LISTENER, Sockets};
use crate::front::listen::worker::{Duty, block_on, work};
use crate::front::tls::tickets::{self, Tickets};
use crate::front::tls::{KeyPair, TicketKeys, Tls, TlsError};
use crate::live::Live;
use crate::live::feed::Feed;
use crate::live::signals::{Heard, Signals};
use crate::quiet::Quiet;

/// A running data plane.
pub struct Proxy {
    listeners: Vec<Bound>,
    admin: Option<Sockets>,
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
    sockets: Sockets,
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
        address: Address,
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
        Self::adopt(config, Vec::new(), updates, reports)
    }

    /// The same on the sockets of another process, where they are what the configuration asks for; others are bound, and
    /// what is not asked for is closed.
    pub fn adopt(
        config: Config,
        mut inherited: Vec<Listening>,
        updates: mpsc::Receiver<Update>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Self, StartError> {
        let workers = config.workers.max(1);
        let live = Arc::new(Live::new());
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in config.listeners {
            listeners.push(Bound::open(listener, &live, &mut inherited)?);
        }
        let admin = config.admin.map(|address| open("admin", &address.into(), 1, &mut inherited)).transpose()?;
        let (access, access_thread) = open_access_log(config.access_log, &config.limits)?;
        let mut limits = config.limits;
        let all = || listeners.iter().map(|bound| &bound.sockets).chain(&admin);
        let (allowed, listening) = (descriptors::allowed(), all().map(|sockets| sockets.all.len()).sum());
        let Shares { connections, pooled } = descriptors::share(allowed, listening, workers, &limits);
        tracing::info!(connections, descriptors = allowed, "as many connections are served at a time");
        limits.pooled = pooled;
        let budget = Budget::new(&limits, connections);
        let (balance, arrivals) = Balance::new(workers);
        let quiet = Arc::new(Quiet::default());
        let (stop, stop_heard) = watch::channel(Stop::No);
        let (stopping, stopping_heard) = watch::channel(false);
        let (ready, ready_heard) = watch::channel(false);
        let (signals, heard) = Signals::new();
        let limits = Arc::new(limits);
        let edge = || {
            Arc::new(Edge {
                limits: Arc::clone(&limits),
                live: Arc::clone(&live),
                signals: Arc::clone(&signals),
                access: access.clone(),
                dice: Dice::default(),
                budget: Arc::clone(&budget),
                balance: Arc::clone(&balance),
                quiet: Arc::clone(&quiet),
                ready: ready_heard.clone(),
                stopping: stopping_heard.clone(),
            })
        };
        let admin_listener = match admin.as_ref().and_then(|admin| Some((admin, admin.all.first()?))) {
            None => None,
            Some((admin, socket)) => {
                let bind = |source| StartError::Bind { listener: "admin", address: admin.address.clone(), source };
                Some(socket.try_clone().map_err(bind)?.into())
            }
        };
        let mut proxy = Self {
            listeners,
            admin,
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
            admin: admin_listener,
            tickets: tickets.collect(),
            updates,
            reports,
            heard,
            ready,
            stop: stop_heard.clone(),
        };
        proxy.feed.start("dormouse-feed".into(), move || background.run())?;
        for (number, arrivals) in arrivals.into_iter().enumerate() {
            let of_worker = |bound: &Bound| {
                let sockets: Vec<_> = bound.sockets.of_worker(number, workers).map(Arc::clone).collect();
                let entrance = Arc::clone(&bound.entrance);
                sockets.into_iter().map(move |socket| (socket, Arc::clone(&entrance)))
            };
            let listeners = proxy.listeners.iter().flat_map(of_worker).collect();
            let duty = Duty { number, workers, listeners, arrivals, balance: Arc::clone(&balance) };
            let (edge, stop) = (edge(), stop_heard.clone());
            proxy.workers.start(format!("dormouse-edge-{number}"), move || work(duty, &edge, &stop))?;
        }
        Ok(proxy)
    }

    /// Where a listener is, by its name.
    pub fn at(&self, listener: &str) -> Option<&Address> {
        self.listeners.iter().find(|bound| bound.name == listener).map(|bound| &bound.sockets.address)
    }

    /// The same of one that is no Unix socket.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.at(listener).and_then(Address::ip)
    }

    /// All listening sockets, the admin listener's too, for another process to serve on. Both may accept from then on.
    pub fn sockets(&self) -> io::Result<Vec<Listening>> {
        let listeners = self.listeners.iter().map(|bound| bound.sockets.duplicate(bound.name));
        listeners.chain(self.admin.iter().map(|admin| admin.duplicate("admin"))).collect()
    }

    /// Leaves the files of Unix sockets to whoever listens there now.
    pub fn leave_files(&mut self) {
        self.listeners.iter_mut().for_each(|bound| bound.sockets.leave_file());
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
        self.admin.as_ref().and_then(|admin| admin.address.ip())
    }

    /// Accepts nothing more, lets running requests finish for at most `deadline`, and returns when every thread has ended
    /// and the access log is written.
    pub async fn shutdown(mut self, deadline: Duration) {
        let at = Instant::now() + deadline;
        self.stopping.send_replace(true);
        self.stop.send_replace(Stop::At(at));
        // Each worker drops its part of them when it accepts no more, and so they close.
        self.listeners.clear();
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

impl Bound {
    fn open(listener: Listener, live: &Arc<Live>, inherited: &mut Vec<Listening>) -> Result<Self, StartError> {
        let sockets = open(listener.name, &listener.address, SOCKETS_PER_LISTENER, inherited)?;
        let no_tls = |error: TlsError| StartError::Tls(error.into());
        let tls = match listener.protocol {
            Protocol::Plain => None,
            Protocol::Tls => Some(Tls::new(live, &listener).map_err(no_tls)?),
        };
        let Listener { name, http2, proxy_protocol_from, trust_forwarded_from, .. } = listener;
        let entrance =
            Arc::new(Entrance { tls, http2, proxy_protocol_from, trust_forwarded_from: trust_forwarded_from.into() });
        Ok(Self { name, sockets, entrance })
    }
}

fn open(
    listener: &'static str,
    address: &Address,
    count: usize,
    inherited: &mut Vec<Listening>,
) -> Result<Sockets, StartError> {
    let failed = |source| StartError::Bind { listener, address: address.clone(), source };
    Sockets::open(listener, address, count, inherited).map_err(failed)
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
