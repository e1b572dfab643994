//! What an acknowledgement and `Drained` promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_link::{Base, EnvironmentId, Generation, Report, State, Update};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, environment, ready, route, until};

fn drained(report: &Report, at: Generation) -> bool {
    let environment = EnvironmentId::new("a.example");
    *report == Report::Drained { environment, generation: at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_ack_no_request_reaches_what_is_not_offered_and_none_fails() {
    let (mut world, old, new) = (World::start().await, Origin::start("old").await, Origin::start("new").await);
    world.serve("a.example", &[&old]).await;
    let (address, running) = (world.http(), Arc::new(AtomicBool::new(true)));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let running = Arc::clone(&running);
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            while running.load(Ordering::Relaxed) {
                assert_eq!(client.get("a.example", "/").await.status, 200);
            }
        });
    }
    let mut epoch = 1;
    for _ in 0..20 {
        for (offered, other) in [(&new, &old), (&old, &new)] {
            epoch += 1;
            offered.got(offered.requests().len()).await;
            let from = world.reports.count();
            world.publish([ready("a.example", epoch, &[offered])]).await;
            world.reports.find("the old one to be drained", from, |report| drained(report, world.generation())).await;
            let before = other.requests().len();
            let served = offered.requests().len();
            offered.got(served + 20).await;
            assert_eq!(other.requests().len(), before, "a request went to an instance that was drained");
        }
    }
    running.store(false, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no request fails");
    }
    world.stop().await;
}

#[tokio::test]
async fn drained_is_said_when_the_last_running_request_has_ended_and_at_once() {
    let (mut world, old, new) = (World::start().await, Origin::start("old").await, Origin::start("new").await);
    world.serve("a.example", &[&old]).await;
    let mut client = world.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    old.got(1).await;
    let from = world.reports.count();
    world.publish([ready("a.example", 2, &[&new])]).await;
    let generation = world.generation();
    // Three periods of activity, in all of which the old instance is busy.
    until("periods with a request running", || {
        let running = |report: &&Report| matches!(report, Report::Seen(all) if all[0].in_flight == 1);
        world.reports.since(from).iter().filter(running).count() >= 2
    })
    .await;
    assert!(!world.reports.since(from).iter().any(|report| drained(report, generation)));
    assert_eq!(world.get("a.example", "/").await.text(), "new");
    old.go();
    assert_eq!(client.response().await.text(), "old");
    world.reports.find("the old one to be drained", from, |report| drained(report, generation)).await;
    world.stop().await;
}

#[tokio::test]
async fn a_closing_environment_is_drained_when_nothing_runs_and_says_so_each_period() {
    let mut world = World::with(|config| config.limits.report_period = Duration::from_millis(20)).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    origin.got(1).await;
    let from = world.reports.count();
    world.publish([environment("a.example", 1, State::Closing, &[&origin])]).await;
    let generation = world.generation();
    until("periods with a request running", || {
        let running = |report: &&Report| matches!(report, Report::Seen(all) if all[0].in_flight == 1);
        world.reports.since(from).iter().filter(running).count() >= 3
    })
    .await;
    assert!(!world.reports.since(from).iter().any(|report| drained(report, generation)));
    origin.go();
    client.response().await;
    until("repetitions", || world.reports.since(from).iter().filter(|report| drained(report, generation)).count() >= 3)
        .await;
    world.stop().await;
}

#[tokio::test]
async fn p71_p72_an_address_that_changes_hands_never_gets_an_old_connection() {
    let mut world = World::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let one = Origin::on("one", listener);
    world.serve("a.example", &[&one]).await;
    let mut client = world.client().await;
    client.get("a.example", "/").await;
    client.get("a.example", "/").await;
    assert_eq!(one.connections(), 1, "a connection is reused within an epoch");
    world.publish([ready("a.example", 2, &[&one])]).await;
    client.get("a.example", "/").await;
    assert_eq!(one.connections(), 2, "and never across epochs");
    // The same address under another environment, at the same epoch.
    world.publish([route("b.example"), ready("b.example", 2, &[&one])]).await;
    client.get("b.example", "/").await;
    assert_eq!(one.connections(), 3, "nor across environments");
    world.stop().await;
}

#[tokio::test]
async fn an_update_that_does_not_follow_is_lost_and_a_snapshot_repairs_it() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let have = world.generation();
    let gap = Update {
        term: world.table.term,
        generation: Generation(99),
        base: Base::Since(Generation(98)),
        put: Vec::new(),
        remove: Vec::new(),
    };
    world.updates.send(gap).await.expect("taken");
    world.reports.find("the gap", 0, |report| *report == Report::Lost { have }).await;
    assert_eq!(world.get("a.example", "/").await.text(), "one", "what was served is served");
    world.publish([route("b.example"), ready("b.example", 1, &[&origin])]).await;
    world.table.objects.retain(|id, _| !format!("{id:?}").contains("a.example"));
    world.table.generation = Generation(100);
    let snapshot = world.table.snapshot();
    world.send(snapshot).await;
    assert_eq!(world.get("b.example", "/").await.text(), "one");
    assert_eq!(world.get("a.example", "/").await.status, 404, "what is not in a snapshot is gone");
    world.stop().await;
}

#[tokio::test]
async fn a_bad_object_is_refused_alone() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let from = world.reports.count();
    world.publish([ready("a.example", 2, &[]), route("b.example"), ready("b.example", 1, &[&origin])]).await;
    let generation = world.generation();
    let acked = world.reports.find("the ack", from, |report| matches!(report, Report::Acked { .. })).await;
    let Report::Acked { generation: acked, rejected } = acked else { unreachable!() };
    assert_eq!((acked, rejected.len(), rejected[0].version), (generation, 1, generation));
    assert_eq!(world.get("a.example", "/").await.text(), "one", "its previous version stays");
    assert_eq!(world.get("b.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn activity_is_told_with_its_age() {
    let mut world = World::with(|config| config.limits.report_period = Duration::from_millis(20)).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let running = |report: &Report| matches!(report, Report::Seen(all) if all.len() == 1 && all[0].in_flight == 1 && all[0].idle.is_zero());
    world.reports.find("a running request", 0, running).await;
    let from = world.reports.count();
    origin.go();
    client.response().await;
    let ended = |report: &Report| matches!(report, Report::Seen(all) if all[0].in_flight == 0);
    world.reports.find("its end", from, ended).await;
    world.stop().await;
}
