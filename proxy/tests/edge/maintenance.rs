//! Environments that are not to be served for a while: maintenance, and a pause that holds requests.

use std::time::Duration;

use dormouse_link::{Report, State};

use crate::policy_limits::{of, of_path, world};
use crate::world::origin::Origin;
use crate::world::scrape::comes_to;
use crate::world::{World, environment, http2, ready, route, soon, under, until};

const HOST: &str = "a.example";

fn wanted(world: &World, from: usize) -> bool {
    world.reports.since(from).iter().any(|report| matches!(report, Report::Wanted(_)))
}

#[tokio::test]
async fn under_maintenance_only_those_who_are_allowed_are_served() {
    let policy = r#"{"maintenance": {"retry_after_seconds": 90, "allow": ["192.0.2.0/24"]}}"#;
    let (mut world, origin) = world(policy).await;
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n")).await;
    let page = client.response().await;
    assert_eq!((page.status, page.field("retry-after").as_deref()), (503, Some("90")));
    assert!(page.text().contains("<h1>Maintenance</h1>") && page.field("refresh").is_none());
    let mut stream = http2::Client::connect(world.http()).await;
    assert_eq!(stream.get(HOST, "/").await.expect("an answer").status, 503);
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(of(&world, "192.0.2.7").await, 200);
    world.publish([ready(HOST, 1, &[&origin])]).await;
    assert_eq!(of(&world, "198.51.100.1").await, 200);
    assert_eq!(origin.requests().len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn maintenance_wakes_nobody_but_for_those_who_are_allowed() {
    let (mut world, origin) = world("{}").await;
    let policy = r#"{"maintenance": {"allow": ["192.0.2.0/24"]}}"#;
    world.publish([under(policy, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    let from = world.reports.count();
    assert_eq!(of(&world, "198.51.100.1").await, 503);
    world.publish([under(policy, environment(HOST, 1, State::Asleep, &[&origin]))]).await;
    assert!(!wanted(&world, from));
    let mut operator = world.client().await;
    operator.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")).await;
    world.reports.find("it to be wanted", from, |report| matches!(report, Report::Wanted(_))).await;
    world.publish([under(policy, ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(operator.response().await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn who_is_held_when_maintenance_begins_is_told_so_and_reaches_nobody() {
    let (mut world, origin) = world("{}").await;
    world.publish([environment(HOST, 1, State::Asleep, &[&origin])]).await;
    let mut held = world.client().await;
    held.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    world.reports.find("it to be wanted", 0, |report| matches!(report, Report::Wanted(_))).await;
    world.publish([under(r#"{"maintenance": {}}"#, ready(HOST, 2, &[&origin]))]).await;
    assert_eq!(held.response().await.status, 503);
    assert_eq!(origin.requests().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_pause_holds_requests_with_their_bodies_and_wants_nobody() {
    let (mut world, origin) = world(r#"{"pause": {}}"#).await;
    let from = world.reports.count();
    let body = "x".repeat(100_000);
    let mut held = world.client().await;
    held.send(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n")).await;
    held.send(&body).await;
    let mut streams = http2::Client::connect(world.http()).await;
    let mut place = streams.ready().await.expect("the connection is open");
    let (stream, _) = place.send_request(http2::request(http::Method::GET, HOST, "/"), true).expect("a request");
    others_are_served(&mut world).await;
    // A period in which it would have been wanted: each publication is acknowledged after the reports before it.
    for state in [State::Asleep, State::Ready] {
        world.publish([under(r#"{"pause": {}}"#, environment(HOST, 1, state, &[&origin]))]).await;
    }
    assert!(!wanted(&world, from));
    assert_eq!((origin.requests().len(), origin.connections()), (0, 0));
    world.publish([ready(HOST, 1, &[&origin])]).await;
    assert!(held.response().await.text() == body);
    assert_eq!(soon("an answer", http2::read(stream)).await.expect("an answer").text(), "one");
    world.stop().await;
}

/// Serves another environment on both workers for a while, in which whatever is not held gets to its instance.
async fn others_are_served(world: &mut World) {
    let other = Origin::start("other").await;
    world.publish([route("b.example"), ready("b.example", 1, &[&other])]).await;
    for _ in 0..50 {
        assert_eq!(world.get("b.example", "/").await.text(), "other");
    }
}

#[tokio::test]
async fn a_paused_request_waits_for_so_long_and_so_many_do() {
    let (mut world, origin) = world(r#"{"pause": {"wait_ms": 50}}"#).await;
    let answer = world.get(HOST, "/").await;
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("5")));
    world.publish([under(r#"{"pause": {"requests": 1}}"#, ready(HOST, 1, &[&origin]))]).await;
    let mut held = world.client().await;
    held.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    // One of them has the place, and the other is told to come again.
    let mut other = world.client().await;
    other.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let (first, second) = tokio::select! {
        answer = held.response() => (answer, other),
        answer = other.response() => (answer, held),
    };
    assert_eq!(first.status, 503);
    world.publish([ready(HOST, 1, &[&origin])]).await;
    let mut second = second;
    assert_eq!(second.response().await.status, 200);
    assert_eq!(origin.requests().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_paused_client_that_leaves_frees_its_place() {
    let (mut world, origin) = world(r#"{"pause": {"requests": 1}}"#).await;
    let mut left = world.client().await;
    left.send(format!("GET /left HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    soon("the place to be taken", async {
        while of_refused(&world).await.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    drop(left);
    // Who gets the place is held, and served when the pause ends.
    let mut next = world.client().await;
    loop {
        next.send(format!("GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let answer = tokio::time::timeout(Duration::from_millis(300), next.response()).await;
        if answer.is_err() {
            break;
        }
    }
    world.publish([ready(HOST, 1, &[&origin])]).await;
    until("it to be served", || origin.requests().iter().any(|request| request.path() == "/next")).await;
    assert!(origin.requests().iter().all(|request| request.path() != "/left"));
    world.stop().await;
}

/// Whether a request is refused at once, and not held.
async fn of_refused(world: &World) -> Option<u16> {
    tokio::time::timeout(Duration::from_millis(100), of_path(world, "192.0.2.1", "/probe")).await.ok()
}

#[tokio::test]
async fn after_the_acknowledgement_of_a_pause_nothing_reaches_an_instance() {
    const VISITORS: usize = 8;
    let (mut world, origin) = world("{}").await;
    let address = world.http();
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(async move {
            let mut client = crate::world::client::Client::connect(address).await;
            for _ in 0..100 {
                assert_eq!(client.get(HOST, "/").await.status, 200);
            }
        });
    }
    for round in 1..=5 {
        origin.got(round * 60).await;
        world.publish([under(r#"{"pause": {}}"#, ready(HOST, 1, &[&origin]))]).await;
        // What was in flight is answered; then all wait, and nothing more comes.
        comes_to(world.admin(), VISITORS as f64, ("dormouse_requests_held", &[])).await;
        let before = origin.requests().len();
        others_are_served(&mut world).await;
        assert_eq!(origin.requests().len(), before);
        world.publish([ready(HOST, 1, &[&origin])]).await;
    }
    while let Some(visited) = visitors.join_next().await {
        visited.expect("all were served");
    }
    assert_eq!(origin.requests().len(), VISITORS * 100);
    world.stop().await;
}
