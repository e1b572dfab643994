//! gRPC, client and server of others (grpcio): each call ends through the edge as it does without it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::world::part::{Part, beside, python, reserve};
use crate::world::{Edge, HOST, edge_with, soon};

/// P62: how soon a server sees that its client has cancelled a call.
const CANCELLED_WITHIN_MS: f64 = 100.0;
/// Tries of which the best one counts: the machine may do something else meanwhile.
const CANCELS: usize = 5;
/// The messages that one side sends of which the other takes nothing; a message has 256 KiB.
const MESSAGES: u64 = 256;
/// The most of them that may be under way: what both libraries and the edge keep.
const UNDER_WAY: u64 = 16;

/// How a client reaches the server.
#[derive(Clone, Copy, Debug)]
enum Way {
    Straight,
    Plain,
    Tls,
}

/// A client that makes the calls it is told.
struct Calls {
    _child: Child,
    tell: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Calls {
    async fn start(way: Way, server: &Part, edge: &Edge) -> Self {
        let mut command = Command::from(python("python"));
        command.arg(beside("python/grpc_client.py"));
        match way {
            Way::Straight => command.arg(server.address.to_string()).arg(HOST),
            Way::Plain => command.arg(edge.address("http").to_string()).arg(HOST),
            Way::Tls => command.arg(edge.address("https").to_string()).arg(HOST).arg(edge.path("own.pem")),
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let tell = child.stdin.take().unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(soon("the client", told.next_line()).await.unwrap().unwrap(), "begins");
        Self { _child: child, tell, told }
    }

    /// What came of a case, and what was measured.
    async fn case(&mut self, name: &str) -> (Value, Value) {
        self.tell.write_all(format!("{name}\n").as_bytes()).await.unwrap();
        let line = soon(name, self.told.next_line()).await.unwrap().expect("the client tells");
        let mut told: Value = serde_json::from_str(&line).unwrap();
        assert!(!told["verdict"].to_string().contains("Error: "), "{name}: {line}");
        (told["verdict"].take(), told["measured"].take())
    }
}

async fn server(port: u16, words: &[&str]) -> Part {
    let mut command = python("python");
    command.arg(beside("python/grpc_server.py")).arg(port.to_string()).args(words);
    Part::saying(command, "serves at ").await
}

/// An edge in front of a server.
async fn before(server: &Part) -> Edge {
    edge_with(server.address, json!({"protocol": "h2c"})).await
}

/// The verdicts of cases, one way, with a server of its own.
async fn verdicts(way: Way, cases: &[&str]) -> Vec<(Value, Value)> {
    let server = server(0, &[]).await;
    let edge = before(&server).await;
    let mut calls = Calls::start(way, &server, &edge).await;
    let mut all = Vec::new();
    for case in cases {
        all.push(calls.case(case).await);
    }
    all
}

/// The same verdicts each way; returns what was measured, of each way and case.
async fn alike(cases: &[&str]) -> Vec<Vec<Value>> {
    let (straight, plain, tls) =
        tokio::join!(verdicts(Way::Straight, cases), verdicts(Way::Plain, cases), verdicts(Way::Tls, cases));
    for (way, other) in [(Way::Plain, &plain), (Way::Tls, &tls)] {
        for ((case, expected), got) in cases.iter().zip(&straight).zip(other) {
            assert_eq!(got.0, expected.0, "{case}, {way:?}");
        }
    }
    [straight, plain, tls].into_iter().map(|all| all.into_iter().map(|(_, measured)| measured).collect()).collect()
}

#[tokio::test]
async fn calls_of_every_kind_go_through() {
    alike(&["unary", "collect", "several", "both", "metadata", "large", "idle"]).await;
}

#[tokio::test]
async fn p62_failures_keep_their_code_words_and_trailers() {
    alike(&["fail", "fail_late", "unimplemented"]).await;
}

#[tokio::test]
async fn p62_deadlines_and_cancellations_reach_the_server() {
    let cases = [&["deadline_told", "deadline_exceeded"][..], &["cancel"; CANCELS]].concat();
    for measured in alike(&cases).await {
        let best = measured[2..].iter().map(|measured| measured["ms"].as_f64().unwrap()).fold(f64::MAX, f64::min);
        eprintln!("cancelled after {best:.1} ms");
        assert!(best < CANCELLED_WITHIN_MS, "{measured:?}");
    }
}

#[tokio::test]
async fn who_does_not_take_messages_stops_who_sends_them() {
    for measured in alike(&["slow_reader", "slow_server"]).await {
        let (produced, sent) = (measured[0]["produced"].as_u64().unwrap(), measured[1]["sent"].as_u64().unwrap());
        eprintln!("{produced} and {sent} of {MESSAGES} under way");
        assert!(produced < UNDER_WAY && sent < UNDER_WAY, "{measured:?}");
    }
}

#[tokio::test]
async fn a_server_that_ends_its_connections_again_and_again_fails_no_call() {
    let server = server(0, &["100"]).await;
    let edge = before(&server).await;
    for way in [Way::Plain, Way::Tls] {
        let mut calls = Calls::start(way, &server, &edge).await;
        let (verdict, measured) = calls.case("many").await;
        assert_eq!(verdict, json!(["fine"]), "{way:?}, {measured}");
    }
}

#[tokio::test]
async fn a_server_that_is_started_anew_between_calls_fails_none() {
    let (address, _port) = reserve();
    let mut part = server(address.port(), &[]).await;
    let edge = before(&part).await;
    let mut calls = Calls::start(Way::Plain, &part, &edge).await;
    let (fine, _) = calls.case("unary").await;
    for round in 0..4 {
        // With a GOAWAY, or without a word.
        if round % 2 == 0 {
            part.stop().await;
        } else {
            drop(part);
        }
        part = server(address.port(), &[]).await;
        assert_eq!(calls.case("unary").await.0, fine, "round {round}");
    }
}
