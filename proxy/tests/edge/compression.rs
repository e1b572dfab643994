//! Answers that the edge compresses: what a client gets is what the instance said, or nothing whole.

use std::io::Read;
use std::process::Stdio;

use dormouse_proxy::Http2;
use http::Method;
use tokio::process::Command;

use crate::choosing::balanced;
use crate::edits::changing;
use crate::world::client::{Client, field};
use crate::world::h2c::H2cOrigin;
use crate::world::origin::Origin;
use crate::world::{World, http2, ready, route, soon, under, until};

const HOST: &str = "a.example";
const POLICY: &str = r#"{"compression": {}}"#;
const OK: &str = "HTTP/1.1 200 OK\r\n";
const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n";

async fn world(policy: &str) -> (World, Origin) {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = Origin::start("one").await;
    world.publish([route(HOST), under(policy, ready(HOST, 1, &[&origin]))]).await;
    (world, origin)
}

fn page() -> String {
    (0..5000).map(|line| format!("<li>dormouse number {line}</li>\n")).collect()
}

fn with_length(fields: &str, body: &str) -> String {
    format!("{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// What a reader makes of it, if it is whole.
fn decoded(coding: &str, bytes: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text)?,
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text)?,
        "zstd" => zstd::stream::read::Decoder::new(bytes)?.read_to_string(&mut text)?,
        other => panic!("no coding {other}"),
    };
    Ok(text)
}

/// What a reader makes of a begin.
fn begin(coding: &str, bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let _broken_off = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text),
        _ => zstd::stream::read::Decoder::new(bytes).expect("a decoder").read_to_end(&mut text),
    };
    String::from_utf8(text).expect("text")
}

async fn ask(client: &mut Client, method: &str, accepts: &str) -> crate::world::client::Response {
    client.send(format!("{method} /raw HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {accepts}\r\n\r\n")).await;
    client.response_to(method).await
}

fn stream(path: &str, accepts: &str) -> http::Request<()> {
    let mut request = http2::request(Method::GET, HOST, path);
    request.headers_mut().insert("accept-encoding", accepts.parse().expect("a value"));
    request
}

