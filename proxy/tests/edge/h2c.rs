//! Instances that speak HTTP/2 without TLS.

use std::sync::atomic::Ordering;

use dormouse_proxy::Http2;
use http::Method;

use crate::choosing::balanced;
use crate::world::h2c::{H2cOrigin, LARGE};
use crate::world::origin::Origin;
use crate::world::{World, http2, route, until};

const POLICY: &str = r#"{"protocol":"h2c"}"#;

async fn world() -> (World, H2cOrigin) {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = H2cOrigin::start("one").await;
    world.publish([route("a.example"), balanced("a.example", 1, &[&origin.origin], POLICY)]).await;
    (world, origin)
}

#[tokio::test]
async fn what_clients_send_in_any_protocol_reaches_the_instance() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    for (head, body) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n", ""),
        ("POST /a?b=c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n", "hello"),
        ("POST /a?b=c HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
        ("GET http://a.example/a?b=c HTTP/1.1\r\nHost: a.example\r\n", ""),
        ("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: x-mine\r\nX-Mine: 1\r\n", ""),
    ] {
        client.send(format!("{head}\r\n{body}")).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{head}");
        let method = head.split(' ').next().expect("a method");
        for (name, value) in [
            ("x-method", method),
            ("x-authority", "a.example"),
            ("x-path", "/a?b=c"),
            ("x-host-fields", "0"),
            ("x-forwarded", "127.0.0.1"),
        ] {
            assert_eq!(answer.field(name).as_deref(), Some(value), "{head}");
        }
    }
    let fields = "Host: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";
    client.send(format!("POST /waits HTTP/1.1\r\n{fields}\r\n")).await;
    assert!(client.head().await.expect("a head").starts_with("HTTP/1.1 100 "));
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    let mut client = http2::Client::connect(world.http()).await;
    let large = vec![7; 300_000];
    let answer = client.send(http2::request(Method::PUT, "a.example", "/x"), &large).await.expect("an answer");
    assert_eq!((answer.status, answer.body.len(), answer.field("x-method")), (200, large.len(), Some("PUT")));
    assert_eq!(answer.field("x-authority"), Some("a.example"));
    // Without it, servers of gRPC refuse a call.
    let mut request = http2::request(Method::POST, "a.example", "/x");
    request.headers_mut().insert("te", "trailers".parse().expect("a value"));
    let answer = client.send(request, b"").await.expect("an answer");
    assert_eq!(answer.field("x-te"), Some("trailers"));
    assert!(origin.connections() <= 2, "at most one of each worker");
    world.stop().await;
}

#[tokio::test]
async fn what_a_route_rewrites_reaches_the_instance_rewritten() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = H2cOrigin::start("one").await;
    let rules = r#"{"kind":"route","host":"a.example","rules":[
        {"path":"/api","environment":"a.example","replace_prefix":"/","rewrite_host":"api.internal"}]}"#;
    let rules = serde_json::from_str(rules).expect("a route");
    world.publish([rules, balanced("a.example", 1, &[&origin.origin], POLICY)]).await;
    let mut client = world.client().await;
    for target in ["/api/v1?b=c", "http://a.example/api/v1?b=c"] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        let answer = client.response().await;
        assert_eq!(answer.field("x-path").as_deref(), Some("/v1?b=c"), "{target}");
        assert_eq!(answer.field("x-authority").as_deref(), Some("api.internal"), "{target}");
    }
    let mut client = http2::Client::connect(world.http()).await;
    let answer = client.get("a.example", "/api/v1?b=c").await.expect("an answer");
    assert_eq!((answer.field("x-path"), answer.field("x-authority")), (Some("/v1?b=c"), Some("api.internal")));
    world.stop().await;
}

/// It knows no chunks, and the end of its connection would be one of a broken answer, too.
#[tokio::test]
async fn a_client_of_http_1_0_gets_answers_with_a_length_and_is_told_of_others() {
    let (world, _origin) = world().await;
    for (path, status) in [("/length", 200), ("/", 505)] {
        let mut client = world.client().await;
        client.send(format!("GET {path} HTTP/1.0\r\nHost: a.example\r\n\r\n")).await;
        let answer = client.response().await;
        assert_eq!(answer.status, status, "{path}: {}", answer.head);
        assert_eq!(answer.field("transfer-encoding"), None, "{path}");
    }
    world.stop().await;
}

#[tokio::test]
async fn requests_share_a_connection_and_p72_epochs_and_environments_do_not() {
    let (mut world, origin) = world().await;
    // One connection of a client is one worker's.
    let mut client = http2::Client::connect(world.http()).await;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut place = client.ready().await.expect("a place");
        waiting.push(place.send_request(http2::request(Method::GET, "a.example", "/wait"), true).expect("a request").0);
    }
    until("requests at the instance", || origin.requests() == 10).await;
    let before = origin.connections();
    origin.seen.go.0.add_permits(10);
    for answer in waiting {
        assert_eq!(http2::read(answer).await.expect("an answer").status, 200);
    }
    client.get("a.example", "/").await.expect("an answer");
    assert_eq!(origin.connections(), before, "it is kept for the next");
    world.publish([balanced("a.example", 2, &[&origin.origin], POLICY)]).await;
    client.get("a.example", "/").await.expect("an answer");
    assert_eq!(origin.connections(), before + 1, "never across epochs");
    world.publish([route("b.example"), balanced("b.example", 2, &[&origin.origin], POLICY)]).await;
    client.get("b.example", "/").await.expect("an answer");
    assert_eq!(origin.connections(), before + 2, "nor across environments");
    world.stop().await;
}

#[tokio::test]
async fn what_the_instance_refused_unseen_is_asked_again_whatever_the_method() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    origin.seen.refuse.store(1, Ordering::SeqCst);
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.requests(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_stop_the_others() {
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        config.workers = 1;
    })
    .await;
    let origin = H2cOrigin::start("one").await;
    world.publish([route("a.example"), balanced("a.example", 1, &[&origin.origin], POLICY)]).await;
    let mut deaf = Vec::new();
    for _ in 0..3 {
        let mut client = http2::Client::connect(world.http()).await;
        let mut place = client.ready().await.expect("a place");
        let (answer, _) =
            place.send_request(http2::request(Method::GET, "a.example", "/large"), true).expect("a request");
        deaf.push((answer.await.expect("an answer"), client));
    }
    let mut other = http2::Client::connect(world.http()).await;
    let answer = other.get("a.example", "/large").await.expect("an answer");
    assert_eq!((answer.body.len(), origin.connections()), (LARGE, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_at_the_instance() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    until("the request", || origin.requests() == 1).await;
    drop(client);
    until("the reset", || origin.seen.resets.load(Ordering::SeqCst) == 1).await;
    world.stop().await;
}

#[tokio::test]
async fn an_instance_that_speaks_something_else_is_a_bad_gateway() {
    let (mut world, _) = world().await;
    let other = Origin::start("other").await;
    world.publish([route("b.example"), balanced("b.example", 1, &[&other], POLICY)]).await;
    assert_eq!(world.get("b.example", "/").await.status, 502);
    let mut client = http2::Client::connect(world.http()).await;
    assert_eq!(client.get("b.example", "/").await.expect("an answer").status, 502);
    world.stop().await;
}
