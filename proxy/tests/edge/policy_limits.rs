//! What an environment's policy lets through: requests in a time and at a time, bodies, and how long it may take.

use std::time::Duration;

use dormouse_link::{Report, State};
use tokio::task::JoinSet;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, environment, http2, ready, route, soon, under};

pub(crate) const HOST: &str = "a.example";

/// A world in which clients may say who they are, with an environment under a policy.
pub(crate) async fn world(policy: &str) -> (World, Origin) {
    let mut world = World::with(|config| {
        config.listeners[0].trust_forwarded_from = vec!["127.0.0.1".parse().expect("a network")];
        config.listeners[0].http2 = dormouse_proxy::Http2::On;
    })
    .await;
    let origin = Origin::start("one").await;
    world.publish([route(HOST), under(policy, ready(HOST, 1, &[&origin]))]).await;
    (world, origin)
}

/// The status of one request of a client.
pub(crate) async fn of(world: &World, client: &str) -> u16 {
    of_path(world, client, "/").await
}

pub(crate) async fn of_path(world: &World, client: &str, path: &str) -> u16 {
    let mut connection = world.client().await;
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
    connection.response().await.status
}

#[tokio::test]
async fn more_than_the_rate_gets_429_and_reaches_nobody() {
    let (world, origin) = world(r#"{"limits": {"rate": {"requests": 3, "per_seconds": 3600}}}"#).await;
    let mut client = world.client().await;
    for number in 0..5 {
        let answer = client.get(HOST, "/").await;
        assert_eq!(answer.status, if number < 3 { 200 } else { 429 });
        if number >= 3 {
            let after: u64 = answer.field("retry-after").expect("when").parse().expect("seconds");
            assert!((1..=1200).contains(&after), "{after}");
        }
    }
    let mut stream = http2::Client::connect(world.http()).await;
    assert_eq!(stream.get(HOST, "/").await.expect("an answer").status, 429, "both lanes count together");
    assert_eq!(origin.requests().len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_clients_rate_is_its_own_and_a_64_of_ipv6_is_one_client() {
    let policy = r#"{"limits": {"rate_per_client": {"requests": 1, "per_seconds": 3600}}}"#;
    let (world, origin) = world(policy).await;
    let mut statuses = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"] {
        statuses.push(of(&world, client).await);
    }
    assert_eq!(statuses, [200, 429, 200, 200, 429, 200]);
    assert_eq!(origin.requests().len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn a_rate_is_used_up_through_deployments_and_begins_anew_when_it_changes() {
    let policy =
        |requests: u32| format!(r#"{{"limits": {{"rate": {{"requests": {requests}, "per_seconds": 3600}}}}}}"#);
    let (mut world, origin) = world(&policy(1)).await;
    assert_eq!(of(&world, "192.0.2.1").await, 200);
    world.publish([under(&policy(1), ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(of(&world, "192.0.2.1").await, 429);
    world.publish([under(&policy(2), ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(of(&world, "192.0.2.1").await, 200);
    world.publish([ready(HOST, 2, &[&origin])]).await;
    for _ in 0..5 {
        assert_eq!(of(&world, "192.0.2.1").await, 200, "without a policy nothing is counted");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_held_request_counts_once_for_the_rate_though_its_policy_changes() {
    let (mut world, origin) = world("{}").await;
    let policy = |access: &str| {
        format!(r#"{{"limits": {{"rate": {{"requests": 1, "per_seconds": 3600}}}}, "access": {access}}}"#)
    };
    world.publish([under(&policy("{}"), environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    let mut held = world.client().await;
    held.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    world.reports.find("it to be wanted", 0, |report| matches!(report, Report::Wanted(_))).await;
    let changed = policy(r#"{"deny": ["192.0.2.1"]}"#);
    world.publish([under(&changed, ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(held.response().await.status, 200);
    assert_eq!(of(&world, "192.0.2.2").await, 429, "it was counted");
    world.stop().await;
}

#[tokio::test]
async fn more_at_a_time_than_the_policy_says_get_503_and_of_one_client_429() {
    let (world, origin) = world(r#"{"limits": {"concurrency": 3, "concurrency_per_client": 2}}"#).await;
    let mut running = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        let mut connection = world.client().await;
        let request = format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {client}\r\n\r\n");
        connection.send(request).await;
        running.push(connection);
        origin.got(running.len()).await;
    }
    assert_eq!(of(&world, "192.0.2.1").await, 429);
    assert_eq!(of(&world, "192.0.2.3").await, 503);
    drop(running.pop());
    for connection in &mut running {
        origin.go();
        assert_eq!(connection.response().await.status, 200);
    }
    // The places of who was answered, and of who left, are free.
    crate::world::until("three places", || origin.ended() > 0).await;
    for client in ["192.0.2.1", "192.0.2.3"] {
        assert_eq!(soon("a place", until_served(&world, client)).await, 200);
    }
    world.stop().await;
}

async fn until_served(world: &World, client: &str) -> u16 {
    loop {
        let status = of(world, client).await;
        if status == 200 {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn held_requests_count_as_running() {
    let (mut world, origin) = world("{}").await;
    let policy = r#"{"limits": {"concurrency": 1}}"#;
    world.publish([under(policy, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    let mut held = world.client().await;
    held.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let wanted = |report: &Report| matches!(report, Report::Wanted(all) if all[0].waiters == 1);
    world.reports.find("it to be wanted", 0, wanted).await;
    assert_eq!(of(&world, "192.0.2.1").await, 503);
    world.publish([under(policy, ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(held.response().await.status, 200);
    assert_eq!(origin.requests().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn p39_a_body_beyond_the_policy_gets_413_and_wakes_nobody() {
    let (mut world, origin) = world("{}").await;
    let policy = r#"{"limits": {"body_bytes": 10}}"#;
    world.publish([under(policy, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 11\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 413);
    let mut stream = http2::Client::connect(world.http()).await;
    let mut request = http2::request(http::Method::POST, HOST, "/echo");
    request.headers_mut().insert("content-length", http::HeaderValue::from_static("11"));
    assert_eq!(stream.send(request, b"12345678901").await.expect("an answer").status, 413);
    world.publish([under(policy, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    assert!(!world.reports.since(from).iter().any(|report| matches!(report, Report::Wanted(_))));
    assert_eq!(origin.requests().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn p39_a_streamed_body_is_cut_at_the_policys_size() {
    let (world, origin) = world(r#"{"limits": {"body_bytes": 10}}"#).await;
    let mut client = world.client().await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{head}a\r\n0123456789\r\n0\r\n\r\n")).await;
    assert_eq!(client.response().await.text(), "0123456789", "what fits is served");
    let mut client = world.client().await;
    client.send(format!("{head}b\r\n0123456789x\r\n0\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 413);
    assert_eq!(origin.requests().len(), 1, "the other body was never whole");
    world.stop().await;
}

#[tokio::test]
async fn a_policy_may_allow_larger_bodies_than_the_edge_or_a_listener_does() {
    let edges = World::with(|config| config.limits.body_bytes = 10).await;
    let listeners = World::with(|config| config.listeners[0].limits.body_bytes = Some(10)).await;
    for world in [edges, listeners] {
        larger_bodies(world).await;
    }
}

async fn larger_bodies(mut world: World) {
    let origin = Origin::start("one").await;
    let larger = under(r#"{"limits": {"body_bytes": 20}}"#, ready(HOST, 1, &[&origin]));
    world.publish([route(HOST), larger, route("b.example"), ready("b.example", 1, &[&origin])]).await;
    let mut statuses = Vec::new();
    for (host, length) in [(HOST, 20), (HOST, 21), ("b.example", 10), ("b.example", 11)] {
        let bytes = "x".repeat(length);
        for body in [
            format!("Content-Length: {length}\r\n\r\n{bytes}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{bytes}\r\n0\r\n\r\n"),
        ] {
            let mut client = world.client().await;
            client.send(format!("POST /echo HTTP/1.1\r\nHost: {host}\r\n{body}")).await;
            statuses.push(client.response().await.status);
        }
    }
    assert_eq!(statuses, [200, 200, 413, 413, 200, 200, 413, 413]);
    world.stop().await;
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_the_policy_says_is_a_504() {
    for policy in [r#"{"limits": {"answer_ms": 50}}"#, r#"{"limits": {"total_ms": 50}}"#] {
        let (world, _origin) = world(policy).await;
        let answer = world.get(HOST, "/silent").await;
        assert_eq!(answer.status, 504, "{policy}");
        assert_eq!(world.get(HOST, "/").await.status, 200, "{policy}");
        world.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_trickles_ends_when_the_time_for_all_of_it_is_over() {
    let (world, _origin) = world(r#"{"limits": {"total_ms": 300}}"#).await;
    let mut client = world.client().await;
    client.send(format!("GET /trickle HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(client.whole().await.is_none(), "the end is no orderly one");
    world.stop().await;
}

#[tokio::test]
async fn event_streams_are_not_ended_by_the_time_for_all_of_a_request() {
    let (world, origin) = world(r#"{"limits": {"total_ms": 100}}"#).await;
    let mut client = world.client().await;
    client.send(format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n")).await;
    assert!(client.until(b"first\n\n").await.is_some());
    // Longer than all of a request may take.
    assert_eq!(world.get(HOST, "/silent").await.status, 504);
    origin.go();
    assert!(client.until(b"second\n\n").await.is_some());
    world.stop().await;
}

#[tokio::test]
async fn a_flood_of_one_client_beyond_its_rate_leaves_the_others_theirs() {
    let policy = r#"{"limits": {"rate": {"requests": 100, "per_seconds": 3600},
        "rate_per_client": {"requests": 10, "per_seconds": 3600}}}"#;
    let (world, origin) = world(policy).await;
    let address = world.http();
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        flood.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut passed = 0;
            for _ in 0..50 {
                passed += u32::from(client.get(HOST, "/").await.status == 200);
            }
            passed
        });
    }
    let mut passed = 0;
    while let Some(more) = flood.join_next().await {
        passed += more.expect("no panic");
    }
    assert_eq!(passed, 10, "a burst is exact, whichever workers count it");
    for number in 0..9 {
        for _ in 0..10 {
            assert_eq!(of(&world, &format!("198.51.100.{number}")).await, 200);
        }
    }
    assert_eq!(of(&world, "198.51.100.100").await, 429);
    assert_eq!(origin.requests().len(), 100);
    world.stop().await;
}
