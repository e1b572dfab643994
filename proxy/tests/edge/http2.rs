//! HTTP/2: what HTTP/1 clients get, its clients get; and one that costs more than it uses is told to be calm.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dormouse_link::State;
use dormouse_proxy::Listener;
use h2::Reason;
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::world::http2::{Client, Frames, PREFACE, frame, head, read, request, world};
use crate::world::origin::Origin;
use crate::world::tls::{Authority, HTTP1};
use crate::world::{World, environment, ready, route, soon, until};

const MILLISECOND: Duration = Duration::from_millis(1);
/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

async fn client(world: &World) -> Client {
    Client::connect(world.http()).await
}

#[tokio::test]
async fn a_stream_reaches_the_origin_as_one_well_framed_request() {
    let (world, origin) = world(|_| {}).await;
    let mut client = client(&world).await;
    assert_eq!(client.get("a.example", "/?q").await.expect("an answer").text(), "one");
    let cookies = request(Method::GET, "A.example:80", "/x");
    let (mut parts, ()) = cookies.into_parts();
    for crumb in ["a=1", "b=2", "c=3"] {
        parts.headers.append("cookie", crumb.parse().expect("a value"));
    }
    client.send(Request::from_parts(parts, ()), b"").await.expect("an answer");
    let body = "x".repeat(300_000);
    let echoed = client.send(request(Method::POST, "a.example", "/echo"), body.as_bytes()).await;
    assert_eq!(echoed.expect("an answer").text(), body);
    let mut known = request(Method::POST, "a.example", "/echo");
    known.headers_mut().insert("content-length", "3".parse().expect("a value"));
    assert_eq!(client.send(known, b"abc").await.expect("an answer").text(), "abc");
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.is_well_framed()), "{requests:#?}");
    assert_eq!((requests[0].path(), requests[0].field("host")), ("/?q", vec!["a.example".to_owned()]));
    assert_eq!(requests[1].field("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(requests[1].field("x-forwarded-proto"), ["http"]);
    assert_eq!(requests[3].field("content-length"), ["3"]);
    assert_eq!(origin.connections(), 1, "it is one connection to the origin, too");
    world.stop().await;
}

#[tokio::test]
async fn a_hundred_streams_at_a_time_are_each_answered() {
    let (world, origin) = world(|_| {}).await;
    let mut client = client(&world).await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        let (answer, mut body) = client.begin(request(Method::POST, "a.example", "/slow")).await;
        body.send_data(Bytes::new(), true).expect("an end");
        answers.push(answer);
    }
    origin.got(100).await;
    origin.state.go.add_permits(100);
    for answer in answers {
        assert_eq!(soon("an answer", read(answer)).await.expect("an answer").text(), "one");
    }
    world.stop().await;
}

