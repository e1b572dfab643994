//! Requests to a sleeping environment are held, wanted once, and served when it is ready.

use std::time::Duration;

use dormouse_link::{EnvironmentId, Epoch, Report, State, Wanted};
use tokio::task::JoinSet;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, environment, http2, ready, route, soon, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

async fn asleep(change: impl FnOnce(&mut dormouse_proxy::Config)) -> (World, Origin) {
    let (mut world, origin) = (World::with(change).await, Origin::start("one").await);
    world.publish([route("a.example"), environment("a.example", 1, State::Asleep, &[&origin])]).await;
    (world, origin)
}

fn wanted(report: &Report, waiters: u32) -> bool {
    matches!(report, Report::Wanted(all) if all.iter().any(|one| one.waiters == waiters))
}

#[tokio::test]
async fn p80_a_thousand_held_requests_are_wanted_as_one_and_all_answered() {
    let (mut world, origin) = asleep(|_| {}).await;
    let (from, address) = (world.reports.count(), world.http());
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        requests.spawn(async move {
            let mut client = Client::connect(address).await;
            client.send(GET).await;
            client.response().await
        });
    }
    world.reports.find("a thousand waiters", from, |report| wanted(report, 1000)).await;
    for report in world.reports.since(from) {
        let Report::Wanted(all) = report else { continue };
        assert_eq!(all.len(), 1);
        assert_eq!((&all[0].environment, all[0].epoch), (&EnvironmentId::new("a.example"), Epoch(1)));
    }
    assert_eq!(origin.requests().len(), 0);
    world.publish([environment("a.example", 1, State::Waking, &[&origin])]).await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    while let Some(response) = requests.join_next().await {
        let response = response.expect("an answer");
        assert_eq!(response.text(), "one");
        let timing = response.field("server-timing").expect("the time that it was held");
        assert!(timing.starts_with("wake;dur="), "{timing}");
    }
    assert_eq!(origin.requests().len(), 1000);
    let later = world.get("a.example", "/").await;
    assert_eq!(later.field("server-timing"), None);
    world.stop().await;
}

#[tokio::test]
async fn the_first_waiter_is_reported_at_once_and_each_period() {
    let (mut world, origin) = asleep(|config| config.limits.report_period = Duration::from_millis(50)).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send(GET).await;
    until("three reports of it", || {
        let reports = world.reports.since(from);
        reports.iter().filter(|report| wanted(report, 1)).count() >= 3
    })
    .await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(client.response().await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn the_first_waiter_does_not_wait_for_the_period() {
    let (world, _origin) = asleep(|config| config.limits.report_period = Duration::from_secs(3600)).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send(GET).await;
    let expected = Wanted { environment: EnvironmentId::new("a.example"), epoch: Epoch(1), waiters: 1 };
    world.reports.find("it to be wanted", from, |report| *report == Report::Wanted(vec![expected.clone()])).await;
    drop(client);
    world.stop().await;
}

#[tokio::test]
async fn p81_a_client_that_leaves_frees_its_place() {
    let (mut world, origin) = asleep(|config| {
        config.limits.report_period = Duration::from_millis(20);
        config.limits.waiters_per_environment = 1;
    })
    .await;
    let from = world.reports.count();
    let mut first = world.client().await;
    first.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\npart").await;
    world.reports.find("it to be wanted", from, |report| wanted(report, 1)).await;
    let full = world.get("a.example", "/").await;
    assert_eq!((full.status, full.field("retry-after").as_deref()), (503, Some("5")));
    drop(first);
    periods_without_a_want(&world).await;
    let mut second = world.client().await;
    let from = world.reports.count();
    second.send(GET).await;
    world.reports.find("it to be wanted", from, |report| wanted(report, 1)).await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(second.response().await.status, 200);
    assert_eq!(origin.requests().len(), 1, "the one that left never reached the origin");
    world.stop().await;
}

#[tokio::test]
async fn nobody_is_wanted_when_nobody_waits() {
    let (world, _origin) = asleep(|config| config.limits.report_period = Duration::from_millis(20)).await;
    let mut client = world.client().await;
    client.send(GET).await;
    world.reports.find("it to be wanted", 0, |report| wanted(report, 1)).await;
    drop(client);
    periods_without_a_want(&world).await;
    world.stop().await;
}

/// Drained is repeated each period of a cell that is not ready: waits for three periods without a want in them.
async fn periods_without_a_want(world: &World) {
    until("periods in which nobody is wanted", || {
        let reports = world.reports.since(0);
        let last = reports.iter().rposition(|report| matches!(report, Report::Wanted(_))).expect("there was one");
        reports[last..].iter().filter(|report| matches!(report, Report::Drained { .. })).count() >= 3
    })
    .await;
}

#[tokio::test]
async fn a_navigation_gets_the_waking_page_and_others_wait_on() {
    let (mut world, origin) = asleep(|config| config.limits.hold_navigation = Duration::from_millis(50)).await;
    let mut browser = world.client().await;
    browser.send("GET / HTTP/1.1\r\nHost: a.example\r\nAccept: text/html\r\nSec-Fetch-Dest: document\r\n\r\n").await;
    let mut script = world.client().await;
    script.send("GET / HTTP/1.1\r\nHost: a.example\r\nAccept: text/html\r\nSec-Fetch-Dest: empty\r\n\r\n").await;
    let page = browser.response().await;
    assert_eq!((page.status, page.field("retry-after").as_deref()), (503, Some("2")));
    assert_eq!(page.field("refresh").as_deref(), Some("2"), "it asks again by itself");
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(script.response().await.text(), "one");
    assert_eq!(browser.get("a.example", "/").await.text(), "one", "the connection went on");
    world.stop().await;
}

#[tokio::test]
async fn a_request_is_not_held_for_ever() {
    let (world, _origin) = asleep(|config| config.limits.hold = Duration::from_millis(50)).await;
    let answer = world.get("a.example", "/").await;
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("5")));
    world.stop().await;
}

