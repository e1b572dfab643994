//! The life of a proxy: bind, serve, drain, end. Every thread is started here, and none outlives its proxy.

mod background;
mod start;
mod threads;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use dormouse_link::{Report, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::access::{AccessLog, Owner};
use crate::config::Config;
use crate::drain::{Drain, Phase};
use crate::front::inherit::Sockets;
use crate::front::tls::{self, Fallback, KeyPair};
use threads::Threads;

/// A running data plane.
pub struct Proxy {
    listeners: Vec<Bound>,
    admin: Vec<Arc<TcpListener>>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<Stop>,
    stopping: watch::Sender<bool>,
    /// The workers first, then the feed, then the access log.
    workers: Threads,
    feed: Threads,
    access: AccessLog,
    writer: Option<JoinHandle<()>>,
}

/// A listener that is bound.
struct Bound {
    name: &'static str,
    address: SocketAddr,
    fallback: Arc<Fallback>,
    sockets: Vec<Arc<TcpListener>>,
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
    Tls(#[source] rustls::Error),
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
        start::start(config, Sockets::default(), updates, reports)
    }

    /// The same with sockets of a proxy that still runs: those at addresses of `config` are adopted, and the others let go.
    /// Until [`Proxy::alone`], the other one may write the same access log.
    pub fn succeed(
        config: Config,
        sockets: Sockets,
        updates: mpsc::Receiver<Update>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Self, StartError> {
        start::start(config, sockets, updates, reports)
    }

    /// Everything it listens with, for a successor. It goes on accepting.
    pub fn sockets(&self) -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for bound in &self.listeners {
            sockets.share(bound.name, &bound.sockets)?;
        }
        sockets.share("admin", &self.admin)?;
        Ok(sockets)
    }

    /// Hears that no other proxy writes to its files any more, but for what that one adds to the access log at its end.
    pub fn alone(&self) {
        self.access.owned_by(Owner::This);
    }

    /// Hears that the one that took its sockets is to be alone; when this returns, it may be.
    pub fn step_back(&self) {
        self.access.owned_by(Owner::Another);
    }

    /// Where a listener is, by its name.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|bound| bound.name == listener).map(|bound| bound.address)
    }

    /// Sets what a listener offers, from now on, to names that no certificate was published for.
    pub fn fall_back(&self, listener: &str, pair: KeyPair) {
        if let Some(bound) = self.listeners.iter().find(|bound| bound.name == listener) {
            tls::fall_back(&bound.fallback, pair);
        }
    }

    /// Where the admin listener is.
    pub fn admin(&self) -> Option<SocketAddr> {
        address(&self.admin)
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
        self.listeners.clear();
        self.admin.clear();
        self.phase.send_replace(Phase::Ending(now, drain));
        self.stopping.send_replace(true);
        self.stop.send_replace(Stop::At(now + drain.deadline()));
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

fn address(sockets: &[Arc<TcpListener>]) -> Option<SocketAddr> {
    sockets.first().and_then(|socket| socket.local_addr().ok())
}
