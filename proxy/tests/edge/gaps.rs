//! An instance that stands still in the middle of its answer, where the gap between two pieces has a limit of its own.

use tokio::io::AsyncReadExt;

use crate::policy_limits::world;
use crate::world::hand::ByHand;
use crate::world::origin::Origin;
use crate::world::scrape::comes_to;
use crate::world::{World, http2, soon};

const HOST: &str = "a.example";
/// Half a minute until the first byte, and a moment between two.
const POLICY: &str = r#"{"limits":{"gap_ms":100}}"#;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
const WITH_LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
const UNTIL_CLOSED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello";

/// One answer that stands still, and is ended: as a clock that has shown one gap.
async fn one_gap(world: &World, origin: &Origin) {
    origin.say(WITH_LENGTH);
    let mut client = world.client().await;
    client.send(format!("GET /raw HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(client.whole().await.is_none());
}

async fn refused(world: &World, count: f64) {
    let labels = &["reason=\"response_timeout\""][..];
    comes_to(world.admin(), count, ("dormouse_requests_refused_total", labels)).await;
}

#[tokio::test]
async fn an_answer_that_stands_still_is_cut_and_its_end_is_no_orderly_one() {
    let (world, origin) = world(POLICY).await;
    for script in [CHUNKED, WITH_LENGTH, UNTIL_CLOSED] {
        origin.say(script);
        let mut client = world.client().await;
        client.send(format!("GET /raw HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        assert!(client.head().await.is_some_and(|head| head.starts_with("HTTP/1.1 200 ")), "{script}");
        let mut rest = client.rest().to_vec();
        // The begin is told: a client that is told nothing may ask again by itself. No last chunk comes.
        let _ = soon("the end", client.stream.read_to_end(&mut rest)).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{script}: {}", String::from_utf8_lossy(&rest));
        assert!(rest.windows(5).any(|part| part == b"hello"), "{script}");
    }
    refused(&world, 3.0).await;
    // An orderly end would be the body's.
    for script in [CHUNKED, UNTIL_CLOSED] {
        origin.say(script);
        let mut client = world.client().await;
        client.send(format!("GET /raw HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
        assert!(client.head().await.is_some_and(|head| head.contains(" 200 ")), "{script}");
        let end = soon("the end", client.stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_err(), "{script}: a reset");
    }
    let mut client = http2::Client::connect(world.http()).await;
    for script in [CHUNKED, WITH_LENGTH, UNTIL_CLOSED] {
        origin.say(script);
        let reset = client.get(HOST, "/raw").await.expect_err("no orderly end");
        assert!(reset.is_reset(), "{script}: {reset}");
    }
    assert_eq!(client.get(HOST, "/").await.expect("an answer").status, 200, "the connection goes on");
    refused(&world, 8.0).await;
    world.stop().await;
}

#[tokio::test]
async fn the_record_of_a_cut_answer_has_its_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut world = World::with(|config| config.access_log = Some(log.into())).await;
    let origin = Origin::start("one").await;
    let environment = crate::world::under(POLICY, crate::world::ready(HOST, 1, &[&origin]));
    world.publish([crate::world::route(HOST), environment]).await;
    one_gap(&world, &origin).await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    crate::world::until("the record", || read().ends_with('\n')).await;
    let record: serde_json::Value = serde_json::from_str(&read()).expect("a record");
    assert_eq!((&record["status"], &record["refused"]), (&200.into(), &"response_timeout".into()));
    assert_eq!(record["ended_by"], "proxy");
    world.stop().await;
}

#[tokio::test]
async fn an_answer_without_a_body_is_whole_however_long_its_request_takes() {
    let by_hand = ByHand::with(POLICY, |_| {}).await;
    let mut client = by_hand.world.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello")).await;
    let mut instance = by_hand.asked().await;
    instance.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.is_some_and(|head| head.contains(" 204 ")));
    let cut = tokio::time::timeout(std::time::Duration::from_millis(500), client.until(b"never")).await;
    assert!(cut.is_err(), "several gaps later it is open");
    by_hand.world.stop().await;
}

#[tokio::test]
async fn the_first_byte_may_take_longer_than_a_gap() {
    let (world, origin) = world(POLICY).await;
    let mut slow = world.client().await;
    slow.send(format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    origin.got(1).await;
    one_gap(&world, &origin).await;
    one_gap(&world, &origin).await;
    origin.go();
    assert_eq!(slow.response().await.text(), "one");
    world.stop().await;
}

/// It is known by its answer, for that is all that a client of `Accept: */*` gives.
#[tokio::test]
async fn an_event_stream_may_be_silent_for_longer_than_a_gap() {
    let (world, origin) = world(POLICY).await;
    let mut client = world.client().await;
    client.send(format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n")).await;
    assert!(client.until(b"first\n\n").await.is_some());
    one_gap(&world, &origin).await;
    one_gap(&world, &origin).await;
    origin.go();
    assert!(client.until(b"second\n\n").await.is_some());
    world.stop().await;
}

#[tokio::test]
async fn p38_a_client_that_does_not_read_for_a_while_is_not_the_instances_fault() {
    // Longer than the pauses of an instance on a busy machine.
    let (world, origin) = world(r#"{"limits":{"gap_ms":1000}}"#).await;
    let length = 32 << 20;
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    origin.say([large, vec![b'x'; length]].concat());
    let mut one = world.client().await;
    one.send(format!("GET /raw HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let mut two = http2::Client::connect(world.http()).await;
    let (answer, mut stream) = two.begin(http2::request(http::Method::GET, HOST, "/raw")).await;
    stream.send_data(bytes::Bytes::new(), true).expect("its end");
    origin.got(2).await;
    for _ in 0..3 {
        one_gap(&world, &origin).await;
    }
    assert_eq!(one.response().await.body.len(), length);
    let answer = soon("an answer", http2::read(answer)).await.expect("a whole answer");
    assert_eq!(answer.body.len(), length);
    world.stop().await;
}
