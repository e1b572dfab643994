//! Answers over HTTP/2 that are whole before their requests are.

use std::time::Duration;

use bytes::Bytes;
use dormouse_proxy::Http2;
use h2::Reason;
use http::Method;

use crate::choosing::balanced;
use crate::world::h2c::H2cOrigin;
use crate::world::http2::{self, Client, read, request, world};
use crate::world::{World, route, soon, until};

/// What is left of a body that its client does not send.
const LINGER: Duration = Duration::from_millis(100);
/// The body of `/early`.
const LENGTH: &str = "1000";

async fn begun(client: &mut Client, path: &str) -> h2::SendStream<Bytes> {
    let mut request = request(Method::POST, "a.example", path);
    request.headers_mut().insert("content-length", LENGTH.parse().expect("a value"));
    let (answer, sending) = client.begin(request).await;
    let answer = soon("the answer", read(answer)).await.expect("a whole answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "early"));
    sending
}

/// RFC 9113 section 8.1: a server that has answered may ask the client to stop, by a reset without an error.
#[tokio::test]
async fn p38_a_body_that_stops_after_its_answer_is_given_up_without_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let change = |config: &mut dormouse_proxy::Config| {
        config.limits.linger = LINGER;
        config.access_log = Some(log.clone().into());
    };
    let (world, origin) = world(change).await;
    let mut client = http2::Client::connect(world.http()).await;
    let mut sending = begun(&mut client, "/early").await;
    // Refused where it has stopped for too long already.
    let _ = sending.send_data(Bytes::from_static(&[7; 10]), false);
    let reset = soon("the reset", std::future::poll_fn(|context| sending.poll_reset(context))).await;
    assert_eq!(reset.expect("a reset"), Reason::NO_ERROR);
    until("the connection to the origin to be closed", || origin.ended() == origin.connections()).await;
    assert_eq!(client.get("a.example", "/").await.expect("an answer").text(), "one");
    world.stop().await;
    let text = std::fs::read_to_string(&log).expect("the log, flushed");
    let record: serde_json::Value =
        text.lines().next().map(|line| serde_json::from_str(line).expect("JSON")).expect("it");
    assert_eq!((&record["status"], &record["ended_by"]), (&200.into(), &"instance".into()), "{record}");
}

#[tokio::test]
async fn p38_an_answer_that_ends_with_trailers_has_ended_too() {
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        config.limits.linger = LINGER;
    })
    .await;
    let origin = H2cOrigin::start("one").await;
    let environment = balanced("a.example", 1, &[&origin.origin], r#"{"protocol": "h2c"}"#);
    world.publish([route("a.example"), environment]).await;
    let mut client = http2::Client::connect(world.http()).await;
    let mut sending = begun(&mut client, "/early").await;
    sending.send_data(Bytes::from_static(&[7; 10]), false).expect("the stream is open");
    let reset = soon("the reset", std::future::poll_fn(|context| sending.poll_reset(context))).await;
    assert_eq!(reset.expect("a reset"), Reason::NO_ERROR);
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_goes_on_after_its_answer_reaches_the_origin() {
    // Longer than the pauses of a client on a busy machine.
    let (world, origin) = world(|config| config.limits.linger = Duration::from_secs(5)).await;
    let mut client = http2::Client::connect(world.http()).await;
    let mut sending = begun(&mut client, "/early").await;
    for part in 0..10 {
        tokio::time::sleep(LINGER / 10).await;
        sending.send_data(Bytes::from_static(&[7; 100]), part == 9).expect("the stream is open");
    }
    origin.got(1).await;
    assert_eq!(origin.requests()[0].body, [7; 1000]);
    world.stop().await;
}
