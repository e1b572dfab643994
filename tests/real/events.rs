//! Event streams of others: an event is there when its origin has sent it, and nothing waits for more.

use std::net::SocketAddr;
use std::time::Duration;

use crate::world::client::Client;
use crate::world::origins::{node, uvicorn};
use crate::world::{HOST, edge, http2, soon};

/// The origin sends its second event only when somebody has confirmed that the first one came.
async fn in_order(origin: SocketAddr) {
    let edge = edge(origin).await;
    let confirm = async || assert_eq!(Client::connect(origin).await.get(HOST, "/confirm").await.status, 200);

    let mut client = Client::connect(edge.address("http")).await;
    client.send(format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n")).await;
    soon("the first event", client.until(b"data: first\n\n")).await.expect("the first event");
    confirm().await;
    soon("the second event", client.until(b"data: second\n\n")).await.expect("the second event");

    let mut client = http2::Client::connect(edge.address("http")).await;
    let (answer, mut sending) = client.begin(http2::request(http::Method::GET, HOST, "/events")).await;
    sending.send_data(bytes::Bytes::new(), true).unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    let mut came = Vec::new();
    for event in ["data: first\n\n", "data: second\n\n"] {
        while came != event.as_bytes() {
            came.extend_from_slice(&soon(event, body.data()).await.expect("an event").unwrap());
        }
        came.clear();
        if event.contains("first") {
            confirm().await;
        }
    }
}

/// P61: how soon after its origin has sent it a client has an event.
const EVENT_WITHIN: Duration = Duration::from_millis(50);

#[tokio::test]
async fn p61_an_event_of_node_is_there_before_the_next_is_sent() {
    let node = node(5000).await;
    in_order(node.address).await;
}

#[tokio::test]
async fn p61_an_event_of_uvicorn_is_there_before_the_next_is_sent() {
    let uvicorn = uvicorn().await;
    in_order(uvicorn.address).await;
}

/// Of several, the soonest counts: the machine may do something else meanwhile.
#[tokio::test]
async fn p61_an_event_is_there_within_50_ms() {
    let node = node(5000).await;
    let edge = edge(node.address).await;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut client = Client::connect(edge.address("http")).await;
        client.send(format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        client.until(b"data: first\n\n").await.expect("the first event");
        // Its answer comes right after the event was sent.
        let mut other = Client::connect(node.address).await;
        other.get(HOST, "/confirm").await;
        let sent = tokio::time::Instant::now();
        soon("the second event", client.until(b"data: second\n\n")).await.expect("the second event");
        best = best.min(sent.elapsed());
    }
    eprintln!("{best:?} after it was sent");
    assert!(best < EVENT_WITHIN, "{best:?}");
}