#[tokio::test]
async fn streams_beyond_a_connections_first_take_places_of_connections() {
    let (world, origin) = world(|config| config.limits.connections = 3).await;
    let mut client = client(&world).await;
    let mut answers = Vec::new();
    for count in 1..=3 {
        let (answer, mut body) = client.begin(request(Method::POST, "a.example", "/slow")).await;
        body.send_data(Bytes::new(), true).expect("an end");
        answers.push(answer);
        origin.got(count).await;
    }
    let full = client.get("a.example", "/").await.expect("an answer");
    assert_eq!((full.status, full.field("retry-after")), (503, Some("5")), "there is no place for a fourth");
    origin.state.go.add_permits(3);
    for answer in answers {
        assert_eq!(soon("an answer", read(answer)).await.expect("an answer").text(), "one");
    }
    assert_eq!(client.get("a.example", "/").await.expect("an answer").text(), "one", "places are free again");
    world.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_refused_stream_by_stream() {
    let (world, origin) = world(|config| {
        config.limits.body_bytes = 10;
        config.limits.target_bytes = 100;
    })
    .await;
    let mut client = client(&world).await;
    let long = format!("/{}", "x".repeat(200));
    let mut differs = request(Method::GET, "a.example", "/");
    differs.headers_mut().insert("host", "b.example".parse().expect("a value"));
    let mut large = request(Method::POST, "a.example", "/");
    large.headers_mut().insert("content-length", "11".parse().expect("a value"));
    let mut many = request(Method::GET, "a.example", "/");
    for number in 0..101 {
        many.headers_mut().append("x", number.into());
    }
    for (what, request, body, status) in [
        ("an unknown host", request(Method::GET, "b.example", "/"), "", 404),
        ("a path of ours", request(Method::GET, "a.example", "/.dormouse/x"), "", 404),
        ("a long target", request(Method::GET, "a.example", &long), "", 414),
        ("p21: another authority than host", differs, "", 400),
        ("p39: a body over the limit", large, "01234567890", 413),
        ("too many fields", many, "", 431),
    ] {
        let answer = client.send(request, body.as_bytes()).await.expect(what);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    let head = client.send(request(Method::HEAD, "b.example", "/"), b"").await.expect("an answer");
    assert_eq!((head.status, head.body.len()), (404, 0));
    let streamed = client.send(request(Method::POST, "a.example", "/"), b"more than ten bytes").await;
    assert!(!matches!(&streamed, Ok(answer) if answer.status != 413), "{streamed:?}");
    assert_eq!(client.get("a.example", "/").await.expect("the connection goes on").text(), "one");
    let paths: Vec<_> = origin.requests().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/"], "nothing that was refused reached the origin whole");
    world.stop().await;
}

#[tokio::test]
async fn a_listener_without_http_2_refuses_its_preface() {
    let world = World::start().await;
    let mut client = world.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    assert!(client.closed().await);
    world.stop().await;
}

#[tokio::test]
async fn the_preface_is_none_but_as_the_very_first_bytes_of_a_plain_connection() {
    let https = Listener::https(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (mut world, _origin) = world(|config| config.listeners.push(https)).await;
    let mut authority = Authority::default();
    world.publish([authority.issue("a.example")]).await;
    let mut after_a_request = world.client().await;
    assert_eq!(after_a_request.get("a.example", "/").await.text(), "one");
    refused(after_a_request, "").await;
    refused(world.client().await, "\r\n").await;
    let mut agreed = authority.connect(&world, "a.example").await.expect("hands are shaken");
    assert_eq!(agreed.stream.get_ref().1.alpn_protocol(), Some(HTTP1));
    agreed.send("").await;
    refused(agreed, "").await;
    world.stop().await;
}

/// That the preface is no request, and the end.
async fn refused(mut client: crate::world::client::Client<impl AsyncRead + AsyncWrite + Unpin>, before: &str) {
    client.send([before.as_bytes(), PREFACE].concat()).await;
    assert_eq!(client.response().await.status, 400);
    assert!(client.closed().await);
}

#[tokio::test]
async fn a_connection_that_begins_with_http_1_stays_with_it() {
    let (world, _origin) = world(|_| {}).await;
    let mut client = world.client().await;
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p80_p81_a_stream_is_held_for_a_sleeper_and_a_reset_frees_its_place() {
    let (mut world, origin) = world(|_| {}).await;
    world.publish([route("b.example"), environment("b.example", 1, State::Asleep, &[])]).await;
    let mut client = client(&world).await;
    let from = world.reports.count();
    let (held, mut body) = client.begin(request(Method::POST, "b.example", "/")).await;
    body.send_data(Bytes::new(), true).expect("an end");
    let (_, mut given_up) = client.begin(request(Method::POST, "b.example", "/")).await;
    let waiters = |count: u32| move |report: &dormouse_link::Report| matches!(report, dormouse_link::Report::Wanted(wanted) if wanted[0].waiters == count);
    world.reports.find("two waiters", from, waiters(2)).await;
    let from = world.reports.count();
    given_up.send_reset(Reason::CANCEL);
    world.reports.find("one waiter", from, waiters(1)).await;
    world.publish([ready("b.example", 2, &[&origin])]).await;
    let answer = soon("an answer", read(held)).await.expect("an answer");
    assert_eq!(answer.text(), "one");
    assert!(answer.field("server-timing").is_some_and(|timing| timing.starts_with("wake;dur=")));
    world.stop().await;
}

#[tokio::test]
async fn p36_a_preface_that_does_not_come_whole_is_closed() {
    let (world, _origin) = world(|config| config.limits.head = 100 * MILLISECOND).await;
    let mut stream = tokio::net::TcpStream::connect(world.http()).await.expect("the listener accepts");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.expect("the proxy reads");
    let frames = Frames { stream };
    frames.goaway().await;
    world.stop().await;
}

#[tokio::test]
async fn p38_a_body_that_drips_ends_its_stream_and_no_other() {
    let (world, _origin) = world(|config| {
        config.limits.client_rate = 1 << 20;
        config.limits.client_window = 50 * MILLISECOND;
    })
    .await;
    let mut client = client(&world).await;
    let (answer, mut body) = client.begin(request(Method::POST, "a.example", "/echo")).await;
    body.send_data(Bytes::from_static(b"x"), false).expect("open");
    let ended = soon("the stream's end", read(answer)).await.expect_err("no answer");
    assert!(ended.is_reset(), "{ended:?}");
    assert_eq!(client.get("a.example", "/").await.expect("an answer").text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p30_who_resets_all_that_it_opens_is_told_to_be_calm() {
    let (world, _origin) = world(|_| {}).await;
    let mut frames = Frames::connect(world.http()).await;
    for number in 0..100_000u32 {
        let stream = 2 * number + 1;
        let pair = [frame(1, 5, stream, &head("a.example")), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
        if frames.send(&pair).await.is_err() {
            break;
        }
    }
    assert_eq!(frames.goaway().await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(client(&world).await.get("a.example", "/").await.expect("others are served").text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p30_who_gives_up_what_is_running_again_and_again_is_told_to_be_calm() {
    // A body that is not at its end, and none at all.
    for (method, is_whole) in [(Method::POST, false), (Method::GET, true)] {
        let (world, origin) = world(|_| {}).await;
        let mut client = client(&world).await;
        for number in 0..300 {
            let Ok(mut sender) = client.ready().await else { break };
            let silent = request(method.clone(), "a.example", "/silent");
            let Ok((_answer, mut stream)) = sender.send_request(silent, is_whole) else { break };
            // Each is in the middle of its way.
            until("a request at the origin", || origin.connections() > number || client.is_over()).await;
            stream.send_reset(Reason::CANCEL);
        }
        assert_eq!(client.ended().await, Some(Reason::ENHANCE_YOUR_CALM), "{method}");
        world.stop().await;
    }
}

#[tokio::test]
async fn a_head_of_an_instance_that_is_away_has_no_body() {
    let (mut world, _origin) = world(|config| config.limits.connect_total = 300 * MILLISECOND).await;
    let down = Origin::down("down").await;
    world.serve("b.example", &[&down]).await;
    let answer = client(&world).await.send(request(Method::HEAD, "b.example", "/"), b"").await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (502, 0));
    world.stop().await;
}

#[tokio::test]
async fn a_hundred_crumbs_of_cookie_are_one_field() {
    let (world, origin) = world(|_| {}).await;
    let mut many = request(Method::GET, "a.example", "/");
    for number in 0..150 {
        many.headers_mut().append("cookie", format!("c{number}=1").parse().expect("a value"));
    }
    assert_eq!(client(&world).await.send(many, b"").await.expect("an answer").text(), "one");
    assert_eq!(origin.requests()[0].field("cookie").len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn p32_a_head_without_end_is_closed() {
    let (world, _origin) = world(|_| {}).await;
    let frames = Frames::connect(world.http()).await;
    let begin = frame(1, 1, 1, &head("a.example"));
    let field = frame(9, 0, 1, &[&[0, 1, b'x', 127, 233, 6][..], &[b'y'; 1000]].concat());
    let code = frames.goaway_of([begin].into_iter().chain(std::iter::repeat(field))).await;
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    assert_eq!(client(&world).await.get("a.example", "/").await.expect("others are served").text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p35_streams_whose_client_does_not_read_end_and_hold_nobody_up() {
    let (world, origin) = world(|config| config.limits.client_write = 300 * MILLISECOND).await;
    let large = "x".repeat(4 << 20);
    origin.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    let mut stalled = client(&world).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let (answer, mut body) = stalled.begin(request(Method::POST, "a.example", "/raw")).await;
        body.send_data(Bytes::new(), true).expect("an end");
        // The head comes; of the body only what fits the window that is never opened again.
        answers.push(soon("a head", answer).await.expect("a head").into_body());
    }
    assert_eq!(client(&world).await.get("a.example", "/").await.expect("others are served").text(), "one");
    for mut body in answers {
        let ended = soon("the stream's end", async {
            loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("a cut answer looks whole"),
                }
            }
        });
        assert!(ended.await.is_reset());
    }
    world.stop().await;
}

#[tokio::test]
async fn a_body_whose_last_frame_is_empty_is_ended_once() {
    let (world, origin) = world(|_| {}).await;
    let mut client = client(&world).await;
    for part in ["", "part"] {
        let (answer, mut body) = client.begin(request(Method::POST, "a.example", "/echo")).await;
        if !part.is_empty() {
            body.send_data(Bytes::from(part), false).expect("a part");
        }
        body.send_data(Bytes::new(), true).expect("an end");
        assert_eq!(soon("an answer", read(answer)).await.expect("an answer").text(), part);
        assert_eq!(client.get("a.example", "/").await.expect("an answer").text(), "one");
    }
    let heads: Vec<_> = origin.requests().iter().map(|request| request.head.clone()).collect();
    assert!(heads.iter().all(|head| head.starts_with("POST /echo ") || head.starts_with("GET / ")), "{heads:#?}");
    // Whatever follows a body is the begin of the next request on the connection, whoever's that is.
    assert_eq!(origin.connections(), 1, "each begins where the one before ended");
    world.stop().await;
}

#[tokio::test]
async fn each_version_has_connections_of_its_own_to_an_instance() {
    // Each worker has connections of its own, too.
    let (world, origin) = world(|config| config.workers = 1).await;
    for _ in 0..2 {
        assert_eq!(world.get("a.example", "/").await.text(), "one");
        assert_eq!(client(&world).await.get("a.example", "/").await.expect("an answer").text(), "one");
    }
    assert!(origin.connections() > 1, "what reads little at a time is for HTTP/2 only");
    world.stop().await;
}
