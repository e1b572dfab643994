//! The world around a proxy: a control plane that is a test, origins that do as their path says, clients that speak raw.
//! Everything waits for a condition with a deadline; nothing sleeps.

pub(crate) mod client;
pub(crate) mod h2c;
pub(crate) mod hand;
pub(crate) mod http2;
pub(crate) mod origin;
pub(crate) mod scrape;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_link::{
    Body, Endpoint, Environment, EnvironmentId, Epoch, Generation, HostPattern, InstanceId, Object, ObjectId,
    OrganisationId, Report, Route, State, Table, Term, Update,
};
use dormouse_proxy::{Config, Listener, Proxy};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use client::Client;
use origin::Origin;

/// Until a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a future that must come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

#[derive(Clone, Default)]
pub(crate) struct Reports {
    all: Arc<Mutex<Vec<Report>>>,
    came: Arc<Notify>,
}

impl Reports {
    pub(crate) fn count(&self) -> usize {
        self.all.lock().expect("no test panics with it").len()
    }

    pub(crate) fn since(&self, from: usize) -> Vec<Report> {
        self.all.lock().expect("no test panics with it")[from..].to_vec()
    }

    /// Waits for a report that `wanted` accepts, of those from `from` on.
    pub(crate) async fn find(&self, what: &str, from: usize, wanted: impl Fn(&Report) -> bool) -> Report {
        soon(what, async {
            loop {
                let came = self.came.notified();
                if let Some(found) = self.since(from).into_iter().find(&wanted) {
                    return found;
                }
                came.await;
            }
        })
        .await
    }
}

pub(crate) struct World {
    pub(crate) proxy: Option<Proxy>,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) reports: Reports,
    pub(crate) table: Table,
    _listening: JoinSet<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config =
            Config { listeners: vec![Listener::http(any)], admin: Some(any), workers: 2, ..Config::default() };
        // Clients that end in these tests are gone; the ones that only stop sending set it higher.
        config.limits.half_closed = Duration::from_millis(20);
        change(&mut config);
        let (updates, updates_taken) = mpsc::channel(16);
        let (said, mut heard) = mpsc::channel(64);
        let proxy = Proxy::start(config, updates_taken, said).expect("the proxy starts");
        let reports = Reports::default();
        let log = reports.clone();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Some(report) = heard.recv().await {
                log.all.lock().expect("no test panics with it").push(report);
                log.came.notify_waiters();
            }
        });
        let table = Table { term: Term(1), ..Table::default() };
        let mut world = Self { proxy: Some(proxy), updates, reports, table, _listening: listening };
        let snapshot = world.table.snapshot();
        world.send(snapshot).await;
        world
    }

    /// Sends an update and waits until it is acknowledged.
    pub(crate) async fn send(&mut self, update: Update) {
        let (from, generation) = (self.reports.count(), update.generation);
        self.updates.send(update).await.expect("the proxy takes updates");
        let acked = |report: &Report| matches!(report, Report::Acked { generation: acked, .. } if *acked >= generation);
        self.reports.find("the ack", from, acked).await;
    }

    /// Changes the table and waits until the proxy serves it.
    pub(crate) async fn publish(&mut self, bodies: impl IntoIterator<Item = Body>) {
        let update = self.next(bodies);
        self.send(update).await;
    }

    /// The update that a change makes; it counts as published.
    pub(crate) fn next(&mut self, bodies: impl IntoIterator<Item = Body>) -> Update {
        let mut newer = self.table.clone();
        newer.generation = Generation(newer.generation.0 + 1);
        for body in bodies {
            let object = Object { version: newer.generation, organisation: OrganisationId::new("o"), body };
            newer.objects.insert(object.id(), object);
        }
        let update = self.table.diff(&newer);
        self.table = newer;
        update
    }

    pub(crate) async fn remove(&mut self, ids: impl IntoIterator<Item = ObjectId>) {
        let mut newer = self.table.clone();
        newer.generation = Generation(newer.generation.0 + 1);
        for id in ids {
            newer.objects.remove(&id);
        }
        let update = self.table.diff(&newer);
        self.table = newer;
        self.send(update).await;
    }

    /// Publishes `host` as an environment of the same name that is ready on `origins`.
    pub(crate) async fn serve(&mut self, host: &str, origins: &[&Origin]) {
        let environment = ready(host, 1, origins);
        self.publish([route(host), environment]).await;
    }

    pub(crate) fn generation(&self) -> Generation {
        self.table.generation
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.proxy.as_ref().expect("running").address("http").expect("an HTTP listener")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.proxy.as_ref().expect("running").admin().expect("an admin listener")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.http()).await
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, host: &str, path: &str) -> client::Response {
        self.client().await.get(host, path).await
    }

    pub(crate) async fn stop(mut self) {
        let proxy = self.proxy.take().expect("running");
        soon("the shutdown", proxy.shutdown(Duration::from_secs(5))).await;
    }
}

pub(crate) fn route(host: &str) -> Body {
    Body::Route(Route::new(host.parse::<HostPattern>().expect("a host"), EnvironmentId::new(host)))
}

/// An environment in a state, with what it offers.
pub(crate) fn environment(id: &str, epoch: u64, state: State, origins: &[&Origin]) -> Body {
    let endpoint = |origin: &&Origin| Endpoint::new(InstanceId::new(origin.name), origin.address);
    Body::Environment(Box::new(Environment {
        id: EnvironmentId::new(id),
        app: "hello".parse().expect("a label"),
        name: "test".parse().expect("a label"),
        deployment: 7,
        state,
        epoch: Epoch(epoch),
        endpoints: origins.iter().map(endpoint).collect(),
        policy: dormouse_link::Policy::default(),
    }))
}

pub(crate) fn ready(id: &str, epoch: u64, origins: &[&Origin]) -> Body {
    environment(id, epoch, State::Ready, origins)
}

/// The same with a policy, as table files have it.
pub(crate) fn under(policy: &str, mut body: Body) -> Body {
    if let Body::Environment(environment) = &mut body {
        environment.policy = serde_json::from_str(policy).expect(policy);
    }
    body
}

/// Waits until `true`; for conditions that nothing announces.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
