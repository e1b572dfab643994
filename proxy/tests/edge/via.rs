//! `Via`: what instances are told of the way of a request, and that no request goes round in a circle.

use dormouse_proxy::Http2;
use http::{HeaderValue, Method};

use crate::edits::changing;
use crate::world::h2c::H2cOrigin;
use crate::world::origin::Origin;
use crate::world::scrape::comes_to;
use crate::world::{World, http2, ready, route, soon};

const HOST: &str = "a.example";

#[tokio::test]
async fn instances_are_told_in_which_version_a_request_came_after_what_other_proxies_say() {
    let (world, origin) = http2::world(|_| {}).await;
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nVia: 1.0 fred\r\nHost: {HOST}\r\nvia: 1.1 p (x)\r\n\r\n")).await;
    assert_eq!(client.response().await.field("via"), None, "a client knows whom it asked");
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    client.response().await;
    let mut request = http2::request(Method::GET, HOST, "/");
    request.headers_mut().insert("via", HeaderValue::from_static("1.0 fred"));
    http2::Client::connect(world.http()).await.send(request, b"").await.expect("an answer");
    let vias: Vec<_> = origin.requests().iter().map(|request| request.field("via")).collect();
    assert_eq!(
        vias,
        [vec!["1.0 fred", "1.1 p (x)", "1.1 dormouse"], vec!["1.0 dormouse"], vec!["1.0 fred", "2 dormouse"]]
    );
    world.stop().await;
}

#[tokio::test]
async fn a_rule_may_leave_it_unsaid() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = Origin::start("one").await;
    let silent = changing(r#""request_headers":{"remove":["Via"]}"#);
    world.publish([silent, ready(HOST, 1, &[&origin])]).await;
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nVia: 1.0 fred\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    let mut request = http2::request(Method::GET, HOST, "/");
    request.headers_mut().insert("via", HeaderValue::from_static("1.0 fred"));
    assert_eq!(http2::Client::connect(world.http()).await.send(request, b"").await.expect("an answer").status, 200);
    for request in origin.requests() {
        assert!(request.field("via").is_empty(), "{}", request.head);
    }
    world.stop().await;
}

#[tokio::test]
async fn an_instance_that_leads_back_to_the_edge_is_a_508_and_not_a_storm() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let mut itself = Origin::down("itself").await;
    itself.address = world.http();
    world.publish([route(HOST), ready(HOST, 1, &[&itself])]).await;
    let answer = soon("an answer", async { world.get(HOST, "/x").await }).await;
    assert_eq!(answer.status, 508);
    assert!(answer.text().contains("Loop detected"), "{}", answer.text());
    let all = ("dormouse_requests_total", &[][..]);
    // Its own hop, eight more that are let through, and the one that is refused.
    comes_to(world.admin(), 10.0, all).await;
    comes_to(world.admin(), 1.0, ("dormouse_requests_refused_total", &["reason=\"loop\""])).await;
    let answer = http2::Client::connect(world.http()).await.get(HOST, "/x").await.expect("an answer");
    assert_eq!(answer.status, 508);
    comes_to(world.admin(), 20.0, all).await;
    world.stop().await;
}

#[tokio::test]
async fn an_instance_that_leads_back_by_http2_is_a_508_too() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let mut itself = H2cOrigin::start("itself").await.origin;
    itself.address = world.http();
    let policy = r#"{"protocol":"h2c"}"#;
    world.publish([route(HOST), crate::choosing::balanced(HOST, 1, &[&itself], policy)]).await;
    assert_eq!(soon("an answer", async { world.get(HOST, "/x").await }).await.status, 508);
    world.stop().await;
}

#[tokio::test]
async fn as_many_edges_as_there_may_be_are_no_circle() {
    let (world, origin) = http2::world(|_| {}).await;
    for (hops, status) in [(8, 200), (9, 508)] {
        let via = vec!["1.1 dormouse"; hops].join(", ");
        let mut client = world.client().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nVia: {via}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status, "{hops}");
    }
    assert_eq!(origin.requests().len(), 1);
    world.stop().await;
}
