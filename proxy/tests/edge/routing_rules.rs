//! Rules of a host through the whole edge: paths, methods and fields, rewriting, redirects, HTTPS only; over raw sockets and
//! HTTP/2.

use std::time::Duration;

use dormouse_link::{Body, Report, State};
use dormouse_proxy::Http2;
use http::{HeaderValue, Method};

use crate::world::origin::Origin;
use crate::world::tls::Authority;
use crate::world::{World, environment, http2, ready, route, until};

/// A host with a part for some only, and domains that lead to it.
fn parts() -> Vec<Body> {
    [
        r#"{"kind":"route","host":"a.example","rules":[
            {"environment":"rest"},
            {"path":"/admin","environment":"admin"},
            {"path":"/api","environment":"api","replace_prefix":"/","rewrite_host":"api.internal"},
            {"path":"/beta","headers":[{"name":"X-Beta","value":"1"}],"environment":"admin"},
            {"path":"/old","redirect":{"status":301,"replace_prefix":"/new"}}]}"#,
        r#"{"kind":"route","host":"*.example","rules":[{"redirect":{"host":"a.example"}}]}"#,
        r#"{"kind":"route","host":"*","environment":"default"}"#,
    ]
    .map(|json| serde_json::from_str(json).expect(json))
    .into()
}

#[tokio::test]
async fn p24_a_request_reaches_the_environment_of_its_path_whatever_its_spelling_and_protocol() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let [rest, admin, api, default] = [
        Origin::start("rest").await,
        Origin::start("admin").await,
        Origin::start("api").await,
        Origin::start("default").await,
    ];
    let environments = [("rest", &rest), ("admin", &admin), ("api", &api), ("default", &default)];
    let environments = environments.map(|(id, origin)| ready(id, 1, &[origin]));
    let routes = parts();
    world.publish(routes.into_iter().chain(environments)).await;
    let mut one = world.client().await;
    let mut two = http2::Client::connect(world.http()).await;
    for (host, target, text) in [
        ("a.example", "/", "rest"),
        ("A.EXAMPLE.", "/apix", "rest"),
        ("a.example", "/a%2fb;c//d", "rest"),
        ("a.example", "/admin?x=/../y", "admin"),
        ("a.example", "/x/%2e%2e/%61dmin", "admin"),
        ("a.example", "/api/v1/%7ex?q=1", "api"),
        ("a.example", "/beta", "rest"),
        ("b.c.example", "/", "default"),
        ("127.0.0.1", "/", "default"),
    ] {
        assert_eq!(one.get(host, target).await.text(), text, "{host}{target}");
        assert_eq!(two.get(host, target).await.expect("an answer").text(), text, "{host}{target} over HTTP/2");
    }
    one.send("GET /beta HTTP/1.1\r\nHost: a.example\r\nx-beta: 1\r\n\r\n").await;
    assert_eq!(one.response().await.text(), "admin");
    let mut beta = http2::request(Method::GET, "a.example", "/beta");
    beta.headers_mut().insert("x-beta", HeaderValue::from_static("1"));
    assert_eq!(two.send(beta, b"").await.expect("an answer").text(), "admin");
    let paths = |origin: &Origin| origin.requests().iter().map(|request| request.path().to_owned()).collect::<Vec<_>>();
    // Forwarded as they were sent.
    assert_eq!(paths(&rest)[4..6], ["/a%2fb;c//d", "/a%2fb;c//d"]);
    assert_eq!(paths(&admin)[..4], ["/admin?x=/../y", "/admin?x=/../y", "/x/%2e%2e/%61dmin", "/x/%2e%2e/%61dmin"]);
    assert_eq!(paths(&api), ["/v1/%7ex?q=1", "/v1/%7ex?q=1"]);
    for request in api.requests() {
        assert_eq!(request.field("host"), ["api.internal"]);
        assert_eq!(request.field("x-forwarded-host"), ["a.example"]);
    }
    let before = [&rest, &admin, &api, &default].map(|origin| origin.requests().len());
    for target in ["//admin", "/x/..%2fadmin", "/x/..;/admin", "/x/..\\admin", "/admin%00", "/api/..%2fapi/x"] {
        let answer = one.get("a.example", target).await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.text().contains("read in more than one way"), "{target}");
    }
    assert_eq!(two.get("a.example", "//admin").await.expect("an answer").status, 400);
    assert_eq!([&rest, &admin, &api, &default].map(|origin| origin.requests().len()), before, "nobody was asked");
    world.stop().await;
}

