//! An instance whose connections the test has in its own hands, behind `a.example`.

use std::time::Duration;

use dormouse_link::{Body, Endpoint, InstanceId, Report, State};
use dormouse_proxy::Config;
use tokio::net::TcpListener;

use super::client::Client;
use super::{World, environment, route, soon, under};

pub(crate) struct ByHand {
    pub(crate) world: World,
    instance: TcpListener,
}

impl ByHand {
    pub(crate) async fn start() -> Self {
        Self::with("{}", |_| {}).await
    }

    /// One that reports often, with a policy.
    pub(crate) async fn with(policy: &str, change: impl FnOnce(&mut Config)) -> Self {
        let world = World::with(|config| {
            config.limits.report_period = Duration::from_millis(20);
            change(config);
        });
        let instance = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut by_hand = Self { world: world.await, instance };
        let ready = under(policy, by_hand.environment(State::Ready));
        by_hand.world.publish([route("a.example"), ready]).await;
        by_hand
    }

    fn environment(&self, state: State) -> Body {
        let address = self.instance.local_addr().expect("bound");
        let mut body = environment("a.example", 1, state, &[]);
        if let Body::Environment(environment) = &mut body {
            environment.endpoints = vec![Endpoint::new(InstanceId::new("one"), address)];
        }
        body
    }

    pub(crate) async fn publish(&mut self, state: State) {
        let body = self.environment(state);
        self.world.publish([body]).await;
    }

    /// The next connection at the instance, after the head of a request.
    pub(crate) async fn asked(&self) -> Client {
        let (stream, _) = soon("the instance to be asked", self.instance.accept()).await.expect("a connection");
        let mut instance = Client::over(stream);
        assert!(soon("the request", instance.head()).await.is_some());
        instance
    }

    /// Waits for a newer word of the edge on what runs.
    pub(crate) async fn seen(&self, from: usize, what: &str, wanted: impl Fn(u32, Duration) -> bool) {
        let is = |report: &Report| matches!(report, Report::Seen(all) if wanted(all[0].in_flight, all[0].idle));
        self.world.reports.find(what, from, is).await;
    }

    pub(crate) async fn wanted(&self, from: usize) {
        self.world.reports.find("it to be wanted", from, |report| matches!(report, Report::Wanted(_))).await;
    }
}
