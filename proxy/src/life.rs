//! The life of a proxy: bind, serve, drain, end. Every thread is started here, and none outlives its proxy.

mod background;
mod start;
mod threads;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use dormouse_link::{Report, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::access::{AccessLog, Output, Owner};
use crate::config::{Address, Config};
use crate::drain::{Drain, Phase};
use crate::front::listen::accept::Entrance;
use crate::front::listen::sockets::{Listening, Sockets};
use crate::front::tls::{KeyPair, OwnTicketKey, TicketKeys};
use threads::Threads;

/// A running data plane.
pub struct Proxy {
    listeners: Vec<Bound>,
    admin: Option<Sockets>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<Stop>,
    stopping: watch::Sender<bool>,
    /// The workers first, then the feed, then the access log.
    workers: Threads,
    feed: Threads,
    /// Ends when every worker accepts.
    all_begun: mpsc::Receiver<Infallible>,
    access: AccessLog,
    writer: Option<JoinHandle<()>>,
}

/// A listener that is bound.
struct Bound {
    name: String,
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
        listener: String,
        /// Where it was to listen.
        address: Address,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("open the access log{}", .output.as_ref().map(|output| format!(", {output}")).unwrap_or_default())]
    AccessLog {
        /// What it was to be written to.
        output: Option<Output>,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is nothing to make keys of.
    #[error("get random bytes for the key of cookies")]
    Randomness,
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
        start::start(config, Vec::new(), updates, reports)
    }

    /// The same with sockets of a proxy that still runs: those at addresses of `config` are adopted, and the others let go.
    /// Until [`Proxy::alone`], the other one may write the same access log.
    pub fn adopt(
        config: Config,
        sockets: Vec<Listening>,
        updates: mpsc::Receiver<Update>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Self, StartError> {
        start::start(config, sockets, updates, reports)
    }

    /// Returns when every worker accepts, which is some moments after the first update was applied: until then, connections
    /// wait, or are another process's that has the same sockets. Cancel-safe.
    pub async fn accepting(&mut self) {
        let _all_dropped = self.all_begun.recv().await;
    }

    /// All listening sockets, the admin listener's too, for another process to serve on. Both may accept from then on.
    pub fn sockets(&self) -> io::Result<Vec<Listening>> {
        let listeners = self.listeners.iter().map(|bound| bound.sockets.duplicate(&bound.name));
        listeners.chain(self.admin.iter().map(|admin| admin.duplicate("admin"))).collect()
    }

    /// Hears that it has the files to itself: those of Unix sockets, and the access log but for what the other one adds at its end.
    pub fn alone(&self) {
        self.listeners.iter().for_each(|bound| bound.sockets.own_file());
        self.access.owned_by(Owner::This);
    }

    /// Hears that the one that took its sockets is to be alone; when this returns, it may be.
    pub fn step_back(&self) {
        self.listeners.iter().for_each(|bound| bound.sockets.leave_file());
        self.access.owned_by(Owner::Another);
    }

    /// Where a listener is, by its name.
    pub fn at(&self, listener: &str) -> Option<&Address> {
        self.listeners.iter().find(|bound| bound.name == listener).map(|bound| &bound.sockets.address)
    }

    /// The same of one that is no Unix socket.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.at(listener).and_then(Address::ip)
    }

    /// Where all listeners are, with their names.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &Address)> {
        self.listeners.iter().map(|bound| (bound.name.as_str(), &bound.sockets.address))
    }

    /// Sets what every listener with TLS offers, from now on, to names that no certificate was published for.
    pub fn fall_back(&self, pair: &KeyPair) {
        for tls in self.listeners.iter().filter_map(|bound| bound.entrance.tls.as_ref()) {
            tls.fall_back(pair.clone());
        }
    }

    /// Seals session tickets with these keys from now on, in place of those that were given before. Without any that is in
    /// use, a proxy makes its own.
    pub fn tickets(&self, keys: &TicketKeys) {
        for tls in self.listeners.iter().filter_map(|bound| bound.entrance.tls.as_ref()) {
            tls.tickets().give(keys, SystemTime::now());
        }
    }

    /// The secrets that it made itself for session tickets, so that a successor resumes what was begun here.
    pub fn own_ticket_keys(&self) -> Vec<OwnTicketKey> {
        let of_listener = |bound: &Bound| {
            let keys = bound.entrance.tls.as_ref().map(|tls| tls.tickets().own()).unwrap_or_default();
            keys.into_iter().map(|key| OwnTicketKey { listener: bound.name.to_owned(), key }).collect::<Vec<_>>()
        };
        self.listeners.iter().flat_map(of_listener).collect()
    }

    /// Takes over the secrets of the proxy whose sockets it was started with; before it gets its first table, so that none of its
    /// own was used. A ticket counts for its own listener and policy alone, as ever.
    pub fn inherit_ticket_keys(&self, keys: &[OwnTicketKey]) {
        for bound in &self.listeners {
            let Some(tls) = &bound.entrance.tls else { continue };
            let own = keys.iter().filter(|own| own.listener == bound.name).map(|own| own.key.clone());
            tls.tickets().inherit(own, SystemTime::now());
        }
    }

    /// Where the admin listener is.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.address.ip())
    }

    /// Says from now on, in `/readyz`, that it will end; all is served as before.
    pub fn announce(&self) {
        self.phase.send_replace(Phase::Announced);
    }

    /// Accepts nothing more, lets running requests finish for at most `deadline`, and returns when every thread has ended
    /// and the access log is written.
    pub async fn shutdown(self, deadline: Duration) {
        self.end(Drain::stop(deadline)).await;
    }

    /// The same when a successor accepts on the same sockets.
    pub async fn hand_over(self, deadline: Duration) {
        self.step_back();
        self.end(Drain::handed_over(deadline)).await;
    }

    async fn end(mut self, drain: Drain) {
        let now = Instant::now();
        self.phase.send_replace(Phase::Ending(now, drain));
        self.stopping.send_replace(true);
        self.stop.send_replace(Stop::At(now + drain.deadline()));
        // Each worker drops its part of them when it accepts no more, and so they close.
        self.listeners.clear();
        self.admin = None;
        std::mem::replace(&mut self.workers, Threads::new()).ended().await;
        // The feed ends after them: it serves the admin listener, and says what was drained.
        self.stop.send_replace(Stop::At(Instant::now()));
        std::mem::replace(&mut self.feed, Threads::new()).ended().await;
        self.access.close();
        threads::join(self.writer.take().into_iter().collect());
    }
}

/// A proxy that is dropped without a shutdown ends at once.
impl Drop for Proxy {
    fn drop(&mut self) {
        let now = Instant::now();
        self.phase.send_if_modified(|phase| {
            let dropped = !matches!(phase, Phase::Ending(..));
            if dropped {
                *phase = Phase::Ending(now, Drain::stop(Duration::ZERO));
            }
            dropped
        });
        self.stopping.send_replace(true);
        self.stop.send_replace(Stop::At(now));
    }
}
