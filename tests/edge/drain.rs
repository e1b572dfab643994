//! Told to stop, it says so first, and nobody who came in time is turned away.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Answer, GOING_AWAY, UPGRADE, ask, head};
use crate::program::{Edge, folder, get, origin, soon};
use crate::speaker::{NoAnswer, Speaker};

const ANY: &str = "127.0.0.1:0";

async fn ready(edge: &Edge) -> bool {
    let mut admin = TcpStream::connect(edge.address("admin")).await.unwrap();
    ask(&mut admin, "GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").await.is_ok()
}

#[tokio::test]
async fn readiness_falls_first_and_all_is_served_until_the_delay_is_over() {
    let one = origin("one").await;
    let words = ["--http", ANY, "--admin", ANY, "--drain-delay", "1h"];
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    let mut idle = TcpStream::connect(edge.address("http")).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    ask(&mut idle, request).await.unwrap();
    assert!(ready(&edge).await);
    edge.signal("TERM").await;
    edge.says("/readyz says so").await;
    assert!(!ready(&edge).await);
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    assert!(matches!(ask(&mut idle, request).await.unwrap(), Answer::Whole { closing: false }));
    // A table that changes meanwhile is served, too.
    crate::program::write_table(edge.folder(), &[("b.example", &one)]);
    edge.until("b.example", Ok("one")).await;
    edge.signal("TERM").await;
    assert!(edge.ended().await.success(), "a second signal ends it at once");
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn it_ends_by_itself_when_the_delay_is_over_and_nothing_runs() {
    let mut edge = Edge::with(folder(&[]), &["--http", ANY, "--drain-delay", "100ms", "--drain", "1h"]).await;
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
}

#[tokio::test]
async fn upgraded_connections_are_closed_one_by_one() {
    let one = origin("one").await;
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &["--http", ANY, "--drain", "8s"]).await;
    let mut sockets = JoinSet::new();
    for _ in 0..24 {
        let mut socket = TcpStream::connect(edge.address("http")).await.unwrap();
        socket.write_all(UPGRADE.as_bytes()).await.unwrap();
        assert!(head(&mut socket).await.unwrap().starts_with("HTTP/1.1 101"));
        sockets.spawn(async move {
            let mut last = Vec::new();
            soon("its end", socket.read_to_end(&mut last)).await.expect("closed, and not reset");
            assert_eq!(last, GOING_AWAY);
            Instant::now()
        });
    }
    edge.signal("TERM").await;
    let mut ends = Vec::new();
    while let Some(end) = sockets.join_next().await {
        ends.push(end.unwrap());
    }
    let over = ends[23] - ends[0];
    assert!(over > Duration::from_secs(1), "they were closed within {over:?}");
    assert!(edge.ended().await.success());
}

#[tokio::test]
async fn who_waits_to_be_accepted_when_it_is_told_to_stop_is_served() {
    let one = origin("one").await;
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &["--http", ANY]).await;
    edge.signal("STOP").await;
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let stream = TcpStream::connect(edge.address("http")).await.unwrap();
        waiting.spawn(get(stream, "a.example"));
    }
    edge.signal("TERM").await;
    edge.signal("CONT").await;
    while let Some(answer) = soon("an answer", waiting.join_next()).await {
        assert_eq!(answer.unwrap(), Ok("one".to_owned()));
    }
    assert!(edge.ended().await.success());
}

const EVENTS: &str = "text/event-stream";
const GRPC: &str = "application/grpc";

/// When each ended, in order, counted from a signal to stop that comes when all run.
async fn ends(edge: &mut Edge, mut streams: JoinSet<(&'static str, Instant)>) -> Vec<(&'static str, Duration)> {
    let began = Instant::now();
    edge.signal("TERM").await;
    let mut ends = Vec::new();
    while let Some(end) = soon("its end", streams.join_next()).await {
        let (kind, end) = end.unwrap();
        ends.push((kind, end - began));
    }
    ends
}

/// Each has its half of the time, and none waits for what is cut off.
fn one_by_one(ends: &[(&str, Duration)], drain: Duration, kinds: &[&str]) {
    let ((_, first), (_, last)) = (ends[0], ends[ends.len() - 1]);
    assert!(first >= drain / 2, "{ends:?}");
    assert!(last - first > drain / 10, "not all at once: {ends:?}");
    for kind in kinds {
        // Of eight the first has its turn early; on a busy machine the last one may come to the very end.
        let (_, first) = ends.iter().find(|(other, _)| other == kind).unwrap();
        assert!(*first < drain - drain / 10, "{kind}: {ends:?}");
    }
}

#[tokio::test]
async fn event_streams_are_closed_one_by_one_in_the_second_half() {
    const DRAIN: Duration = Duration::from_secs(8);
    let one = origin("one").await;
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &["--http", ANY, "--drain", "8s"]).await;
    let mut streams = JoinSet::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(edge.address("http")).await.unwrap();
        // Not every client says what it expects.
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        assert!(head(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
        streams.spawn(async move {
            let mut events = Vec::new();
            soon("its end", stream.read_to_end(&mut events)).await.expect("closed, and not reset");
            assert!(events.len() > 100 && !events.ends_with(b"0\r\n\r\n"), "it did not end by itself");
            (EVENTS, Instant::now())
        });
    }
    let ends = ends(&mut edge, streams).await;
    one_by_one(&ends, DRAIN, &[EVENTS]);
    assert!(edge.ended().await.success());
}

#[tokio::test]
async fn streams_over_http2_are_closed_by_connection_and_what_else_runs_there_is_answered() {
    const DRAIN: Duration = Duration::from_secs(8);
    let one = origin("one").await;
    let words = ["--http", ANY, "--http2-prior-knowledge", "--drain", "8s"];
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    let mut streams = JoinSet::new();
    for number in 0..16 {
        let speaker = Speaker::connect(edge.address("http")).await.unwrap();
        let (method, path, kind) = match number % 2 {
            0 => (Method::GET, "/events", EVENTS),
            _ => (Method::POST, "/grpc", GRPC),
        };
        let (status, mut body) = speaker.begin(method, path, kind).await.unwrap();
        assert_eq!(status, 200);
        streams.spawn(async move {
            // What is asked until it says GOAWAY is answered.
            loop {
                match speaker.get("/slow").await {
                    Ok((status, text)) => assert_eq!((status, text.as_str()), (200, "one")),
                    Err(NoAnswer::NotSent(error)) if error.is_go_away() => break,
                    Err(error) => panic!("{error:?}"),
                }
            }
            // Either way, it did not end by itself.
            let end = async {
                while let Some(Ok(part)) = body.data().await {
                    body.flow_control().release_capacity(part.len()).unwrap();
                }
            };
            soon("its end", end).await;
            (kind, Instant::now())
        });
    }
    let ends = ends(&mut edge, streams).await;
    one_by_one(&ends, DRAIN, &[EVENTS, GRPC]);
    assert!(edge.ended().await.success());
}
