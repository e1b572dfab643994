//! The begin of a proxy: every address is bound or adopted, then every thread started; or nothing is.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use dormouse_link::{Report, Update};
use tokio::sync::{mpsc, watch};

use super::background::Background;
use super::threads::Threads;
use super::{Bound, Proxy, StartError, Stop};
use crate::access::{AccessLog, Owner};
use crate::config::{Config, Protocol};
use crate::dice::Dice;
use crate::drain::Phase;
use crate::edge::Edge;
use crate::front::inherit::Sockets;
use crate::front::listen::{Entrance, Socket, bind, work};
use crate::front::tls::{Fallback, Tls};
use crate::live::Live;
use crate::live::signals::Signals;
use crate::quiet::Quiet;

pub(super) fn start(
    config: Config,
    mut inherited: Sockets,
    updates: mpsc::Receiver<Update>,
    reports: mpsc::Sender<Report>,
) -> Result<Proxy, StartError> {
    let count = config.workers.max(1);
    let live = Arc::new(Live::new());
    let owner = if inherited.is_empty() { Owner::This } else { Owner::Another };
    let mut listeners = Vec::with_capacity(config.listeners.len());
    let mut workers: Vec<Vec<Socket>> = std::iter::repeat_with(Vec::new).take(count).collect();
    for listener in &config.listeners {
        let sockets = listen(listener.name, listener.address, count, &mut inherited)?;
        let address = super::address(&sockets).unwrap_or(listener.address);
        let fallback = Arc::new(Fallback::empty());
        let tls = match listener.protocol {
            Protocol::Plain => None,
            Protocol::Tls => Some(Tls::new(&live, &fallback, listener.http2).map_err(StartError::Tls)?),
        };
        let entrance = Arc::new(Entrance { tls, http2: listener.http2 });
        // Of a predecessor with more workers there are more sockets than workers, of one with less some are shared.
        for at in 0..sockets.len().max(count) {
            let listener = Arc::clone(&sockets[at % sockets.len()]);
            workers[at % count].push(Socket { listener, entrance: Arc::clone(&entrance) });
        }
        listeners.push(Bound { name: listener.name, address, fallback, sockets });
    }
    let admin = config.admin.map_or(Ok(Vec::new()), |address| listen("admin", address, 1, &mut inherited))?;
    let (access, writer) = AccessLog::start(config.access_log.clone(), &config.limits, owner)
        .map_err(|source| StartError::AccessLog { path: config.access_log.unwrap_or_default(), source })?;
    let (stop, stop_heard) = watch::channel(Stop::No);
    let (stopping, stopping_heard) = watch::channel(false);
    let (phase, phase_heard) = watch::channel(Phase::Serving);
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
            phase: phase_heard.clone(),
        })
    };
    let accepting = admin.first().map(|socket| socket.try_clone()).transpose().map_err(StartError::Thread)?;
    let background =
        Background { edge: edge(), admin: accepting, updates, reports, heard, ready, stop: stop_heard.clone() };
    let edges: Vec<_> = workers.iter().map(|_| edge()).collect();
    let mut proxy = Proxy {
        listeners,
        admin,
        phase,
        stop,
        stopping,
        workers: Threads::new(),
        feed: Threads::new(),
        access,
        writer,
    };
    proxy.feed.start("dormouse-feed".into(), move || background.run())?;
    for (number, (sockets, edge)) in workers.into_iter().zip(edges).enumerate() {
        let stop = stop_heard.clone();
        proxy.workers.start(format!("dormouse-edge-{number}"), move || work(sockets, &edge, &stop))?;
    }
    Ok(proxy)
}

fn listen(
    listener: &'static str,
    address: SocketAddr,
    count: usize,
    inherited: &mut Sockets,
) -> Result<Vec<Arc<TcpListener>>, StartError> {
    let mut sockets = inherited.take(listener, address);
    if sockets.is_empty() {
        sockets = bind(address, count).map_err(|source| StartError::Bind { listener, address, source })?;
    }
    Ok(sockets.into_iter().map(Arc::new).collect())
}
