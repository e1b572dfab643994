//! Connections to an origin that it closes sooner than the edge does: what can be saved is, and nothing is asked twice that must not.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program::{Edge, PATIENCE};
use crate::world::client::Client;
use crate::world::origins::node;
use crate::world::{HOST, edge, records, soon};

/// How long node keeps a connection; the edge keeps one for 4 s.
const KEEP_ALIVE_MS: u32 = 50;
/// How often it is asked about when node closes, at least.
const ROUNDS: usize = 40;
/// Requests at a time.
const BURST: usize = 8;
/// How often one request is tried again.
const RETRIES: u64 = 2;

/// Whether anybody has a connection to that address whose own end is open (proc_pid_net(5)).
fn is_open(to: SocketAddr) -> bool {
    let (established, close_wait, remote) = ("01", "08", format!(":{:04X}", to.port()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|line| line[2].ends_with(&remote) && [established, close_wait].contains(&line[3]))
}

/// Asks as many at a time, and returns the statuses.
async fn burst(edge: &Edge, method: &'static str, first: usize) -> Vec<u16> {
    let mut asking = JoinSet::new();
    for number in first..first + BURST {
        let to = edge.address("http");
        asking.spawn(async move {
            let mut client = Client::connect(to).await;
            let body = if method == "POST" { "hello" } else { "" };
            let length = if method == "POST" { "Content-Length: 5\r\n" } else { "" };
            let line = format!("{method} /count/{method}{number} HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n{body}");
            client.send(line).await;
            client.response().await.status
        });
    }
    soon("answers", asking.join_all()).await
}

#[tokio::test]
async fn what_was_closed_before_is_not_used_whatever_the_method() {
    // By itself, it closes nothing.
    let node = node(60_000).await;
    let edge = edge(node.address).await;
    let mut closed = 0;
    for round in 0..10 {
        assert_eq!(burst(&edge, "POST", round * BURST).await, [200; BURST], "round {round}");
        let count = Client::connect(node.address).await.get(HOST, "/hang-up").await.text();
        closed += count.parse::<usize>().unwrap();
        soon("the edge to notice", async {
            while is_open(node.address) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert!(closed > 0, "it keeps connections");
}

/// How many requests the edge has sent again, and how many it did not for its budget.
async fn retries(edge: &Edge) -> (u64, u64) {
    let shown = Client::connect(edge.address("admin")).await.get("admin", "/connections").await;
    let shown: Value = serde_json::from_slice(&shown.body).unwrap();
    (shown["retries"]["done"].as_u64().unwrap(), shown["retries"]["refused"].as_u64().unwrap())
}

#[tokio::test]
async fn what_is_closed_meanwhile_costs_no_get_and_no_post_comes_twice() {
    let node = node(KEEP_ALIVE_MS).await;
    let edge = edge(node.address).await;
    let (mut answered, mut lost, mut round) = (0, 0, 0);
    let deadline = Instant::now() + PATIENCE;
    // Until a GET was on a connection that was closed meanwhile.
    while round < ROUNDS || retries(&edge).await == (0, 0) {
        assert!(Instant::now() < deadline, "a connection closes while it is used, in {round} rounds");
        // Each of them comes first in every other round.
        let methods = if round % 2 == 0 { ["GET", "POST"] } else { ["POST", "GET"] };
        for method in methods {
            let statuses = burst(&edge, method, round * BURST).await;
            assert!(statuses.iter().all(|status| [200, 502].contains(status)), "{method}, round {round}: {statuses:?}");
            if method == "POST" {
                // On a connection that was closed while it was sent: nobody knows whether it came.
                let good = statuses.iter().filter(|status| **status == 200).count();
                (answered, lost) = (answered + good, lost + BURST - good);
            }
        }
        // About when node closes.
        sleep(Duration::from_millis(u64::from(KEEP_ALIVE_MS) - 4 + round as u64 % 8)).await;
        round += 1;
    }
    let records = records(&edge, 2 * BURST * round).await;
    // On a new connection nothing can be lost.
    assert!(records.iter().all(|record| record["status"] == 200 || record["reused"] == true), "{records:#?}");
    // A GET is lost only where it has had its tries, or where too many have; that is counted.
    let may_go_on = |record: &&Value| record["method"] == "GET" && record["retries"] != RETRIES;
    let gets = records.iter().filter(may_go_on).filter(|record| record["status"] != 200).count() as u64;
    let (again, refused) = retries(&edge).await;
    assert_eq!(gets, refused, "{records:#?}");
    eprintln!("{round} rounds: {answered} POSTs answered, {lost} lost, {again} requests sent again, {refused} not");
    let counts = Client::connect(node.address).await.get(HOST, "/counts").await.text();
    let counts: Vec<(String, u64)> = serde_json::from_str(&counts).unwrap();
    let posts: Vec<_> = counts.iter().filter(|(id, _)| id.starts_with("POST")).collect();
    assert!(posts.iter().all(|(_, count)| *count == 1), "{posts:?}");
    assert!(posts.len() >= answered, "what was answered came: {} of {answered}", posts.len());
}