#[tokio::test]
async fn a_redirect_keeps_path_and_query_and_wakes_nobody() {
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        config.limits.report_period = Duration::from_millis(20);
    })
    .await;
    let asleep = ["rest", "admin", "api", "default"].map(|id| environment(id, 1, State::Asleep, &[]));
    let routes = parts();
    world.publish(routes.into_iter().chain(asleep)).await;
    let port = world.http().port();
    let mut client = world.client().await;
    for (host, target, status, location) in [
        ("a.example", "/old/x%2f/?y=/old", 301, format!("http://a.example:{port}/new/x%2f/?y=/old")),
        ("WWW.example:1", "/x?y", 302, format!("http://a.example:{port}/x?y")),
        ("www.example", "/a|b\\c", 302, format!("http://a.example:{port}/a%7Cb%5Cc")),
    ] {
        let answer = client.get(host, target).await;
        assert_eq!((answer.status, answer.field("location")), (status, Some(location)), "{host}{target}");
        assert_eq!(answer.field("cache-control").is_none(), status == 301);
    }
    client.send("POST /old HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.response().await.status, 301);
    assert!(client.closed().await, "the body is not read");
    let answer = http2::Client::connect(world.http()).await.get("www.example", "/x").await.expect("an answer");
    assert_eq!((answer.status, answer.field("location")), (302, Some(&*format!("http://a.example:{port}/x"))));
    let from = world.reports.count();
    until("three periods", || {
        world.reports.since(from).iter().filter(|report| matches!(report, Report::Drained { .. })).count() >= 12
    })
    .await;
    assert!(!world.reports.since(0).iter().any(|report| matches!(report, Report::Wanted(_))));
    world.stop().await;
}

#[tokio::test]
async fn a_host_of_https_redirects_plain_requests_and_says_so_over_https_whoever_answers() {
    let mut authority = Authority::default();
    let mut world = World::with_tls(|_| {}).await;
    let origin = Origin::start("one").await;
    let route = r#"{"kind":"route","host":"a.example","rules":[{"path":"/x","environment":"a.example"}],
        "https":{"redirect":{"status":308},"hsts":{"max_age":60,"include_subdomains":true}}}"#;
    let route = serde_json::from_str(route).expect(route);
    world.publish([route, ready("a.example", 1, &[&origin]), authority.issue("a.example")]).await;
    let plain = world.get("a.example", "/x?y").await;
    assert_eq!((plain.status, plain.field("location").as_deref()), (308, Some("https://a.example/x?y")));
    assert_eq!(plain.field("strict-transport-security"), None);
    assert!(origin.requests().is_empty());
    let mut client = authority.connect(&world, "a.example").await.expect("a handshake");
    for (path, status) in [("/x", 200), ("/y", 404), ("/.dormouse/", 404)] {
        let answer = client.get("a.example", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.field("strict-transport-security").as_deref(),
            Some("max-age=60; includeSubDomains"),
            "{path}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn a_route_that_contradicts_itself_is_refused_alone_and_the_one_before_it_stays() {
    let (mut world, red, blue) = (World::start().await, Origin::start("red").await, Origin::start("blue").await);
    world.serve("a.example", &[&red]).await;
    let twice: Body = serde_json::from_str(
        r#"{"kind":"route","host":"a.example","rules":[{"environment":"a.example"},{"environment":"b.example"}]}"#,
    )
    .expect("a route");
    let from = world.reports.count();
    world.publish([twice, route("b.example"), ready("b.example", 1, &[&blue])]).await;
    let refused = |report: &Report| matches!(report, Report::Acked { rejected, .. } if !rejected.is_empty());
    let Report::Acked { rejected, .. } = world.reports.find("the refusal", from, refused).await else { panic!() };
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].reason, "rules[1] can never be met: rules[0] is for the same requests");
    assert_eq!(world.get("a.example", "/").await.text(), "red");
    assert_eq!(world.get("b.example", "/").await.text(), "blue");
    world.stop().await;
}
