//! Bodies between a fast side and a slow one: what the slow one does not take stays with the fast one, and not in the edge.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::world::origins::node;
use crate::world::{Edge, HOST, edge, http2, soon};

/// The length of each body.
const LENGTH: usize = 64 << 20;
/// Bodies at a time: together far more than the edge may take.
const BODIES: usize = 2;
/// What the slow side takes at a time, and how long it then rests.
const PIECE: usize = 256 << 10;
const REST: Duration = Duration::from_millis(2);
/// What the edge may have in memory of one body: windows, buffers of both sides, and what the allocator keeps.
const MAY_KEEP_KIB: i64 = 8 << 10;

/// Runs something, and looks at the edge's memory meanwhile; returns by how much it has grown at most.
async fn grown<F: Future>(edge: &Edge, work: F) -> i64 {
    let before = edge.memory_kib();
    let mut most = before;
    let watching = async {
        loop {
            most = most.max(edge.memory_kib());
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = work => {}
        () = watching => unreachable!("it goes on for ever"),
    }
    most - before
}

/// A client of HTTP/1.1 that takes an answer slowly.
async fn takes_slowly(to: SocketAddr) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let line = format!("GET /bytes/{LENGTH} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(line.as_bytes()).await.unwrap();
    let (mut piece, mut taken) = (vec![0; PIECE], 0);
    while let count @ 1.. = stream.read(&mut piece).await.unwrap() {
        taken += count;
        sleep(REST).await;
    }
    assert!(taken > LENGTH, "{taken}");
}

/// A client of HTTP/2 as they are: it does not hold its small frames back.
async fn speaks(to: SocketAddr) -> http2::Client {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    http2::Client::over(stream).await
}

/// The same over HTTP/2.
async fn takes_slowly_in_a_stream(to: SocketAddr) {
    let mut client = speaks(to).await;
    let (answer, mut sending) = client.begin(http2::request(Method::GET, HOST, &format!("/bytes/{LENGTH}"))).await;
    sending.send_data(Bytes::new(), true).unwrap();
    let (mut body, mut taken, mut piece) = (answer.await.unwrap().into_body(), 0, 0);
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        (taken, piece) = (taken + part.len(), piece + part.len());
        if piece >= PIECE {
            piece = 0;
            sleep(REST).await;
        }
    }
    assert_eq!(taken, LENGTH);
}

/// An origin, of hyper, that takes a body slowly.
async fn slow_origin() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mut serving) = (listener.local_addr().unwrap(), JoinSet::new());
    serving.spawn(async move { axum::serve(listener, Router::new().fallback(take)).await.unwrap() });
    (address, serving)
}

async fn take(body: Body) -> String {
    let (mut parts, mut taken, mut piece) = (body.into_data_stream(), 0, 0);
    while let Some(part) = parts.next().await {
        let count = part.unwrap().len();
        (taken, piece) = (taken + count, piece + count);
        if piece >= PIECE {
            piece = 0;
            sleep(REST).await;
        }
    }
    taken.to_string()
}

async fn sends(to: SocketAddr) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![7; PIECE];
    for _ in 0..LENGTH / PIECE {
        stream.write_all(&piece).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&LENGTH.to_string()), "{answer}");
}

async fn sends_in_a_stream(to: SocketAddr, body: Bytes) {
    let mut client = speaks(to).await;
    let answer = client.send(http2::request(Method::PUT, HOST, "/"), &body).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, LENGTH.to_string()));
}

fn check(what: &str, kib: i64) {
    eprintln!("{what}: {kib} KiB more");
    assert!(kib < BODIES as i64 * MAY_KEEP_KIB, "{what}: {kib} KiB more");
}

#[tokio::test]
async fn p38_answers_that_clients_take_slowly_stay_at_their_origin() {
    let node = node(5000).await;
    let edge = edge(node.address).await;
    let to = edge.address("http");
    let both = soon("bodies", grown(&edge, async { tokio::join!(takes_slowly(to), takes_slowly(to)) })).await;
    check("answers of HTTP/1.1", both);
    let both = async { tokio::join!(takes_slowly_in_a_stream(to), takes_slowly_in_a_stream(to)) };
    check("answers of HTTP/2", soon("bodies", grown(&edge, both)).await);
}

#[tokio::test]
async fn p38_bodies_that_an_origin_takes_slowly_stay_with_their_clients() {
    let (origin, _serving) = slow_origin().await;
    let edge = edge(origin).await;
    let to = edge.address("http");
    let both = soon("bodies", grown(&edge, async { tokio::join!(sends(to), sends(to)) })).await;
    check("bodies of HTTP/1.1", both);
    let body = Bytes::from(vec![7; LENGTH]);
    let both = async { tokio::join!(sends_in_a_stream(to, body.clone()), sends_in_a_stream(to, body)) };
    check("bodies of HTTP/2", soon("bodies", grown(&edge, both)).await);
}
