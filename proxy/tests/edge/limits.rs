//! Listeners with limits of their own, beside one that has the edge's.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dormouse_proxy::{Http2, Listener, ListenerLimits};
use serde_json::Value;

use crate::world::World;
use crate::world::client::Client;
use crate::world::http2;
use crate::world::origin::Origin;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const HOUR: Duration = Duration::from_secs(60 * 60);

/// With a second listener, `strict`, that has these limits; where it is.
async fn strict(limits: ListenerLimits) -> (World, SocketAddr, Origin) {
    let mut world = World::with(|config| {
        let strict = Listener { name: "strict".to_owned(), http2: Http2::On, limits, ..Listener::http(ANY) };
        config.listeners.push(strict);
        config.limits.connections_per_client = Some(50);
        // What ends in a test's time is ended by a limit of the listener's own.
        let times = [&mut config.limits.head, &mut config.limits.keep_alive, &mut config.limits.body_gap];
        times
            .into_iter()
            .chain([&mut config.limits.tls_handshake, &mut config.limits.client_write])
            .for_each(|time| *time = HOUR);
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let at = world.proxy.as_ref().expect("running").address("strict").expect("it listens");
    (world, at, origin)
}

async fn status(at: SocketAddr, request: &str) -> u16 {
    let mut client = Client::connect(at).await;
    client.send(request).await;
    client.response().await.status
}

#[tokio::test]
async fn sizes_are_those_of_the_listener() {
    let limits = ListenerLimits {
        head_bytes: Some(2000),
        target_bytes: Some(100),
        body_bytes: Some(10),
        ..ListenerLimits::default()
    };
    let (world, at, _origin) = strict(limits).await;
    let (long, large) = ("x".repeat(200), "x".repeat(3000));
    for (request, refused) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a.example\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {large}\r\n\r\n"), 431),
        ("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\nhello world".to_owned(), 413),
        (
            "POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"
                .to_owned(),
            413,
        ),
    ] {
        assert_eq!(status(at, &request).await, refused, "{request}");
        assert_eq!(status(world.http(), &request).await, 200, "{request}");
    }
    // Its streams have them, too.
    let mut client = http2::Client::connect(at).await;
    let request = || http2::request(http::Method::POST, "a.example", "/echo");
    assert_eq!(client.send(request(), b"hello world").await.expect("an answer").status, 413);
    assert_eq!(client.send(request(), b"hello").await.expect("an answer").status, 200);
    world.stop().await;
}

#[tokio::test]
async fn times_are_those_of_the_listener() {
    let short = Some(Duration::from_millis(200));
    let limits = ListenerLimits { head: short, keep_alive: short, body_gap: short, ..ListenerLimits::default() };
    let (world, at, _origin) = strict(limits).await;
    for (request, ends) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n", 408),
        ("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhel", 408),
    ] {
        assert_eq!(status(at, request).await, ends, "{request}");
    }
    let mut idle = Client::connect(at).await;
    let mut other = world.client().await;
    assert_eq!(idle.get("a.example", "/").await.status, 200);
    assert_eq!(other.get("a.example", "/").await.status, 200);
    assert!(idle.closed().await, "it was idle for too long");
    assert_eq!(other.get("a.example", "/").await.status, 200, "the other listener's may be");
    world.stop().await;
}

#[tokio::test]
async fn as_many_connections_as_a_listener_may_have_leave_room_at_the_others() {
    let (world, at, _origin) = strict(ListenerLimits { connections: Some(2), ..ListenerLimits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(at).await;
        assert_eq!(client.get("a.example", "/").await.status, 200);
        held.push(client);
    }
    assert!(Client::connect(at).await.closed().await, "a third one");
    assert_eq!(world.get("a.example", "/").await.status, 200);
    let shown = Client::connect(world.admin()).await.get("admin", "/connections").await;
    let shown: Value = serde_json::from_slice(&shown.body).expect("JSON");
    assert_eq!(shown["refused"]["connections"], 1, "{shown}");
    world.stop().await;
}

#[tokio::test]
async fn connections_are_counted_for_the_listener_and_for_the_edge() {
    let limits = ListenerLimits { connections: Some(3), connections_per_client: Some(2), ..ListenerLimits::default() };
    let (world, at, _origin) = strict(limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(at).await;
        assert_eq!(client.get("a.example", "/").await.status, 200);
        held.push(client);
    }
    assert!(Client::connect(at).await.closed().await, "a third one of this client");
    for _ in 0..5 {
        let mut client = world.client().await;
        assert_eq!(client.get("a.example", "/").await.status, 200, "those count for the edge");
        held.push(client);
    }
    let shown = Client::connect(world.admin()).await.get("admin", "/connections").await;
    let shown: Value = serde_json::from_slice(&shown.body).expect("JSON");
    assert_eq!((&shown["refused"]["clients"], &shown["open"]), (&1.into(), &7.into()), "{shown}");
    let listeners = shown["listeners"].as_array().expect("all");
    let told: Vec<_> = listeners.iter().map(|room| (room["name"].as_str(), room["open"].as_u64())).collect();
    assert_eq!(told, [(Some("http"), Some(5)), (Some("strict"), Some(2))]);
    assert_eq!(listeners[1]["limit"], 3);
    world.stop().await;
}
