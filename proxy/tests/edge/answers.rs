//! An origin's answer reaches its client as one message, or as a failure: never as a clean answer that it was not.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::world::origin::Origin;
use crate::world::{World, soon, until};

const OK: &str = "HTTP/1.1 200 OK\r\n";

async fn world() -> (World, Origin) {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    (world, origin)
}

/// Which connection to the origin an answer comes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    New,
    Reused,
}

#[tokio::test]
async fn p16_p27_a_head_that_can_be_read_in_two_ways_is_a_bad_gateway() {
    let (mut world, origin) = (
        World::with(|config| {
            // One pool, that keeps what it has.
            config.workers = 1;
            config.limits.pooled_idle = Duration::from_secs(100);
        })
        .await,
        Origin::start("one").await,
    );
    world.serve("a.example", &[&origin]).await;
    let bad = [
        format!("{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        format!("{OK}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        format!("{OK}Content-Length: 5, 5\r\n\r\nhello"),
        format!("{OK}Content-Length: 5, 6\r\n\r\nhello!"),
        format!("{OK}Content-Length: +5\r\n\r\nhello"),
        format!("{OK}Content-Length: x\r\n\r\nhello"),
        format!("{OK}Content-Length: \r\n\r\n"),
        format!("{OK}Content-Length: 99999999999999999999\r\n\r\nhello"),
        format!("{OK}Transfer-Encoding: identity\r\n\r\nhello"),
        format!("{OK}Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        format!("{OK}Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        format!("{OK}Transfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        format!("{OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("{OK}X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"),
        format!("{OK}X: a\0b\r\nContent-Length: 0\r\n\r\n"),
        format!("{OK}: a\r\nContent-Length: 0\r\n\r\n"),
        format!("{OK}no colon\r\nContent-Length: 0\r\n\r\n"),
        "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "hello".to_owned(),
        String::new(),
    ];
    for (answer, on) in bad.iter().flat_map(|answer| [(answer, On::New), (answer, On::Reused)]) {
        if on == On::Reused {
            assert_eq!(world.get("a.example", "/").await.text(), "one");
        }
        origin.say(answer);
        let (connections, ended) = (origin.connections(), origin.ended());
        let mut client = world.client().await;
        let path = if answer.contains("\r\n\r\n") { "/raw" } else { "/raw-end" };
        let got = client.get("a.example", path).await;
        assert_eq!((got.status, got.field("connection").as_deref()), (502, Some("close")), "{answer:?}, {on:?}");
        assert!(client.closed().await, "{answer:?}, {on:?}");
        // Where nothing came at all on a reused one, it was stale, and the request is sent again.
        let made = usize::from(on == On::New || answer.is_empty());
        assert_eq!(origin.connections() - connections, made, "{answer:?}, {on:?}");
        until("the upstream connection to be dropped", || origin.ended() == origin.connections()).await;
        assert!(origin.ended() > ended);
    }
    world.stop().await;
}

/// RFC 9112 section 5.2: a proxy "MUST either discard the message [...] or replace each received obs-fold".
#[tokio::test]
async fn p27_a_folded_value_is_one_line_when_it_is_passed_on() {
    let (world, origin) = world().await;
    origin.say(format!("{OK}X: a\r\n Set-Cookie: b\r\n\tc\r\nContent-Length: 5\r\n\r\nhello"));
    let mut client = world.client().await;
    let got = client.get("a.example", "/raw").await;
    assert_eq!((got.text().as_str(), got.field("set-cookie")), ("hello", None));
    assert_eq!(got.field("x").as_deref(), Some("a Set-Cookie: b c"));
    world.stop().await;
}

/// RFC 9112 section 6.3: "An intermediary that chooses to forward the message MUST first remove the received Content-Length
/// field and process the Transfer-Encoding". By the time that the answer can be looked at, its length is gone.
#[tokio::test]
async fn p16_chunks_win_over_a_length_and_only_they_are_passed_on() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    for fields in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 300"]
    {
        origin.say(format!("{OK}{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        let got = client.get("a.example", "/raw").await;
        assert_eq!((got.text().as_str(), got.field("content-length")), ("hello", None), "{fields}");
        assert_eq!(client.get("a.example", "/").await.text(), "one");
    }
    world.stop().await;
}

#[tokio::test]
async fn p16_a_body_that_breaks_off_is_never_a_whole_one() {
    let (world, origin) = world().await;
    let cut_short = [
        "Content-Length: 6\r\n\r\nhello",
        "Content-Length: 1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    let malformed = [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ];
    let all = cut_short.map(|body| ("/raw-end", body)).into_iter().chain(malformed.map(|body| ("/raw", body)));
    for (path, body) in all {
        origin.say(format!("{OK}{body}"));
        let ended = origin.ended();
        let mut client = world.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        let whole = client.whole().await;
        assert!(whole.is_none_or(|response| response.status == 502), "{body:?}");
        until("the upstream connection to be dropped", || origin.ended() > ended).await;
        assert_eq!(world.get("a.example", "/").await.text(), "one");
    }
    world.stop().await;
}

#[tokio::test]
async fn p16_a_body_that_breaks_off_is_no_whole_one_to_http_1_0() {
    let (world, origin) = world().await;
    for body in
        ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"]
    {
        origin.say(format!("{OK}{body}"));
        let mut client = world.client().await;
        client.send("GET /raw-end HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
        let mut bytes = Vec::new();
        let end = soon("the end", client.stream.read_to_end(&mut bytes)).await;
        let whole = String::from_utf8_lossy(&bytes).into_owned();
        assert!(end.is_err() || whole.starts_with("HTTP/1.1 502"), "{body:?}: {whole:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn p16_what_comes_after_an_answer_is_nobodys_answer() {
    let (world, origin) = world().await;
    let evil = format!("{OK}Content-Length: 4\r\n\r\nevil");
    let mut client = world.client().await;
    for (path, answer) in [
        ("/raw", format!("{OK}Content-Length: 5\r\n\r\nhello{evil}")),
        ("/raw", format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{evil}")),
        ("/raw", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}")),
        ("/raw", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n{evil}")),
    ] {
        origin.say(&answer);
        assert!(matches!(client.get("a.example", path).await.text().as_str(), "hello" | ""), "{answer:?}");
        assert_eq!(client.get("a.example", "/").await.text(), "one", "{answer:?}");
    }
    // And what comes while the connection waits in the pool.
    origin.say(&evil);
    let ended = origin.ended();
    assert_eq!(client.get("a.example", "/raw-late").await.text(), "one");
    origin.go();
    until("the connection to be dropped", || origin.ended() > ended).await;
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p09_trailers_of_an_answer_are_dropped() {
    let (world, origin) = world().await;
    let trailers = "X-Mine: y\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n";
    origin.say(format!("{OK}Transfer-Encoding: chunked\r\nTrailer: X-Mine\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n"));
    let mut client = world.client().await;
    let got = client.get("a.example", "/raw").await;
    assert_eq!((got.text().as_str(), got.field("trailer")), ("hello", None));
    assert_eq!(client.get("a.example", "/").await.text(), "one", "nothing was left in between");
    world.stop().await;
}

#[tokio::test]
async fn p14_a_switch_of_protocols_needs_to_be_asked_for() {
    let (world, origin) = world().await;
    origin.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfree bytes");
    for fields in ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Content-Length: 0\r\n"] {
        let mut client = world.client().await;
        client.send(format!("GET /raw-end HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).await;
        let got = client.response().await;
        assert_eq!((got.status, got.field("connection").as_deref()), (502, Some("close")), "{fields:?}");
        assert!(client.closed().await);
    }
    world.stop().await;
}

#[tokio::test]
async fn p18_an_interim_answer_is_passed_on_and_is_not_the_answer() {
    let (world, origin) = world().await;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n";
    origin.say(format!("{interim}{interim}{OK}Content-Length: 5\r\n\r\nhello"));
    let mut client = world.client().await;
    client.send("GET /raw HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    for _ in 0..2 {
        let head = client.head().await.expect("an interim answer").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 103") && head.contains("link: </x>"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    }
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    // An interim answer and nothing else is no answer.
    origin.say(interim);
    client.send("GET /raw-end HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(client.response().await.status, 502);
    world.stop().await;
}

#[tokio::test]
async fn p19_answers_without_a_body_have_none_whatever_their_length_says() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    for (method, status, framing, length) in [
        ("HEAD", "200 OK", "Content-Length: 5", Some("5")),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked", None),
        ("HEAD", "404 Not Found", "Content-Length: 5", Some("5")),
        ("GET", "304 Not Modified", "Content-Length: 5", Some("5")),
        ("GET", "304 Not Modified", "Transfer-Encoding: chunked", None),
        ("GET", "204 No Content", "Content-Length: 5", None),
        ("GET", "204 No Content", "Transfer-Encoding: chunked", None),
        ("GET", "204 No Content", "ETag: x", None),
    ] {
        origin.say(format!("HTTP/1.1 {status}\r\n{framing}\r\n\r\n"));
        client.send(format!("{method} /raw HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        let got = client.response_to(method).await;
        assert_eq!(got.status.to_string(), status[..3], "{method} {framing}");
        assert_eq!(got.field("content-length").as_deref(), length, "{method} {status} {framing}");
        assert!(method == "HEAD" || got.field("transfer-encoding").is_none(), "{status} {framing}");
        assert_eq!(client.get("a.example", "/").await.text(), "one", "{method} {status} {framing}");
    }
    world.stop().await;
}

#[tokio::test]
async fn p27_p41_locations_and_encoded_bodies_are_not_touched() {
    let (world, origin) = world().await;
    let body = "not really compressed";
    let fields =
        "Location: //elsewhere.example:81/../x?y#z\r\nContent-Encoding: br\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d";
    origin.say(format!("HTTP/1.1 302 Found\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let mut client = world.client().await;
    client.send("GET /raw HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: identity\r\n\r\n").await;
    let got = client.response().await;
    assert_eq!((got.status, got.text().as_str()), (302, body));
    assert_eq!(got.field("location").as_deref(), Some("//elsewhere.example:81/../x?y#z"));
    assert_eq!(got.field("content-encoding").as_deref(), Some("br"));
    assert_eq!(crate::world::client::field(&got.head, "set-cookie"), ["a=b", "c=d"]);
    world.stop().await;
}
