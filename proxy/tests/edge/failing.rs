//! Origins that are away, slow or broken.

use std::time::Duration;

use dormouse_link::{Epoch, InstanceId, Report, State};
use tokio::time::timeout;

use crate::world::origin::Origin;
use crate::world::{World, environment, ready, soon};

fn short(config: &mut dormouse_proxy::Config) {
    config.limits.connect_total = Duration::from_millis(100);
    config.limits.response_gap = Duration::from_millis(100);
}

#[tokio::test]
async fn an_origin_that_is_down_is_a_bad_gateway_and_reported() {
    let (mut world, down) = (World::with(short).await, Origin::down("down").await);
    world.serve("a.example", &[&down]).await;
    let answer = world.get("a.example", "/").await;
    assert_eq!((answer.status, answer.field("connection").as_deref()), (502, Some("close")));
    assert!(!answer.text().contains("127.0.0.1"), "no internals");
    let named = |report: &Report| {
        matches!(report, Report::Unreachable { epoch, instance, .. }
            if *epoch == Epoch(1) && *instance == InstanceId::new("down"))
    };
    world.reports.find("the failure", 0, named).await;
    world.stop().await;
}

#[tokio::test]
async fn another_endpoint_is_tried_whatever_the_method_while_nothing_was_sent() {
    let (mut world, down, up) = (World::start().await, Origin::down("down").await, Origin::start("up").await);
    world.serve("a.example", &[&down, &up]).await;
    for _ in 0..20 {
        let mut client = world.client().await;
        client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(client.response().await.text(), "hello");
    }
    assert_eq!(up.requests().len(), 20);
    world.stop().await;
}

#[tokio::test]
async fn a_request_whose_endpoint_vanished_waits_for_a_newer_cell() {
    let (mut world, down, up) = (World::start().await, Origin::down("down").await, Origin::start("up").await);
    world.serve("a.example", &[&down]).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
    world.reports.find("the failure", from, |report| matches!(report, Report::Unreachable { .. })).await;
    world.publish([environment("a.example", 1, State::Waking, &[&down])]).await;
    world.publish([ready("a.example", 2, &[&up])]).await;
    assert_eq!(client.response().await.text(), "hello");
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_a_newer_cell_is_waited_for_is_noticed() {
    let only_one = |config: &mut dormouse_proxy::Config| {
        config.limits.connect_total = Duration::from_secs(200);
        config.limits.waiters = 1;
    };
    let (mut world, down, up) = (World::with(only_one).await, Origin::down("down").await, Origin::start("up").await);
    world.serve("a.example", &[&down]).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let waits = |report: &Report| matches!(report, Report::Wanted(wanted) if wanted[0].waiters == 1);
    world.reports.find("it to wait", from, waits).await;
    assert_eq!(world.get("a.example", "/").await.status, 503, "there is room for no other");
    drop(client);
    let next = soon("room for another", async {
        loop {
            let mut next = world.client().await;
            next.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            // Answered at once where there is no room.
            if timeout(Duration::from_millis(200), next.stream.readable()).await.is_err() {
                return next;
            }
        }
    });
    let mut next = next.await;
    world.publish([ready("a.example", 2, &[&up])]).await;
    assert_eq!(next.response().await.text(), "up");
    world.stop().await;
}

/// Looks often, and would wait for one connection longer than any test.
fn looking(config: &mut dormouse_proxy::Config) {
    config.limits.connect_look = Duration::from_millis(200);
    config.limits.connect = Duration::from_secs(100);
    config.limits.connect_total = Duration::from_secs(200);
}

#[tokio::test]
async fn who_waits_for_a_connection_to_a_dead_endpoint_looks_for_a_newer_cell() {
    let (mut world, deaf, up) = (World::with(looking).await, Origin::deaf("deaf").await, Origin::start("up").await);
    world.serve("a.example", &[&deaf]).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
    world.reports.find("the failure", from, |report| matches!(report, Report::Unreachable { .. })).await;
    world.publish([ready("a.example", 2, &[&up])]).await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(up.requests().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn an_only_endpoint_that_is_slow_to_accept_is_waited_for() {
    let (mut world, deaf) = (World::with(looking).await, Origin::deaf("deaf").await);
    world.serve("a.example", &[&deaf]).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
    world.reports.find("the failure", from, |report| matches!(report, Report::Unreachable { .. })).await;
    deaf.hear();
    assert_eq!(client.response().await.text(), "hello");
    world.stop().await;
}

#[tokio::test]
async fn a_slow_origin_is_a_gateway_timeout() {
    let (mut world, origin) = (World::with(short).await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    assert_eq!(world.get("a.example", "/silent").await.status, 504);
    assert_eq!(origin.requests().len(), 1, "a request that was sent is not sent again");
    world.stop().await;
}

#[tokio::test]
async fn a_stream_may_be_silent_for_longer() {
    let (mut world, origin) = (World::with(short).await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("GET /events HTTP/1.1\r\nHost: a.example\r\nAccept: text/event-stream\r\n\r\n").await;
    assert!(client.until(b"data: first\n\n").await.is_some());
    let mut socket = world.client().await;
    socket.send("GET /socket HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(socket.response().await.status, 101);
    // For as long as a plain request would have been allowed, and more.
    assert_eq!(world.get("a.example", "/silent").await.status, 504);
    assert_eq!(world.get("a.example", "/silent").await.status, 504);
    origin.go();
    assert!(client.until(b"data: second\n\n").await.is_some());
    socket.send("still here").await;
    assert_eq!(socket.take(10).await.expect("the echo"), b"still here");
    drop(socket);
    world.stop().await;
}

#[tokio::test]
async fn p16_a_broken_answer_is_never_a_clean_one() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    assert_eq!(world.get("a.example", "/garbage").await.status, 502);
    let mut client = world.client().await;
    client.send("GET /cut HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    // The reset may overtake the head.
    if let Some(head) = client.head().await {
        assert!(head.contains("100"), "{head}");
    }
    assert!(client.take(100).await.is_none(), "the connection ends before the body does");
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_origin() {
    let (mut world, origin) = (
        World::with(|config| {
            config.limits.report_period = Duration::from_millis(20);
        })
        .await,
        Origin::start("one").await,
    );
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("GET /silent HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    origin.got(1).await;
    let from = world.reports.count();
    drop(client);
    let ended = |report: &Report| matches!(report, Report::Seen(all) if all[0].in_flight == 0);
    world.reports.find("the end of the request", from, ended).await;
    world.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let world = World::with(|config| config.limits.keep_alive = Duration::from_millis(50)).await;
    let mut client = world.client().await;
    assert_eq!(client.get("x.example", "/").await.status, 404);
    assert!(client.closed().await);
    world.stop().await;
}
