//! The begin of a proxy: every address is bound or adopted, then every thread started; or nothing is.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use dormouse_link::{Report, Update};
use tokio::sync::{mpsc, watch};

use super::background::Background;
use super::threads::Threads;
use super::{Bound, Proxy, StartError, Stop};
use crate::access::{AccessLog, Owner};
use crate::checks::{Asker, Verifier};
use crate::config::{Address, Config, Limits, Listener, Protocol};
use crate::descriptors::{self, Shares};
use crate::dice::Dice;
use crate::drain::Phase;
use crate::edge::Edge;
use crate::front::listen::accept::Entrance;
use crate::front::listen::balance::Balance;
use crate::front::listen::budget::{Budget, Clients, Room};
use crate::front::listen::sockets::{Listening, SOCKETS_PER_LISTENER, Sockets};
use crate::front::listen::worker::{Duty, work};
use crate::front::tls::{Tls, TlsError};
use crate::live::Live;
use crate::live::signals::Signals;
use crate::live::sticky::{StickyKey, StickySecret};
use crate::metrics::{Door, Metrics};
use crate::overload::Overload;
use crate::quiet::Quiet;

pub(super) fn start(
    config: Config,
    mut inherited: Vec<Listening>,
    updates: mpsc::Receiver<Update>,
    reports: mpsc::Sender<Report>,
) -> Result<Proxy, StartError> {
    let workers = config.workers.max(1);
    let live = Arc::new(Live::new(sticky_key(config.sticky_secret)?));
    let owner = if inherited.is_empty() { Owner::This } else { Owner::Another };
    let clients = Clients::limited(config.limits.connections_per_client);
    let mut listeners = Vec::with_capacity(config.listeners.len());
    for listener in config.listeners {
        let limits = Arc::new(listener.limits.over(&config.limits));
        let room = Room::new(&listener.name, &listener.limits, clients.as_ref());
        listeners.push(Bound::open(listener, &live, (limits, room), &mut inherited)?);
    }
    let admin = config.admin.map(|address| open("admin", &address.into(), 1, &mut inherited)).transpose()?;
    let names = (config.name.as_str(), config.region.as_str());
    let (access, writer) = AccessLog::start(config.access_log.as_ref(), &config.limits, owner, names)
        .map_err(|source| StartError::AccessLog { output: config.access_log, source })?;
    let (mut limits, spans) = (config.limits, config.spans);
    let all = || listeners.iter().map(|bound| &bound.sockets).chain(&admin);
    let (allowed, listening) = (descriptors::allowed(), all().map(|sockets| sockets.all.len()).sum());
    let Shares { connections, pooled } = descriptors::share(allowed, listening, workers, &limits);
    tracing::info!(connections, descriptors = allowed, "as many connections are served at a time");
    limits.pooled = pooled;
    let rooms = listeners.iter().map(|bound| Arc::clone(&bound.entrance.room)).collect();
    let budget = Budget::new(connections, rooms);
    let (balance, arrivals) = Balance::new(workers);
    let metrics = Metrics::new(workers, listeners.iter().map(|bound| Arc::clone(&bound.entrance.door)).collect());
    let quiet = Arc::new(Quiet::default());
    let verifier = Verifier::new(workers).map_err(|error| StartError::Thread(std::io::Error::other(error)))?;
    let verifier = Arc::new(verifier);
    let (stop, stop_heard) = watch::channel(Stop::No);
    let (stopping, stopping_heard) = watch::channel(false);
    let (phase, phase_heard) = watch::channel(Phase::Serving);
    let (ready, ready_heard) = watch::channel(false);
    let (signals, heard) = Signals::new();
    let overload = Overload::new(&limits, listening, &signals);
    let limits = Arc::new(limits);
    let log = access.clone();
    let edge = |worker: usize| {
        Arc::new(Edge {
            limits: Arc::clone(&limits),
            live: Arc::clone(&live),
            signals: Arc::clone(&signals),
            access: log.clone(),
            spans: spans.clone(),
            metrics: Arc::clone(&metrics),
            tally: metrics.tally(worker),
            dice: Dice::default(),
            compressing: AtomicU32::new(0),
            budget: Arc::clone(&budget),
            overload: Arc::clone(&overload),
            balance: Arc::clone(&balance),
            quiet: Arc::clone(&quiet),
            verifier: Arc::clone(&verifier),
            asker: Asker::new(),
            ready: ready_heard.clone(),
            stopping: stopping_heard.clone(),
            phase: phase_heard.clone(),
        })
    };
    let accepting = match admin.as_ref().and_then(|admin| Some((admin, admin.all.first()?))) {
        None => None,
        Some((admin, socket)) => {
            let bind =
                |source| StartError::Bind { listener: "admin".to_owned(), address: admin.address.clone(), source };
            Some(socket.try_clone().map_err(bind)?.into())
        }
    };
    let tickets =
        listeners.iter().filter_map(|bound| Some(Arc::clone(bound.entrance.tls.as_ref()?.tickets()))).collect();
    let background = Background {
        // It is no worker.
        edge: edge(workers),
        admin: accepting,
        tickets,
        updates,
        reports,
        heard,
        ready,
        stop: stop_heard.clone(),
    };
    let (begun, all_begun) = mpsc::channel(1);
    let mut proxy = Proxy {
        listeners,
        admin,
        phase,
        stop,
        stopping,
        workers: Threads::new(),
        feed: Threads::new(),
        all_begun,
        access,
        writer,
    };
    proxy.feed.start("dormouse-feed".into(), move || background.run())?;
    for (number, arrivals) in arrivals.into_iter().enumerate() {
        let of_worker = |bound: &Bound| {
            let sockets: Vec<_> = bound.sockets.of_worker(number, workers).map(Arc::clone).collect();
            let entrance = Arc::clone(&bound.entrance);
            sockets.into_iter().map(move |socket| (socket, Arc::clone(&entrance)))
        };
        let listeners = proxy.listeners.iter().flat_map(of_worker).collect();
        let duty =
            Duty { number, workers, listeners, arrivals, balance: Arc::clone(&balance), begun: Some(begun.clone()) };
        let (edge, stop) = (edge(number), stop_heard.clone());
        proxy.workers.start(format!("dormouse-edge-{number}"), move || work(duty, &edge, &stop))?;
    }
    Ok(proxy)
}