#[tokio::test]
async fn a_client_gets_what_the_instance_said_in_the_coding_that_it_takes() {
    let (world, origin) = world(POLICY).await;
    let mut client = world.client().await;
    let mut streams = http2::Client::connect(world.http()).await;
    let fields = "ETag: \"a\"\r\nVary: Origin\r\nAccept-Ranges: bytes\r\nContent-MD5: x\r\nDigest: x\r\n\
                  Content-Digest: x\r\nRepr-Digest: x\r\nX-Mine: kept\r\n";
    let chunked =
        format!("{HTML}{fields}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n", page().len(), page());
    for said in [with_length(&format!("{HTML}{fields}"), &page()), chunked] {
        origin.say(said);
        for coding in ["zstd", "br", "gzip"] {
            let got = ask(&mut client, "GET", coding).await;
            assert!(decoded(coding, &got.body).expect("it is whole") == page(), "{coding}");
            assert!(got.body.len() < page().len() / 4, "{coding}: {}", got.body.len());
            for (name, value) in [
                ("content-encoding", Some(coding)),
                ("vary", Some("Origin, Accept-Encoding")),
                ("etag", Some("W/\"a\"")),
                ("x-mine", Some("kept")),
                ("transfer-encoding", Some("chunked")),
                ("content-length", None),
                ("accept-ranges", None),
                ("content-md5", None),
                ("digest", None),
                ("content-digest", None),
                ("repr-digest", None),
            ] {
                assert_eq!(got.field(name).as_deref(), value, "{coding} {name}");
                assert!(field(&got.head, name).len() < 2, "{coding} {name}");
            }
            let got = streams.send(stream("/raw", coding), b"").await.expect("an answer");
            assert!(decoded(coding, &got.body).expect("it is whole") == page(), "{coding}");
            assert_eq!((got.field("content-encoding"), got.field("content-length")), (Some(coding), None));
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn who_takes_no_coding_gets_the_answer_as_it_is_and_caches_are_told() {
    let (world, origin) = world(POLICY).await;
    let mut client = world.client().await;
    origin.say(with_length(&format!("{HTML}ETag: \"a\"\r\n"), &page()));
    for accepts in ["identity", "deflate", "gzip;q=0, *;q=0", ""] {
        let got = ask(&mut client, "GET", accepts).await;
        assert!(got.text() == page());
        assert_eq!((got.field("content-encoding"), got.field("etag").as_deref()), (None, Some("\"a\"")), "{accepts}");
        assert_eq!(field(&got.head, "vary"), ["Accept-Encoding"], "{accepts}");
    }
    // What varies anyway is not told twice.
    for (vary, told) in
        [("*", "*"), ("origin, ACCEPT-encoding", "origin, ACCEPT-encoding"), ("A\r\nVary: B", "A, B, Accept-Encoding")]
    {
        origin.say(with_length(&format!("{HTML}Vary: {vary}\r\n"), &page()));
        for accepts in ["identity", "gzip"] {
            assert_eq!(field(&ask(&mut client, "GET", accepts).await.head, "vary"), [told], "{vary}");
        }
    }
    let mut old = world.client().await;
    origin.say(with_length(HTML, &page()));
    old.send(format!("GET /raw HTTP/1.0\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n")).await;
    assert!(old.response().await.text() == page());
    world.stop().await;
}

#[tokio::test]
async fn p41_what_is_encoded_or_not_to_be_changed_or_not_listed_is_not_touched() {
    let (world, origin) = world(POLICY).await;
    let mut client = world.client().await;
    let body = page();
    for fields in [
        format!("{HTML}Content-Encoding: br\r\n"),
        format!("{HTML}Content-Encoding: x-mine\r\n"),
        format!("{HTML}Cache-Control: public, no-transform\r\n"),
        format!("{OK}Content-Type: image/png\r\n"),
        format!("{OK}Content-Type: text/event-stream\r\n"),
        format!("{OK}Content-Type: application/grpc-web\r\n"),
        OK.to_owned(),
        "HTTP/1.1 206 Partial Content\r\nContent-Type: text/html\r\nContent-Range: bytes 0-1/2\r\n".to_owned(),
    ] {
        origin.say(with_length(&format!("{fields}ETag: \"a\"\r\n"), &body));
        let got = ask(&mut client, "GET", "gzip").await;
        assert!(got.text() == body, "{fields}");
        assert_eq!(got.field("content-length"), Some(body.len().to_string()), "{fields}");
        assert_eq!((got.field("vary"), got.field("etag").as_deref()), (None, Some("\"a\"")), "{fields}");
    }
    for answer in [
        "HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n".to_owned(),
        with_length(HTML, "short"),
        with_length(HTML, ""),
    ] {
        origin.say(&answer);
        assert_eq!(ask(&mut client, "GET", "gzip").await.field("content-encoding"), None, "{answer}");
    }
    world.stop().await;
}

#[tokio::test]
async fn head_is_told_what_get_would_be() {
    let (world, origin) = world(POLICY).await;
    let mut client = world.client().await;
    let length = page().len();
    origin.say(format!("{HTML}ETag: \"a\"\r\nContent-Length: {length}\r\n\r\n"));
    let head = ask(&mut client, "HEAD", "br").await;
    origin.say(with_length(&format!("{HTML}ETag: \"a\"\r\n"), &page()));
    let get = ask(&mut client, "GET", "br").await;
    for name in ["content-encoding", "vary", "etag", "content-length", "content-type"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    assert_eq!(head.field("content-encoding").as_deref(), Some("br"));
    world.stop().await;
}

#[tokio::test]
async fn an_answer_that_a_client_has_is_still_good_by_the_tag_that_it_was_given() {
    let (world, origin) = world(POLICY).await;
    let mut client = world.client().await;
    origin.say("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    for (had, etag, vary) in [("W/\"a\"", "W/\"a\"", Some("Accept-Encoding")), ("\"a\"", "\"a\"", None)] {
        client
            .send(format!("GET /raw HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: br\r\nIf-None-Match: {had}\r\n\r\n"))
            .await;
        let got = client.response().await;
        assert_eq!((got.status, got.field("etag").as_deref(), got.field("vary").as_deref()), (304, Some(etag), vary));
        let asked = origin.requests().pop().expect("a request");
        assert_eq!(asked.field("if-none-match"), [had], "as it was sent");
    }
    world.stop().await;
}

#[tokio::test]
async fn p61_a_part_of_a_page_can_be_read_before_the_next_one_is_sent() {
    let (world, origin) = world(POLICY).await;
    origin.say(format!("{HTML}Transfer-Encoding: chunked\r\n\r\n5\r\nfirstHALF\r\n6\r\nsecond\r\n0\r\n\r\n"));
    for coding in ["zstd", "br", "gzip"] {
        let mut client = world.client().await;
        client.send(format!("GET /raw-halves HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
        client.head().await.expect("a head");
        let mut bytes = Vec::new();
        while begin(coding, &bytes) != "first" {
            bytes.extend(soon("a chunk", chunk(&mut client)).await.expect("a chunk"));
        }
        origin.go();
        while let Some(more) = soon("a chunk", chunk(&mut client)).await {
            bytes.extend(more);
        }
        assert_eq!(decoded(coding, &bytes).expect("it is whole"), "firstsecond");
    }
    world.stop().await;
}

#[tokio::test]
async fn beyond_those_that_may_be_compressed_at_a_time_answers_go_out_as_they_are() {
    let mut world = World::with(|config| (config.workers, config.limits.compressed) = (1, 1)).await;
    let origin = Origin::start("one").await;
    world.publish([route(HOST), under(POLICY, ready(HOST, 1, &[&origin]))]).await;
    origin.say(format!("{HTML}Transfer-Encoding: chunked\r\n\r\n5\r\nfirstHALF\r\n6\r\nsecond\r\n0\r\n\r\n"));
    let (mut first, mut second) = (world.client().await, world.client().await);
    let ask = format!("GET /raw-halves HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n");
    first.send(&ask).await;
    assert!(first.head().await.expect("a head").to_ascii_lowercase().contains("content-encoding: gzip"));
    second.send(&ask).await;
    let head = second.head().await.expect("a head").to_ascii_lowercase();
    assert!(!head.contains("content-encoding") && head.contains("vary: accept-encoding"), "{head}");
    assert_eq!(chunk(&mut second).await.as_deref(), Some(&b"first"[..]));
    // Whose answer has ended makes place.
    origin.go();
    origin.go();
    for client in [&mut first, &mut second] {
        while soon("a chunk", chunk(client)).await.is_some() {}
    }
    first.send(&ask).await;
    assert!(first.head().await.expect("a head").to_ascii_lowercase().contains("content-encoding: gzip"));
    origin.go();
    while soon("a chunk", chunk(&mut first)).await.is_some() {}
    world.stop().await;
}

/// One chunk of a body; nothing at its end.
async fn chunk(client: &mut Client) -> Option<Vec<u8>> {
    let size = usize::from_str_radix(client.until(b"\r\n").await?.trim(), 16).expect("a chunk size");
    let chunk = client.take(size + 2).await?;
    (size > 0).then(|| chunk[..size].to_vec())
}

#[tokio::test]
async fn p16_a_compressed_answer_that_breaks_off_is_never_a_whole_one() {
    let (world, origin) = world(POLICY).await;
    let half = &page()[..60_000];
    for said in [
        format!("{HTML}Content-Length: {}\r\n\r\n{half}", page().len()),
        format!("{HTML}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n", half.len()),
        format!("{HTML}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}\r\nx\r\n\r\n", half.len()),
    ] {
        origin.say(said);
        for coding in ["zstd", "br", "gzip"] {
            let mut client = world.client().await;
            client.send(format!("GET /raw-end HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
            assert!(client.head().await.expect("a head").contains(coding));
            let mut bytes = Vec::new();
            let end = loop {
                match soon("a chunk, or the end", client.until(b"\r\n")).await {
                    None => break "broken off",
                    Some(size) if size == "0\r\n" => break "whole",
                    Some(size) => {
                        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
                        let Some(more) = client.take(size + 2).await else { break "broken off" };
                        bytes.extend_from_slice(&more[..size]);
                    }
                }
            };
            assert_eq!(end, "broken off", "{coding}");
            assert!(decoded(coding, &bytes).is_err(), "{coding}");
            let mut streams = http2::Client::connect(world.http()).await;
            assert!(streams.send(stream("/raw-end", coding), b"").await.is_err(), "{coding}");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_compressed_answer_ends_it_at_the_instance() {
    let (world, origin) = world(POLICY).await;
    origin.say(format!("{HTML}Transfer-Encoding: chunked\r\n\r\n5\r\nfirstHALF\r\n0\r\n\r\n"));
    let ended = origin.ended();
    let mut client = world.client().await;
    client.send(format!("GET /raw-halves HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: zstd\r\n\r\n")).await;
    client.head().await.expect("a head");
    drop(client);
    // Until then the origin waits, and does not look.
    origin.got(1).await;
    origin.go();
    until("the connection to the instance to end", || origin.ended() > ended).await;
    origin.say(with_length(HTML, &page()));
    assert_eq!(ask(&mut world.client().await, "GET", "zstd").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn an_answer_of_h2c_with_a_length_is_compressed_whole_and_its_trailers_go() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = H2cOrigin::start("one").await;
    let policy = r#"{"protocol": "h2c", "compression": {}}"#;
    world.publish([route(HOST), balanced(HOST, 1, &[&origin.origin], policy)]).await;
    let body = page();
    let mut streams = http2::Client::connect(world.http()).await;
    let mut client = world.client().await;
    for coding in ["zstd", "br", "gzip"] {
        let (parts, ()) = stream("/length", coding).into_parts();
        let mut request = http::Request::from_parts(parts, ());
        *request.method_mut() = Method::POST;
        let got = streams.send(request, body.as_bytes()).await.expect("an answer");
        assert!(decoded(coding, &got.body).expect("it is whole") == body, "{coding}");
        let length = body.len();
        client
            .send(format!(
                "POST /length HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let got = client.response().await;
        assert!(decoded(coding, &got.body).expect("it is whole") == body, "{coding}");
    }
    world.stop().await;
}

/// Nothing is no compressed content, and of an answer without a length nobody can tell in time.
#[tokio::test]
async fn an_answer_of_h2c_that_may_be_a_head_alone_is_not_compressed() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = H2cOrigin::start("one").await;
    let policy = r#"{"protocol": "h2c", "compression": {"least_bytes": 0}}"#;
    world.publish([route(HOST), balanced(HOST, 1, &[&origin.origin], policy)]).await;
    let mut client = world.client().await;
    client.send(format!("GET /bare HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: br\r\n\r\n")).await;
    let one = client.response().await;
    assert_eq!((one.status, one.field("content-encoding"), one.body.len()), (200, None, 0));
    let two = http2::Client::connect(world.http()).await.send(stream("/bare", "br"), b"").await.expect("an answer");
    assert_eq!((two.headers.get("content-encoding"), two.body.len()), (None, 0));
    world.stop().await;
}

/// What a rule makes of a request's fields is for the instance.
#[tokio::test]
async fn it_is_compressed_for_what_the_client_said_whatever_the_instance_gets() {
    let mut world = World::with(|config| config.listeners[0].http2 = Http2::On).await;
    let origin = Origin::start("one").await;
    origin.say(with_length(HTML, &page()));
    for edit in [r#"{"remove": ["Accept-Encoding"]}"#, r#"{"set": {"Accept-Encoding": "br"}}"#] {
        let changes = format!(r#""request_headers": {edit}"#);
        world.publish([changing(&changes), under(POLICY, ready(HOST, 1, &[&origin]))]).await;
        let one = ask(&mut world.client().await, "GET", "gzip").await;
        assert!(decoded("gzip", &one.body).expect("gzip") == page(), "{edit}");
        let two =
            http2::Client::connect(world.http()).await.send(stream("/raw", "gzip"), b"").await.expect("an answer");
        assert!(decoded("gzip", &two.body).expect("gzip") == page(), "{edit}");
    }
    world.stop().await;
}

#[tokio::test]
async fn records_count_what_was_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        config.access_log = Some(log.into());
    })
    .await;
    let origin = Origin::start("one").await;
    world.publish([route(HOST), under(POLICY, ready(HOST, 1, &[&origin]))]).await;
    origin.say(with_length(HTML, &page()));
    ask(&mut world.client().await, "GET", "zstd").await;
    let mut streams = http2::Client::connect(world.http()).await;
    let got = streams.send(stream("/raw", "zstd"), b"").await.expect("an answer");
    world.stop().await;
    let text = std::fs::read_to_string(&path).expect("the log, flushed");
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let sent: Vec<_> = records.map(|record| record["bytes_out"].as_u64().expect("a number")).collect();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|sent| *sent < page().len() as u64 / 4), "{sent:?}");
    assert_eq!(sent[1], got.body.len() as u64);
}

/// Somebody else's reader, where there is one.
#[tokio::test]
async fn curl_reads_what_is_compressed() {
    let (world, origin) = world(POLICY).await;
    origin.say(with_length(HTML, &page()));
    for coding in ["zstd", "br", "gzip"] {
        let ran = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "20", "--compressed"])
            .args(["--header", &format!("Host: {HOST}"), "--header", &format!("Accept-Encoding: {coding}")])
            .arg(format!("http://{}/raw", world.http()))
            .stdin(Stdio::null())
            .output();
        let Ok(ran) = ran.await else { break };
        // An older one does not know each coding.
        if ran.status.code() != Some(61) {
            assert!(ran.status.success(), "{coding}: {}", String::from_utf8_lossy(&ran.stderr));
            assert!(ran.stdout == page().into_bytes(), "{coding}");
        }
    }
    world.stop().await;
}
