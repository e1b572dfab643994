//! Which trace and which id a request has, behind the edge and in its record.

use dormouse_proxy::{Share, Spans};
use serde_json::Value;

use crate::world::World;
use crate::world::http2::{self, request};
use crate::world::origin::Origin;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_clients_trace_goes_on_and_without_a_collector_none_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let mut world = World::with(|config| config.access_log = Some(log.clone().into())).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    let long = format!("{PARENT}x");
    for fields in [
        format!("traceparent: {PARENT}\r\ntracestate: a=b\r\n"),
        String::new(),
        format!("traceparent: {long}\r\ntracestate: a=b\r\n"),
        format!("traceparent: {PARENT}\r\nTraceParent: {PARENT}\r\n"),
        "tracestate: a=b\r\n".to_owned(),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).await;
        assert_eq!(client.response().await.status, 200);
    }
    let requests = origin.requests();
    assert_eq!(
        (requests[0].field("traceparent"), requests[0].field("tracestate")),
        (vec![PARENT.into()], vec!["a=b".into()])
    );
    for request in &requests[1..] {
        assert!(request.field("traceparent").is_empty(), "nobody would record it: {request:?}");
        assert!(request.field("tracestate").is_empty(), "a state of no trace says nothing");
    }
    world.stop().await;
    let text = std::fs::read_to_string(&log).expect("the log");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(records.len(), 5);
    assert!(records[1..].iter().all(|record| record["trace_id"] == ""), "{text}");
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_goes_on_as_such_and_a_clients_own_is_recorded() {
    for (share, flag, recorded) in [(0.0, "-00", 1), (1.0, "-01", 2)] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("access.log");
        let (spans, queued) = Spans::queue(Share::of(share).expect("a share"));
        let mut world = World::with(|config| {
            config.spans = Some(spans);
            config.access_log = Some(log.clone().into());
        })
        .await;
        let origin = Origin::start("one").await;
        world.serve("a.example", &[&origin]).await;
        let mut client = world.client().await;
        for fields in [String::new(), format!("traceparent: {PARENT}\r\n")] {
            client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).await;
            assert_eq!(client.response().await.status, 200);
        }
        let told: Vec<_> = origin.requests().iter().map(|request| request.field("traceparent")).collect();
        assert!(told[0].len() == 1 && told[0][0].ends_with(flag), "{told:?}");
        assert!(told[1].len() == 1 && told[1][0].starts_with(&PARENT[..36]) && told[1][0].ends_with("-01"), "{told:?}");
        assert_ne!(told[1][0], PARENT, "there is a span of the edge's between");
        world.stop().await;
        assert_eq!(queued.try_iter().count(), recorded, "{share}");
        let text = std::fs::read_to_string(&log).expect("the log");
        let record: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        assert_eq!(record["trace_id"], told[0][0][3..35], "it is known by its id all the same");
    }
}

#[tokio::test]
async fn a_stream_is_part_of_a_trace_as_a_request_is() {
    let (world, origin) = http2::world(|_| {}).await;
    let mut client = http2::Client::connect(world.http()).await;
    let mut asked = request(http::Method::GET, "a.example", "/");
    asked.headers_mut().insert("traceparent", PARENT.parse().expect("a value"));
    client.send(asked, b"").await.expect("an answer");
    client.get("a.example", "/").await.expect("an answer");
    let requests = origin.requests();
    assert_eq!(requests[0].field("traceparent"), [PARENT]);
    assert!(requests[1].field("traceparent").is_empty());
    world.stop().await;
}

#[tokio::test]
async fn p25_an_id_of_a_request_is_taken_from_trusted_proxies_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    for (trusted, sent, kept) in [
        (Some("127.0.0.1"), "abc-1", true),
        (Some("127.0.0.1"), "with space", false),
        (Some("127.0.0.1"), "a\"b", false),
        (Some("127.0.0.1"), "", false),
        (Some("127.0.0.1"), &*"x".repeat(129), false),
        (Some("10.0.0.1"), "abc-1", false),
        (None, "abc-1", false),
    ] {
        let log = folder.path().join(format!("{trusted:?}{}.log", sent.len()));
        let mut world = World::with(|config| {
            config.access_log = Some(log.clone().into());
            config.listeners[0].trust_forwarded_from = trusted.into_iter().map(|text| text.parse().unwrap()).collect();
        })
        .await;
        let origin = Origin::start("one").await;
        world.serve("a.example", &[&origin]).await;
        let mut client = world.client().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: {sent}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, 200);
        let id = origin.requests()[0].field("x-request-id");
        assert_eq!((id.len(), id[0] == sent), (1, kept), "{trusted:?} {sent:?} {id:?}");
        world.stop().await;
        let text = std::fs::read_to_string(&log).expect("the log");
        let record: Value = serde_json::from_str(&text).expect("one line");
        assert_eq!(record["request_id"], id[0].as_str());
        std::fs::remove_file(log).expect("the log");
    }
}
