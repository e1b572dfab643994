//! What people are shown where their site does not answer them: its environment's page, or the edge's; programs a problem.

use std::time::Duration;

use dormouse_link::{Body, Report, State};
use dormouse_proxy::Http2;
use http::Method;

use crate::world::origin::Origin;
use crate::world::{World, environment, http2, ready, route, under};

const HOST: &str = "a.example";

/// Each page says its own name.
fn pages(more: &str) -> String {
    let names = ["waking", "failed", "maintenance", "bad_gateway", "unavailable", "denied", "too_many"];
    let pages: Vec<_> = names.map(|name| format!(r#""{name}": "<h1>my {name}</h1>""#)).to_vec();
    format!(r#"{{"pages": {{{}}}{more}}}"#, pages.join(", "))
}

struct Case {
    name: &'static str,
    body: Body,
    path: &'static str,
    status: u16,
    retry_after: Option<&'static str>,
}

#[tokio::test]
async fn each_reason_has_its_page_for_people_and_a_problem_for_programs() {
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        config.limits.hold_navigation = Duration::from_millis(20);
        config.limits.hold = Duration::from_millis(20);
    })
    .await;
    let (origin, down) = (Origin::start("one").await, Origin::down("down").await);
    let failed = State::Failed { retry_in: Duration::from_secs(7) };
    let up = || ready(HOST, 1, &[&origin]);
    let case = |name, body: Body, more: &str, (path, status, retry_after)| {
        let body = under(&pages(more), body);
        Case { name, body, path, status, retry_after }
    };
    let asleep = environment(HOST, 1, State::Asleep, &[]);
    world.publish([route(HOST)]).await;
    for Case { name, body, path, status, retry_after } in [
        case("waking", asleep, "", ("/", 503, None)),
        case("failed", environment(HOST, 1, failed, &[]), "", ("/", 503, Some("7"))),
        case("maintenance", up(), r#", "maintenance": {}"#, ("/", 503, Some("60"))),
        case("bad_gateway", ready(HOST, 2, &[&down]), "", ("/", 502, None)),
        case("bad_gateway", up(), "", ("/garbage", 502, None)),
        case("bad_gateway", up(), r#", "limits": {"answer_ms": 20}"#, ("/silent", 504, None)),
        case("unavailable", environment(HOST, 1, State::Empty, &[]), "", ("/", 503, None)),
        case("denied", up(), r#", "access": {"deny": ["127.0.0.0/8"]}"#, ("/", 403, None)),
        case("too_many", up(), r#", "limits": {"rate": {"requests": 1, "per_seconds": 3600}}"#, ("/", 429, None)),
    ] {
        world.publish([body]).await;
        if name == "too_many" {
            world.get(HOST, "/").await;
        }
        let mut client = world.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n")).await;
        let page = client.response().await;
        assert_eq!((page.status, page.text()), (status, format!("<h1>my {name}</h1>")), "{name} {path}");
        assert_eq!(page.field("content-type").as_deref(), Some("text/html; charset=utf-8"), "{name}");
        assert_eq!(page.field("cache-control").as_deref(), Some("no-store"), "{name}");
        assert!(page.field("x-request-id").is_some_and(|id| !id.is_empty()), "{name}");
        if let Some(retry_after) = retry_after {
            assert_eq!(page.field("retry-after").as_deref(), Some(retry_after), "{name}");
        }
        assert_eq!(page.field("refresh").as_deref(), (name == "waking").then_some("2"), "{name}");
        let problem = world.get(HOST, path).await;
        assert_eq!(problem.field("content-type").as_deref(), Some("application/problem+json"), "{name}");
        assert!(
            (problem.status, problem.field("refresh")) == (status, None) && !problem.text().contains("my"),
            "{name}"
        );
        let mut streams = http2::Client::connect(world.http()).await;
        let mut request = http2::request(Method::GET, HOST, path);
        request.headers_mut().insert("accept", "text/html".parse().expect("a value"));
        let page = streams.send(request, b"").await.expect("an answer");
        assert_eq!((page.status, page.text()), (status, format!("<h1>my {name}</h1>")), "{name} over HTTP/2");
    }
    world.stop().await;
}

#[tokio::test]
async fn what_is_of_the_request_itself_or_of_no_environment_has_the_edges_page() {
    let mut world = World::start().await;
    let origin = Origin::start("one").await;
    world.publish([route(HOST), under(&pages(""), ready(HOST, 1, &[&origin]))]).await;
    for (host, path, status) in [(HOST, "/.dormouse/x", 404), ("b.example", "/", 404)] {
        let mut client = world.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n")).await;
        let page = client.response().await;
        assert!(page.status == status && !page.text().contains("my "), "{host}{path}");
    }
    // HEAD is told the length of the page that GET would get.
    world.publish([under(&pages(r#", "maintenance": {}"#), ready(HOST, 1, &[&origin]))]).await;
    let mut client = world.client().await;
    client.send(format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n")).await;
    let head = client.response_to("HEAD").await;
    assert_eq!(head.field("content-length"), Some("<h1>my maintenance</h1>".len().to_string()));
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n")).await;
    assert_eq!(client.response().await.text(), "<h1>my maintenance</h1>", "nothing was left in between");
    world.stop().await;
}

#[tokio::test]
async fn a_page_shows_the_requests_id_and_when_to_come_back_and_may_be_long() {
    let mut world = World::start().await;
    let origin = Origin::start("one").await;
    let long = "x".repeat(60_000);
    let policy = format!(
        r#"{{"maintenance": {{"retry_after_seconds": 90}},
             "pages": {{"maintenance": "{{request_id}} {{retry_after}} {{host}} {long}"}}}}"#
    );
    world.publish([route(HOST), under(&policy, ready(HOST, 1, &[&origin]))]).await;
    let mut client = world.client().await;
    client.send(format!("GET /%3Cscript%3E HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n")).await;
    let page = client.response().await;
    let id = page.field("x-request-id").expect("an id");
    assert_eq!(page.text(), format!("{id} 90 {{host}} {long}"));
    world.stop().await;
}

#[tokio::test]
async fn a_page_that_is_too_large_is_refused_with_its_reason_and_the_one_before_stays() {
    let mut world = World::start().await;
    let policy = |page: &str| format!(r#"{{"pages": {{"unavailable": "{page}"}}}}"#);
    world.publish([route(HOST), under(&policy("mine"), environment(HOST, 1, State::Empty, &[]))]).await;
    let from = world.reports.count();
    world.publish([under(&policy(&"x".repeat(65_537)), environment(HOST, 1, State::Empty, &[]))]).await;
    let refused = |report: &Report| {
        matches!(report, Report::Acked { rejected, .. } if rejected.iter().any(|rejected|
            rejected.reason == "policy.pages: unavailable is a page of at most 65536 bytes, not 65537"))
    };
    world.reports.find("the reason", from, refused).await;
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n")).await;
    assert_eq!(client.response().await.text(), "mine");
    world.stop().await;
}
