//! Listening sockets and the worker threads behind them.
//!
//! Each worker is a thread with a runtime, sockets, a Pingora proxy and pools of its own; a connection stays on the worker
//! that the kernel gave it to. Listening sockets outlive a worker that panicked: it is started anew on the same ones, so that
//! nothing in their queues is lost.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use super::conn::Transport;
use super::tls::Tls;
use super::{Worker, serve};
use crate::config::Http2;
use crate::decide::headers::{Facts, Scheme};
use crate::edge::Edge;
use crate::lane::pingora::proxy;
use crate::life::Stop;

/// Connections that wait to be accepted, per socket.
const BACKLOG: i32 = 4096;
/// After a failed accept, growing to the second: the failure is mostly a lack of descriptors, which passes.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Binds `count` sockets to one address; port 0 takes a free one.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // Shared ports of one user do not exclude each other: another proxy there would get half of the visitors.
        socket(address)?.bind(&address.into())?;
    }
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        let bound = match listeners.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        socket.bind(&bound.into())?;
        socket.listen(BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What the connections of one listener have in common.
pub(crate) struct Entrance {
    /// Where TLS is spoken.
    pub(crate) tls: Option<Tls>,
    pub(crate) http2: Http2,
}

/// One listening socket of a worker.
pub(crate) struct Socket {
    pub(crate) listener: TcpListener,
    pub(crate) entrance: Arc<Entrance>,
}

/// The life of a worker thread: serves until told to stop, and again after a panic.
pub(crate) fn work(mut sockets: Vec<Socket>, edge: &Arc<Edge>, stop: &watch::Receiver<Stop>) {
    again_and_again(stop, || block_on(run(&mut sockets, Arc::clone(edge), stop.clone()))?);
}

/// Calls `serve` until it ends well or there is nothing more to serve.
fn again_and_again(stop: &watch::Receiver<Stop>, mut serve: impl FnMut() -> io::Result<()>) {
    loop {
        match std::panic::catch_unwind(AssertUnwindSafe(&mut serve)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error!(%error, "a worker could not serve"),
            Err(_) => error!("a worker panicked"),
        }
        if stop.borrow().is_asked() {
            return;
        }
        std::thread::park_timeout(ACCEPT_BACKOFF.1);
    }
}

/// Runs a future on a runtime for this thread alone.
pub(crate) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

async fn run(sockets: &mut Vec<Socket>, edge: Arc<Edge>, mut stop: watch::Receiver<Stop>) -> io::Result<()> {
    // Bound early, served late: until the first table was applied, connections wait in the sockets' queues.
    let mut ready = edge.ready.clone();
    tokio::select! {
        _ = ready.wait_for(|ready| *ready) => {}
        _ = stop.wait_for(Stop::is_asked) => return Ok(()),
    }
    let worker = Rc::new(Worker { lane: proxy(&edge.limits), edge });
    // Each connection holds a clone until it ends.
    let (running, ended) = watch::channel(());
    let mut accepting = JoinSet::new();
    for socket in sockets.iter() {
        let listener = socket.listener.try_clone().and_then(tokio::net::TcpListener::from_std)?;
        accepting.spawn_local(accept(listener, Arc::clone(&socket.entrance), Rc::clone(&worker), ended.clone()));
    }
    // Accepting ends only by a panic; dropping it loses nothing that was accepted.
    let stop = tokio::select! {
        Some(Err(panicked)) = accepting.join_next() => std::panic::resume_unwind(panicked.into_panic()),
        stop = stop.wait_for(Stop::is_asked) => stop.map(|stop| *stop).unwrap_or(Stop::At(Instant::now())),
    };
    accepting.shutdown().await;
    sockets.clear();
    drop(ended);
    if let Stop::At(deadline) = stop {
        let _ = tokio::time::timeout_at(deadline, running.closed()).await;
    }
    Ok(())
}

async fn accept(
    listener: tokio::net::TcpListener,
    entrance: Arc<Entrance>,
    worker: Rc<Worker>,
    running: watch::Receiver<()>,
) {
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = worker.edge.quiet.say(worker.edge.signals.now()) {
                    warn!(%error, left_out, "a connection could not be accepted");
                }
                sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
                continue;
            }
        };
        backoff = ACCEPT_BACKOFF.0;
        let (worker, entrance, running) = (Rc::clone(&worker), Arc::clone(&entrance), running.clone());
        tokio::task::spawn_local(async move {
            connection(&worker, stream, client, &entrance).await;
            drop(running);
        });
    }
}

async fn connection(worker: &Rc<Worker>, stream: TcpStream, client: SocketAddr, entrance: &Entrance) {
    let Ok(local) = stream.local_addr() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let scheme = if entrance.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let facts = Facts { client, port: local.port(), scheme };
    let transport = match &entrance.tls {
        None => Transport::Plain(stream),
        Some(tls) => match timeout(worker.edge.limits.tls_handshake, Box::pin(tls.accept(stream))).await {
            Ok(Ok(stream)) => Transport::Tls(Box::new(stream)),
            Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
            Err(_) => return debug!("TLS handshake took too long"),
        },
    };
    serve(worker, transport, facts, entrance.http2).await;
}

#[cfg(test)]
mod tests;
