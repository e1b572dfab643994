//! Event streams: what of them counts as activity, and how the silent ones end before a sleep, over both HTTPs.

use std::time::Duration;

use dormouse_link::{Report, State};
use dormouse_proxy::Http2;
use h2::Reason;
use http::Method;
use tokio::time::timeout;

use crate::world::client::Client;
use crate::world::hand::ByHand;
use crate::world::{http2, soon, until};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const AGO: Duration = Duration::from_millis(300);

/// Longer than an edge gives notice.
const WHILE: Duration = Duration::from_secs(3);

/// A client that reads events, and the instance that has begun them.
async fn opened(by_hand: &ByHand) -> (Client, Client) {
    let mut client = by_hand.world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut instance = by_hand.asked().await;
    instance.send(HEAD).await;
    assert!(soon("a head", client.head()).await.is_some());
    (client, instance)
}

#[tokio::test]
async fn p90_an_event_is_activity_and_a_comment_is_not() {
    let by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    by_hand.seen(0, "an open stream to be idle", |in_flight, idle| in_flight == 1 && idle > AGO).await;
    let from = by_hand.world.reports.count();
    instance.send(": still here\n\n").await;
    assert!(soon("the comment", client.until(b"here\n\n")).await.is_some());
    until("some reports", || by_hand.world.reports.count() > from + 3).await;
    let busy = |report: &Report| matches!(report, Report::Seen(all) if all[0].idle < AGO);
    assert!(!by_hand.world.reports.since(from).iter().any(busy));
    let from = by_hand.world.reports.count();
    instance.send("data: x\n\n").await;
    by_hand.seen(from, "an event", |in_flight, idle| in_flight == 1 && idle < AGO).await;
    by_hand.world.stop().await;
}

/// The lane gives what asked for an upgrade no time of its own.
#[tokio::test]
async fn a_silent_stream_in_the_place_of_a_websocket_has_its_limit() {
    let by_hand = ByHand::with(r#"{"limits": {"stream_idle_ms": 300}}"#, |_| {}).await;
    let mut client = by_hand.world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let mut instance = by_hand.asked().await;
    instance.send(HEAD).await;
    assert!(soon("a head", client.head()).await.is_some());
    assert!(soon("the end", client.until(b"never")).await.is_none());
    by_hand.world.stop().await;
}

#[tokio::test]
async fn a_compressed_stream_counts_whatever_it_says() {
    let by_hand = ByHand::start().await;
    let mut client = by_hand.world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut instance = by_hand.asked().await;
    instance.send(HEAD.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n")).await;
    by_hand.seen(0, "an open stream to be idle", |in_flight, idle| in_flight == 1 && idle > AGO).await;
    let from = by_hand.world.reports.count();
    instance.send(":\n\n").await;
    by_hand.seen(from, "something", |in_flight, idle| in_flight == 1 && idle < AGO).await;
    by_hand.world.stop().await;
}

#[tokio::test]
async fn a_silent_stream_is_ended_when_its_environment_is_to_sleep_and_one_with_events_calls_it_off() {
    let mut by_hand = ByHand::start().await;
    let (mut client, mut instance) = opened(&by_hand).await;
    let from = by_hand.world.reports.count();
    by_hand.publish(State::Closing).await;
    instance.send("data: x\n\n").await;
    by_hand.wanted(from).await;
    assert!(soon("the event", client.until(b"data: x\n\n")).await.is_some());
    assert!(timeout(WHILE, client.until(b"\n")).await.is_ok_and(|line| line.is_some()), "the end of its chunk");
    assert!(timeout(WHILE, client.until(b"\n")).await.is_err(), "it is not ended");
    by_hand.publish(State::Ready).await;
    instance.send(": still here\n\n").await;
    assert!(soon("the comment", client.until(b"here\n\n")).await.is_some());
    let from = by_hand.world.reports.count();
    by_hand.publish(State::Closing).await;
    while soon("the end", client.until(b"\n")).await.is_some() {}
    assert!(client.closed().await, "without the last chunk");
    let drained = |report: &Report| matches!(report, Report::Drained { .. });
    by_hand.world.reports.find("it to be drained", from, drained).await;
    by_hand.world.stop().await;
}

#[tokio::test]
async fn over_http2_too_and_other_streams_of_the_connection_go_on() {
    let mut by_hand = ByHand::with("{}", |config| config.listeners[0].http2 = Http2::On).await;
    let mut client = http2::Client::connect(by_hand.world.http()).await;
    let mut answers = Vec::new();
    for head in [HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"] {
        let (answer, mut body) = client.begin(http2::request(Method::GET, "a.example", "/")).await;
        body.send_data(bytes::Bytes::new(), true).expect("an end");
        let mut instance = by_hand.asked().await;
        instance.send(head).await;
        answers.push((soon("a head", answer).await.expect("an answer").into_body(), body, instance));
    }
    let from = by_hand.world.reports.count();
    answers[0].2.send(": still here\n\n").await;
    by_hand.publish(State::Closing).await;
    let end = async {
        loop {
            if let Some(Err(error)) = answers[0].0.data().await {
                return error.reason();
            }
        }
    };
    assert_eq!(soon("the end", end).await, Some(Reason::CANCEL));
    by_hand.seen(from, "the other one alone", |in_flight, idle| in_flight == 1 && idle.is_zero()).await;
    answers[1].2.send("done").await;
    assert_eq!(soon("the rest", answers[1].0.data()).await.expect("bytes").expect("bytes"), "done");
    let drained = |report: &Report| matches!(report, Report::Drained { .. });
    by_hand.world.reports.find("it to be drained", from, drained).await;
    by_hand.world.stop().await;
}
