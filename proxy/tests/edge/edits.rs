//! What a rule changes of the fields of requests and answers, through both lanes, to instances of every protocol.

use dormouse_link::{Body, Generation, ObjectId, Report};
use dormouse_proxy::Http2;
use http::{HeaderName, HeaderValue, Method};

use crate::choosing::balanced;
use crate::world::client::{Client, Response};
use crate::world::h2c::H2cOrigin;
use crate::world::origin::Origin;
use crate::world::{World, http2, ready, under};

const HOST: &str = "a.example";

/// A route whose only rule leads to the environment of its host, and changes so much.
pub(crate) fn changing(changes: &str) -> Body {
    let route = format!(r#"{{"kind":"route","host":"{HOST}","rules":[{{"environment":"{HOST}",{changes}}}]}}"#);
    serde_json::from_str(&route).expect(&route)
}

async fn world(changes: &str) -> (World, Origin) {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = Origin::start("one").await;
    world.publish([changing(changes), ready(HOST, 1, &[&origin])]).await;
    (world, origin)
}

/// Sends the same request over HTTP/1.1 and HTTP/2.
async fn both(world: &World, path: &str, fields: &[(&'static str, &'static str)]) -> [(u16, Vec<(String, String)>); 2] {
    let mut one = world.client().await;
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    one.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n")).await;
    let mut request = http2::request(Method::GET, HOST, path);
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let one = one.response().await;
    let two = http2::Client::connect(world.http()).await.send(request, b"").await.expect("an answer");
    let lines = one.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let lines = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let map = two.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    [(one.status, lines), (two.status, map.collect())]
}

/// The values of a field in an answer.
fn of<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
}

/// RFC 9110 section 7.6.1: what a client nominates goes, and with it nothing that is written in its place.
#[tokio::test]
async fn p25_no_client_takes_away_what_is_written_by_nominating_it() {
    let (world, origin) = world(r#""request_headers":{"set":{"X-Restricted":"1"},"add":{"X-Many":"last"}}"#).await;
    for connection in
        ["close, X-Restricted", "x-restricted, via, traceparent, X-Many", "X_Restricted", "TE, x-restricted"]
    {
        let mut client = world.client().await;
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: {connection}\r\nX-Restricted: 0\r\nX-Own: 1\r\n\r\n"
            ))
            .await;
        assert_eq!(client.response().await.status, 200, "{connection}");
        let got = origin.requests().pop().expect("a request").head.to_ascii_lowercase();
        let lines = |begin: &str| got.lines().filter(|line| line.starts_with(begin)).collect::<Vec<_>>();
        assert_eq!(lines("x-restricted:"), ["x-restricted: 1"], "{connection}");
        assert_eq!(
            (lines("via:").len(), lines("x-many:"), lines("x-own:").len()),
            (1, vec!["x-many: last"], 1),
            "{connection}"
        );
    }
    // And what it nominates of its own is not passed on.
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: X-Own\r\nX-Own: 1\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    let got = origin.requests().pop().expect("a request").head.to_ascii_lowercase();
    assert!(!got.contains("x-own") && !got.contains("\r\nconnection: x-own"), "{got}");
    assert_eq!(client.get(HOST, "/").await.status, 200, "it is kept");
    world.stop().await;
}

const REQUESTS: &str = r#""request_headers":{
    "set":{"X-User":"op","X-Forwarded-Prefix":"/api","X-New":"1"},
    "add":{"X-Many":"last"},
    "remove":["Cookie","X-Gone"]}"#;

