//! Bodies stream both ways, and nothing is held back.

use crate::world::World;
use crate::world::origin::Origin;

const LARGE: usize = 3 << 20;

async fn world() -> (World, Origin) {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    (world, origin)
}

fn body() -> Vec<u8> {
    (0..LARGE).map(|at| (at * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn large_bodies_pass_both_ways_with_a_length() {
    let (world, _origin) = world().await;
    let mut client = world.client().await;
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    client.send(body()).await;
    assert!(client.response().await.body == body());
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways_in_chunks() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("POST /chunked HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for chunk in body().chunks(50_001) {
        client.send(format!("{:X};ext=1\r\n", chunk.len())).await;
        client.send(chunk).await;
        client.send("\r\n").await;
    }
    client.send("0\r\nX-Trailer: dropped\r\n\r\n").await;
    assert!(client.response().await.body == body());
    assert!(origin.requests()[0].body == body());
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_ends_with_the_upstream_connection_ends_in_a_last_chunk() {
    let (world, _origin) = world().await;
    let mut client = world.client().await;
    assert_eq!(client.get("a.example", "/until-closed").await.text(), "to the end");
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p61_an_event_arrives_before_the_next_one_is_there() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("GET /events HTTP/1.1\r\nHost: a.example\r\nAccept: text/event-stream\r\n\r\n").await;
    assert!(client.head().await.expect("a head").contains("text/event-stream"));
    assert!(client.until(b"data: first\n\n").await.is_some());
    origin.go();
    assert!(client.until(b"data: second\n\n").await.is_some());
    world.stop().await;
}

#[tokio::test]
async fn p39_a_body_over_the_limit_is_refused_and_a_long_one_before_anybody_sees_it() {
    let origin = Origin::start("one").await;
    let mut world = World::with(|config| config.limits.body_bytes = 1000).await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n").await;
    assert_eq!(client.response().await.status, 413);
    for _ in 0..10 {
        client.send(vec![b'x'; 10_000]).await;
    }
    assert!(client.closed().await, "after it was let to finish, and not by a reset");
    assert_eq!(origin.requests().len(), 0);
    let mut client = world.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(format!("{:x}\r\n{}\r\n0\r\n\r\n", 1001, "x".repeat(1001))).await;
    assert_eq!(client.response().await.status, 413);
    world.stop().await;
}
