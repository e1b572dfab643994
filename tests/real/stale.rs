//! Connections to an origin that it closes sooner than the edge does: what can be saved is, and nothing is asked twice that must not.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::program::Edge;
use crate::world::client::Client;
use crate::world::origins::node;
use crate::world::part::Part;
use crate::world::{HOST, edge, records, soon};

/// How long node keeps a connection; the edge keeps one for 4 s.
const KEEP_ALIVE_MS: u32 = 50;
/// How often it is asked about when node closes.
const ROUNDS: usize = 40;
/// Requests at a time.
const BURST: usize = 8;

/// How many of node's connections are open, this question's own apart.
async fn open(node: &Part) -> usize {
    let mut client = Client::connect(node.address).await;
    client.send(format!("GET /open HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
    client.response().await.text().parse::<usize>().unwrap() - 1
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
    let node = node(KEEP_ALIVE_MS).await;
    let edge = edge(node.address).await;
    for round in 0..10 {
        assert_eq!(burst(&edge, "POST", round * BURST).await, [200; BURST], "round {round}");
        soon("node to close all", async {
            while open(&node).await > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_closed_meanwhile_costs_no_get_and_no_post_comes_twice() {
    let node = node(KEEP_ALIVE_MS).await;
    let edge = edge(node.address).await;
    let (mut answered, mut lost) = (0, 0);
    for round in 0..ROUNDS {
        // Each of them comes first in every other round.
        let methods = if round % 2 == 0 { ["GET", "POST"] } else { ["POST", "GET"] };
        for method in methods {
            for status in burst(&edge, method, round * BURST).await {
                // A POST on a connection that was closed while it was sent: nobody knows whether it came.
                assert!(status == 200 || (status == 502 && method == "POST"), "{method}, round {round}: {status}");
                let count = if status == 200 { &mut answered } else { &mut lost };
                *count += usize::from(method == "POST");
            }
        }
        // About when node closes.
        sleep(Duration::from_millis(u64::from(KEEP_ALIVE_MS) - 4 + round as u64 % 8)).await;
    }
    let records = records(&edge, 2 * BURST * ROUNDS).await;
    // On a new connection nothing can be lost.
    assert!(records.iter().all(|record| record["status"] == 200 || record["reused"] == true), "{records:#?}");
    let again: u64 = records.iter().map(|record| record["retries"].as_u64().unwrap()).sum();
    eprintln!("{answered} POSTs answered, {lost} lost, {again} requests sent again");
    let counts = Client::connect(node.address).await.get(HOST, "/counts").await.text();
    let counts: Vec<(String, u64)> = serde_json::from_str(&counts).unwrap();
    let posts: Vec<_> = counts.iter().filter(|(id, _)| id.starts_with("POST")).collect();
    assert!(posts.iter().all(|(_, count)| *count == 1), "{posts:?}");
    assert!(posts.len() >= answered, "what was answered came: {} of {answered}", posts.len());
}