const SENT: [(&str, &str); 11] = [
    ("X-User", "eve"),
    ("X_User", "eve"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X_Forwarded_Prefix", "/evil"),
    ("X-Many", "first"),
    ("Cookie", "a=b"),
    ("X-Gone", "1"),
    ("x_gone", "1"),
    ("X-Dormouse-Any", "1"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Kept", "1"),
];

const EXPECTED: [(&str, &[&str]); 12] = [
    ("x-user", &["op"]),
    ("x_user", &[]),
    ("x-forwarded-prefix", &["/api"]),
    ("x_forwarded_prefix", &[]),
    ("x-new", &["1"]),
    ("x-many", &["first", "last"]),
    ("cookie", &[]),
    ("x-gone", &[]),
    ("x_gone", &[]),
    ("x-dormouse-any", &[]),
    ("x-forwarded-for", &["127.0.0.1"]),
    ("x-kept", &["1"]),
];

#[tokio::test]
async fn p25_p26_a_request_is_changed_alike_in_every_protocol_and_no_name_is_freed() {
    let (world, origin) = world(REQUESTS).await;
    for (status, _) in both(&world, "/", &SENT).await {
        assert_eq!(status, 200);
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(request.is_well_framed(), "{}", request.head);
        for (name, values) in EXPECTED {
            assert_eq!(request.field(name), values, "{name} in {}", request.head);
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn p25_p26_the_same_of_instances_that_speak_http2() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = H2cOrigin::start("one").await;
    world.publish([changing(REQUESTS), balanced(HOST, 1, &[&origin.origin], r#"{"protocol":"h2c"}"#)]).await;
    for (status, fields) in both(&world, "/", &SENT).await {
        assert_eq!(status, 200);
        for (name, values) in EXPECTED {
            assert_eq!(of(&fields, &format!("got-{name}")), values, "{name}");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn an_answer_is_changed_alike_in_every_protocol_and_the_edges_own_words_stay() {
    let changes = r#""response_headers":{
        "set":{"X-Frame-Options":"DENY","Content-Type":"text/event-stream"},
        "add":{"Set-Cookie":"a=b","Vary":"Accept"},
        "remove":["Server","x-powered-by","X-Robots-Tag"]}"#;
    let (mut world, origin) = world(changes).await;
    let policy = r#"{"access":{"indexed":false},"limits":{"total_ms":20000}}"#;
    world.publish([under(policy, ready(HOST, 1, &[&origin]))]).await;
    origin.say(
        "HTTP/1.1 103 Early Hints\r\nServer: x\r\n\r\nHTTP/1.1 404 Not Found\r\nServer: x\r\nX_Powered_By: y\r\nVary: Origin\r\n\
         X-Frame-Options: SAMEORIGIN\r\nX-Frame-Options: x\r\nSet-Cookie: c=d\r\nX-Robots-Tag: all\r\nETag: kept\r\nContent-Length: 2\r\n\r\nno",
    );
    let mut client = world.client().await;
    client.send(format!("GET /raw HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let early = client.head().await.expect("an interim answer");
    assert!(early.starts_with("HTTP/1.1 103") && !early.to_ascii_lowercase().contains("x-frame-options"), "{early}");
    for (status, fields) in both(&world, "/raw", &[]).await {
        assert_eq!(status, if of(&fields, "server") == ["x"] { 103 } else { 404 });
        if status == 404 {
            for (name, values) in [
                ("x-frame-options", &["DENY"][..]),
                ("set-cookie", &["c=d", "a=b"]),
                ("vary", &["Origin", "Accept"]),
                ("server", &[]),
                ("x_powered_by", &[]),
                ("x-robots-tag", &["noindex"]),
                ("etag", &["kept"]),
                ("content-length", &["2"]),
            ] {
                assert_eq!(of(&fields, name), values, "{name}");
            }
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn pages_of_the_edge_say_what_answers_are_to_say_but_not_against_themselves() {
    let changes = r#""response_headers":{"set":{"X-Frame-Options":"DENY","Cache-Control":"public, max-age=9"},
        "remove":["X-Request-Id"]}"#;
    let (mut world, origin) = world(changes).await;
    let checks = |world: &[(u16, Vec<(String, String)>); 2], expected: u16| {
        for (status, fields) in world {
            assert_eq!(*status, expected);
            assert_eq!(of(fields, "x-frame-options"), ["DENY"]);
            assert_eq!(of(fields, "cache-control"), ["no-store"]);
            assert_eq!(of(fields, "x-request-id").len(), 1);
        }
    };
    world.publish([under(r#"{"maintenance":{}}"#, ready(HOST, 1, &[&origin]))]).await;
    checks(&both(&world, "/", &[]).await, 503);
    world.publish([under(r#"{"limits":{"answer_ms":50}}"#, ready(HOST, 2, &[&origin]))]).await;
    checks(&both(&world, "/silent", &[]).await, 504);
    world.publish([under("{}", ready(HOST, 3, &[&origin]))]).await;
    for (status, fields) in both(&world, "/", &[]).await {
        assert_eq!((status, of(&fields, "cache-control")), (200, vec!["public, max-age=9"]));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_rules_edits_come_after_what_whoever_lets_in_says() {
    let changes = r#""request_headers":{"set":{"X-User":"op"},"add":{"X-Groups":"all"},"remove":["X-Secret"]}"#;
    let (mut world, origin) = world(changes).await;
    let authority = Origin::start("authority").await;
    authority
        .say("HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Groups: b\r\nX-Secret: s\r\nX-Mail: m\r\nContent-Length: 0\r\n\r\n");
    let policy = format!(
        r#"{{"access":{{"forward_auth":{{"url":"http://{}/raw","copy":["X-User","X-Groups","X-Secret","X-Mail"]}}}}}}"#,
        authority.address
    );
    world.publish([under(&policy, ready(HOST, 1, &[&origin]))]).await;
    let sent = [("X-User", "eve"), ("x_user", "eve"), ("X-Groups", "eve"), ("X-Mail", "eve")];
    for (status, _) in both(&world, "/", &sent).await {
        assert_eq!(status, 200);
    }
    for request in origin.requests() {
        for (name, values) in [
            ("x-user", &["op"][..]),
            ("x_user", &[]),
            ("x-groups", &["b", "all"]),
            ("x-secret", &[]),
            ("x-mail", &["m"]),
        ] {
            assert_eq!(request.field(name), values, "{name} in {}", request.head);
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_retry_adds_a_field_once() {
    let (mut world, origin) = world(r#""request_headers":{"add":{"X-Many":"1"}}"#).await;
    let down = Origin::down("down").await;
    world.publish([ready(HOST, 2, &[&down, &origin])]).await;
    for _ in 0..8 {
        for (status, _) in both(&world, "/", &[]).await {
            assert_eq!(status, 200);
        }
    }
    for request in origin.requests() {
        assert_eq!((request.field("x-many").len(), request.field("via").len()), (1, 1), "{}", request.head);
    }
    world.stop().await;
}

/// A body that frames itself by what an edit says would be another request to the instance.
#[tokio::test]
async fn p01_a_route_that_would_frame_messages_is_refused_alone_and_the_one_before_serves() {
    let (mut world, origin) = world(r#""request_headers":{"set":{"X-A":"1"}}"#).await;
    for name in ["Content-Length", "content_length", "Transfer-Encoding", "Connection", "Host", "Via\r\nHost"] {
        let from = world.reports.count();
        let name = serde_json::to_string(name).expect("a text");
        let bad = changing(&format!(r#""request_headers":{{"set":{{{name}:"5"}}}}"#));
        world.publish([bad, ready("b.example", 1, &[&origin])]).await;
        let refused = |report: &Report| matches!(report, Report::Acked { rejected, .. } if rejected.len() == 1);
        let Report::Acked { rejected, .. } = world.reports.find("a refusal", from, refused).await else { panic!() };
        assert!(rejected[0].reason.contains("rules[0]: request_headers: "), "{}", rejected[0].reason);
        assert_eq!(rejected[0].id, ObjectId::Route(HOST.parse().expect("a host")));
        // What was refused is not there to be compared with.
        world.table.objects.remove(&rejected[0].id);
        assert!(world.generation() > Generation(0));
    }
    let answer: Response = Client::connect(world.http()).await.get(HOST, "/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(origin.requests().last().expect("it").field("x-a"), ["1"]);
    world.stop().await;
}