fn sticky_key(given: Option<StickySecret>) -> Result<StickyKey, StartError> {
    Ok(StickyKey::new(&given.or_else(StickySecret::make).ok_or(StartError::Randomness)?))
}

impl Bound {
    fn open(
        listener: Listener,
        live: &Arc<Live>,
        (limits, room): (Arc<Limits>, Arc<Room>),
        inherited: &mut Vec<Listening>,
    ) -> Result<Self, StartError> {
        let sockets = open(&listener.name, &listener.address, SOCKETS_PER_LISTENER, inherited)?;
        let no_tls = |error: TlsError| StartError::Tls(error.into());
        let tls = match listener.protocol {
            Protocol::Plain => None,
            Protocol::Tls => Some(Tls::new(live, &listener).map_err(no_tls)?),
        };
        let Listener { name, http2, proxy_protocol_from, trust_forwarded_from, .. } = listener;
        let (door, trust_forwarded_from) = (Door::new(&name), trust_forwarded_from.into());
        let entrance = Entrance { tls, http2, limits, room, proxy_protocol_from, trust_forwarded_from, door };
        Ok(Self { name, sockets, entrance: Arc::new(entrance) })
    }
}

fn open(
    listener: &str,
    address: &Address,
    count: usize,
    inherited: &mut Vec<Listening>,
) -> Result<Sockets, StartError> {
    let failed = |source| StartError::Bind { listener: listener.to_owned(), address: address.clone(), source };
    Sockets::open(listener, address, count, inherited).map_err(failed)
}