#[tokio::test]
async fn a_held_body_arrives_whole() {
    let (mut world, origin) = asleep(|_| {}).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    let body = "x".repeat(100_000);
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n").await;
    client.send(&body).await;
    world.reports.find("it to be wanted", from, |report| wanted(report, 1)).await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert!(client.response().await.text() == body);
    world.stop().await;
}

#[tokio::test]
async fn p82_a_failed_environment_refuses_at_once_and_is_wanted_again() {
    let (mut world, origin) = asleep(|config| config.limits.report_period = Duration::from_millis(20)).await;
    let mut held = world.client().await;
    held.send(GET).await;
    world.reports.find("it to be wanted", 0, |report| wanted(report, 1)).await;
    let failed = State::Failed { retry_in: Duration::from_secs(4) };
    world.publish([environment("a.example", 1, failed, &[&origin])]).await;
    let answer = held.response().await;
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("4")));
    let from = world.reports.count();
    assert_eq!(held.get("a.example", "/").await.status, 503);
    world.reports.find("it to be wanted again", from, |report| wanted(report, 0)).await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(held.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn a_held_request_hears_when_its_environment_goes_away() {
    let (mut world, _origin) = asleep(|_| {}).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send(GET).await;
    world.reports.find("it to be wanted", from, |report| wanted(report, 1)).await;
    let ids: Vec<_> = world.table.objects.keys().cloned().collect();
    world.remove(ids).await;
    assert_eq!(client.response().await.status, 503);
    assert_eq!(client.get("a.example", "/").await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn what_held_requests_may_have_read_ahead_is_bounded_in_all() {
    let (mut world, origin) = asleep(|config| {
        config.limits.report_period = Duration::from_millis(20);
        config.limits.held_bytes = 10_000;
    })
    .await;
    let mut held = Vec::new();
    for count in 1..=2 {
        let mut client = world.client().await;
        client.send(GET).await;
        world.reports.find("it to be wanted", 0, |report| wanted(report, count)).await;
        held.push(client);
    }
    let full = world.get("a.example", "/").await;
    assert_eq!((full.status, full.field("retry-after").as_deref()), (503, Some("5")));
    held.pop();
    let from = world.reports.count();
    world.reports.find("one to be wanted", from, |report| wanted(report, 1)).await;
    let mut client = world.client().await;
    let from = world.reports.count();
    client.send(GET).await;
    world.reports.find("both to be wanted", from, |report| wanted(report, 2)).await;
    held.push(client);
    world.publish([ready("a.example", 2, &[&origin])]).await;
    for mut client in held {
        assert_eq!(client.response().await.text(), "one");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_held_stream_counts_the_window_that_its_body_may_fill() {
    let (mut world, origin) = asleep(|config| {
        config.listeners[0].http2 = dormouse_proxy::Http2::On;
        config.limits.held_bytes = 100_000;
    })
    .await;
    let mut client = http2::Client::connect(world.http()).await;
    let (first, mut body) = client.begin(http2::request(http::Method::POST, "a.example", "/")).await;
    world.reports.find("it to be wanted", 0, |report| wanted(report, 1)).await;
    let full = client.send(http2::request(http::Method::POST, "a.example", "/"), b"body").await.expect("an answer");
    assert_eq!(full.status, 503, "two windows are too much");
    let mut place = client.ready().await.expect("the connection is open");
    let bare = http2::request(http::Method::GET, "a.example", "/");
    let (second, _) = place.send_request(bare, true).expect("a request");
    world.reports.find("one without a body to be wanted, too", 0, |report| wanted(report, 2)).await;
    body.send_data(bytes::Bytes::new(), true).expect("an end");
    world.publish([ready("a.example", 2, &[&origin])]).await;
    for answer in [first, second] {
        assert_eq!(soon("an answer", http2::read(answer)).await.expect("an answer").text(), "one");
    }
    world.stop().await;
}
