//! A request finds its environment, and what the instance gets is the client's request and our fields.

use std::time::Duration;

use dormouse_link::{ObjectId, Report, State};

use crate::world::origin::Origin;
use crate::world::{World, environment, ready, route, until};

#[tokio::test]
async fn a_host_is_served_by_its_environment_and_an_unknown_one_by_nobody() {
    let (mut world, red, blue) = (World::start().await, Origin::start("red").await, Origin::start("blue").await);
    world.serve("red.example", &[&red]).await;
    world.serve("blue.example", &[&blue]).await;
    let mut client = world.client().await;
    assert_eq!(client.get("red.example", "/").await.text(), "red");
    assert_eq!(client.get("BLUE.example.:80", "/").await.text(), "blue");
    let unknown = client.get("other.example", "/").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.field("content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(unknown.field("cache-control").as_deref(), Some("no-store"));
    assert_eq!(client.get("red.example", "/").await.text(), "red", "the connection goes on after an answer of our own");
    world.remove([ObjectId::Route("red.example".parse().unwrap())]).await;
    assert_eq!(client.get("red.example", "/").await.status, 404);
    assert_eq!((red.requests().len(), blue.requests().len()), (2, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_browser_gets_html_and_a_head_no_body() {
    let world = World::start().await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: x.example\r\nAccept: text/html\r\n\r\n").await;
    let page = client.response().await;
    assert_eq!(page.field("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert!(page.text().starts_with("<!doctype html>"));
    client.send("HEAD / HTTP/1.1\r\nHost: x.example\r\n\r\n").await;
    let head = client.response_to("HEAD").await;
    assert!(head.status == 404 && head.field("content-length").is_some());
    assert_eq!(client.get("x.example", "/").await.status, 404, "no byte of a body was in between");
    world.stop().await;
}

#[tokio::test]
async fn p25_the_origin_gets_our_fields_and_none_of_the_clients_versions() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let port = world.http().port().to_string();
    let mut client = world.client().await;
    client
        .send(
            "GET /x?y=1 HTTP/1.1\r\nHost: A.example:81\r\nX-Forwarded-For: 9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=evil\r\n\
             X-Real-IP: 9.9.9.9\r\nX-Request-Id: evil\r\nCF-Connecting-IP: 9.9.9.9\r\nX-Dormouse-Wake: 1\r\n\
             Connection: x-mine\r\nX-Mine: gone\r\nKeep-Alive: 5\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\
             Cookie: kept=1\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 200);
    let request = origin.requests().remove(0);
    for (name, value) in [
        ("host", "A.example:81"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "A.example:81"),
        ("x-forwarded-port", port.as_str()),
        ("x-real-ip", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;host=\"A.example:81\";proto=http"),
        ("cookie", "kept=1"),
    ] {
        assert_eq!(request.field(name), [value], "{name}");
    }
    assert_eq!(request.field("x-request-id").len(), 1);
    assert!(!request.head.contains("evil") && !request.head.contains("9.9.9.9"), "{}", request.head);
    for name in ["x-mine", "keep-alive", "te", "upgrade", "http2-settings", "cf-connecting-ip", "x-dormouse-wake"] {
        assert!(request.field(name).is_empty(), "{name} in {}", request.head);
    }
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: x-forwarded-for\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    assert_eq!(origin.requests().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn an_absolute_target_reaches_the_origin_in_origin_form() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("GET http://a.example/x/../y%2f?q HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.requests()[0].path(), "/x/../y%2f?q");
    world.stop().await;
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_response_stay_here() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let response = world.get("a.example", "/hop").await;
    for name in ["keep-alive", "proxy-authenticate", "trailer", "x-mine"] {
        assert_eq!(response.field(name), None, "{name}");
    }
    assert_eq!(response.field("connection").as_deref(), Some("keep-alive"));
    assert_eq!(response.field("etag").as_deref(), Some("kept"));
    assert_eq!(response.field("location").as_deref(), Some("http://elsewhere/"));
    world.stop().await;
}

#[tokio::test]
async fn an_environment_without_a_deployment_says_so_and_is_not_wanted() {
    let mut world = World::with(|config| config.limits.report_period = Duration::from_millis(20)).await;
    world.publish([route("a.example"), environment("a.example", 1, State::Empty, &[])]).await;
    let answer = world.get("a.example", "/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("Nothing deployed yet"));
    let from = world.reports.count();
    until("three periods", || {
        world.reports.since(from).iter().filter(|report| matches!(report, Report::Drained { .. })).count() >= 3
    })
    .await;
    assert!(!world.reports.since(0).iter().any(|report| matches!(report, Report::Wanted(_))));
    world.stop().await;
}

#[tokio::test]
async fn requests_spread_over_all_endpoints() {
    let (mut world, red, blue) = (World::start().await, Origin::start("red").await, Origin::start("blue").await);
    world.publish([route("a.example"), ready("a.example", 1, &[&red, &blue])]).await;
    // They run beside each other: of those that nobody is at, the faster one may get them all.
    let mut clients = Vec::new();
    for count in 1..=12 {
        let mut client = world.client().await;
        client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        clients.push(client);
        until("the request", || red.requests().len() + blue.requests().len() == count).await;
    }
    assert!(red.requests().len() > 3 && blue.requests().len() > 3);
    for mut client in clients {
        // Whichever has it.
        red.go();
        blue.go();
        assert_eq!(client.response().await.status, 200);
    }
    world.stop().await;
}
