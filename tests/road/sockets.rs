//! WebSockets and sleep: who has an open page is nobody, and who says something is somebody.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::world::{SOON, World};

const ASK: &str = "GET / HTTP/1.1\r\nHost: shop-test.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const PING: &[u8] = &[0x89, 0x80, 1, 2, 3, 4];
const TEXT: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, b'x'];
/// "Going away".
const CLOSE: &[u8] = &[0x88, 2, 0x03, 0xe9];
/// The idle time of these environments. Edges report what they saw once a second.
const IDLE: Duration = Duration::from_secs(1);
/// Between two frames of a client.
const OFTEN: Duration = Duration::from_millis(250);

/// A world whose Test sleeps soon, with an open WebSocket.
async fn opened() -> (World, TcpStream) {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    world.set("shop", "test", json!({ "sleep_after_ms": IDLE.as_millis() as u64 })).await;
    let mut client =
        TcpStream::connect(world.addresses().http.expect("http is served")).await.expect("the edge accepts");
    client.write_all(ASK.as_bytes()).await.expect("the edge reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, client.read_u8()).await.expect("an answer").expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    (world, client)
}

/// Sends a frame every so often for a while, or until the edge ends it; returns what came.
async fn says(client: &mut TcpStream, frame: &[u8], time: Duration) -> Vec<u8> {
    let (until, mut came) = (Instant::now() + time, Vec::new());
    while Instant::now() < until {
        if client.write_all(frame).await.is_err()
            || !matches!(timeout(OFTEN, client.read_buf(&mut came)).await, Err(_) | Ok(Ok(1..)))
        {
            break;
        }
    }
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p90_a_websocket_that_only_pings_lets_its_environment_sleep_and_hears_of_it() {
    let (world, mut client) = opened().await;
    assert_eq!(says(&mut client, PING, SOON).await, CLOSE, "going away, and then the end");
    world.until("shop", "test", "asleep").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p90_a_websocket_with_data_keeps_its_environment_awake_for_as_long_as_that_comes() {
    let (world, mut client) = opened().await;
    let before = world.fake.as_ref().expect("the fake").starts();
    assert_eq!(says(&mut client, TEXT, IDLE * 8).await, b"", "it goes on");
    assert_eq!(world.fake.as_ref().expect("the fake").starts(), before, "it was never stopped");
    assert_ne!(world.environment("shop", "test").await["state"], "asleep");
    assert_eq!(says(&mut client, PING, SOON).await, CLOSE);
    world.until("shop", "test", "asleep").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleep_that_is_asked_for_ends_a_silent_websocket_and_not_one_with_data() {
    let (world, mut client) = opened().await;
    world.set("shop", "test", json!({ "sleep_after_ms": 3_600_000 })).await;
    let (came, end) = tokio::join!(says(&mut client, TEXT, IDLE * 4), world.put_to_sleep("shop", "test"));
    assert!(came.is_empty() && !end.ok, "somebody is there: {}", end.text);
    let silent = IDLE * 3;
    assert_eq!(says(&mut client, PING, silent).await, b"");
    let (came, end) = tokio::join!(says(&mut client, PING, SOON), world.put_to_sleep("shop", "test"));
    assert!(came == CLOSE && end.ok, "{}", end.text);
}
