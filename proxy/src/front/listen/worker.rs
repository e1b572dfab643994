//! The life of a worker thread: serves until told to stop, and again after a panic.
//!
//! Its listening sockets, and what other workers handed to it, outlive a panic: it is started anew on the same ones, so that
//! nothing in their queues is lost.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::error;

use super::accept::{Entrance, Reception, accept};
use super::balance::{Arrival, Balance};
use super::handshakes::Handshakes;
use super::sockets::BACKLOG;
use crate::edge::Edge;
use crate::front::Worker;
use crate::lane::pingora::proxy;
use crate::life::Stop;

/// Until a worker that failed is started again.
const RESTART: Duration = Duration::from_secs(1);

/// What a worker serves.
pub(crate) struct Duty {
    pub(crate) number: usize,
    pub(crate) workers: usize,
    pub(crate) listeners: Vec<(Arc<Socket>, Arc<Entrance>)>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) balance: Arc<Balance>,
    /// Dropped when it accepts for the first time, which is how that is heard.
    pub(crate) begun: Option<mpsc::Sender<Infallible>>,
}

/// See the module.
pub(crate) fn work(mut duty: Duty, edge: &Arc<Edge>, stop: &watch::Receiver<Stop>) {
    again_and_again(stop, || block_on(run(&mut duty, Arc::clone(edge), stop.clone()))?);
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
        std::thread::park_timeout(RESTART);
    }
}

/// Runs a future on a runtime for this thread alone. Not in a `LocalSet`: there each wake from outside of it, as by a socket,
/// takes a lock and writes to the thread's event descriptor.
pub(crate) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    Ok(runtime.block_on(future))
}

async fn run(duty: &mut Duty, edge: Arc<Edge>, mut stop: watch::Receiver<Stop>) -> io::Result<()> {
    // Made before it is waited for, since it takes its time, in which nobody would accept.
    let lane = proxy(&edge.limits);
    // Bound early, served late: until the first table was applied, connections wait in the sockets' queues.
    let mut ready = edge.ready.clone();
    tokio::select! {
        _ = ready.wait_for(|ready| *ready) => {}
        _ = stop.wait_for(Stop::is_asked) => return Ok(()),
    }
    // Each connection holds a clone until it ends.
    let (running, ended) = watch::channel(());
    let _alive = edge.metrics.alive();
    let handshakes = Handshakes::new(edge.limits.handshakes.div_ceil(duty.workers));
    let worker = Rc::new(Worker { lane, edge });
    let reception = Rc::new(Reception {
        worker,
        number: duty.number,
        balance: Arc::clone(&duty.balance),
        handshakes,
        stop: stop.clone(),
        running: ended,
    });
    let mut accepting = JoinSet::new();
    for (socket, entrance) in &duty.listeners {
        accepting.spawn_local(accept(listener(socket)?, Arc::clone(entrance), Rc::clone(&reception)));
    }
    // The kernel tells it of connections from now on.
    duty.begun = None;
    // Accepting ends only by a panic; dropping it loses nothing that was accepted, nor does dropping a receive.
    let stop = loop {
        tokio::select! {
            Some(Err(panicked)) = accepting.join_next() => std::panic::resume_unwind(panicked.into_panic()),
            Some(arrival) = duty.arrivals.recv() => reception.take(arrival),
            stop = stop.wait_for(Stop::is_asked) => break stop.map(|stop| *stop).unwrap_or(Stop::At(Instant::now())),
        }
    };
    accepting.shutdown().await;
    // If nobody else holds a socket, who waits in its queue would be reset with its end.
    for (socket, entrance) in &duty.listeners {
        for _ in 0..BACKLOG {
            let Ok((accepted, peer)) = socket.accept() else { break };
            reception.sort(accepted, peer.as_socket(), entrance);
        }
    }
    duty.listeners.clear();
    // Whoever hands something over from now on gets it back; what was handed over before is served.
    duty.arrivals.close();
    while let Some(arrival) = duty.arrivals.recv().await {
        reception.take(arrival);
    }
    drop(reception);
    if let Stop::At(deadline) = stop {
        let _ = tokio::time::timeout_at(deadline, running.closed()).await;
    }
    Ok(())
}

/// A listening socket on this thread's runtime. Not a `TcpListener` of tokio's, which would need a descriptor of its own.
#[expect(deprecated, reason = "sound here: a `Socket` keeps its descriptor until its last `Arc` is dropped")]
fn listener(socket: &Arc<Socket>) -> io::Result<AsyncFd<Arc<Socket>>> {
    AsyncFd::with_interest(Arc::clone(socket), Interest::READABLE)
}

#[cfg(test)]
mod tests;
