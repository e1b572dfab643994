//! Bad input at every address of the API: told as a problem with what to do, and nothing is half made.
//!
//! The list of addresses is the API's own, so that a new one without a row here fails.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dormouse_control::api_routes;
use dormouse_control::engine::fake::Operation;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{SOON, World};

/// The longest answer to bad input, in bytes: what was sent is not all sent back.
const ANSWER_MAX_BYTES: usize = 8 * 1024;

/// Names that nothing has, as they stand in a path.
const NAMES: [&str; 13] = [
    "",
    "nobody",
    "Shop",
    "-e",
    "%2e%2e%2f%2e%2e%2fetc",
    "..",
    "shop%2f",
    "shop%00",
    "shop%1b%5b2J%0d%0a",
    "%e2%80%aepohs",
    // A Cyrillic o.
    "sh%d0%bep",
    "%ff%fe",
    LONG,
];
const LONG: &str = match std::str::from_utf8(&[b'x'; 5000]) {
    Ok(long) => long,
    Err(_) => "",
};

/// Of a password.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What one address takes.
enum Takes {
    Nothing,
    /// A document with these fields; each must be there, or none.
    Document(Value, Fields),
    /// What stands behind the question mark; these are wrong.
    Options(&'static [&'static str]),
}

#[derive(PartialEq)]
enum Fields {
    Needed,
    Optional,
}

/// The row of a route.
fn row(method: &str, path: &str) -> Takes {
    match (method, path.strip_prefix("/api/v1").expect("the API's prefix")) {
        ("GET", "/apps" | "/apps/{app}") | ("DELETE", "/apps/{app}") => Takes::Nothing,
        ("POST", "/apps") => Takes::Document(json!({ "name": "other" }), Fields::Needed),
        ("PATCH", "/apps/{app}/environments/{environment}") => Takes::Document(
            json!({ "sleep_after_ms": 5000, "ready_within_ms": 5000, "memory_bytes": 1 << 28, "cpus_milli": 500,
                "processes": 100, "variables": { "A": "b" }, "maintenance": true, "pause": true, "indexed": true,
                "passwords": { "ann": HASH } }),
            Fields::Optional,
        ),
        ("GET" | "DELETE", "/apps/{app}/environments/{environment}/policy") => Takes::Nothing,
        ("PUT", "/apps/{app}/environments/{environment}/policy") => Takes::Document(
            json!({ "limits": { "concurrency": 5 }, "access": { "deny": ["192.0.2.1"] } }),
            Fields::Optional,
        ),
        (
            "POST",
            "/apps/{app}/environments/{environment}/deploy"
            | "/apps/{app}/environments/{environment}/sleep"
            | "/apps/{app}/environments/{environment}/wake",
        ) => Takes::Nothing,
        ("GET", "/apps/{app}/environments/{environment}/logs") => Takes::Options(&[
            "tail=-1",
            "tail=x",
            "tail=",
            "tail=99999999999999999999",
            "tail=1&tail=2",
            "tail=%ff",
            "tail=%1b%5b2J",
            "follow",
            "follow=maybe",
            "%1b%5b2J=1",
            "unknown=1",
        ]),
        _ => panic!("{method} {path} has no row: say what it takes, and what it refuses"),
    }
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// How a request is wrong.
#[derive(Clone)]
struct Wrong {
    what: String,
    method: String,
    path: String,
    token: Option<Vec<u8>>,
    kind: Option<&'static str>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    None,
    Whole(Vec<u8>),
    /// Chunks without an end.
    Endless,
    /// The begin of one that is said to be longer.
    Begun,
}

impl Wrong {
    fn head(&self) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", self.method, self.path).into_bytes();
        if let Some(token) = &self.token {
            head.extend([b"Authorization: ", token.as_slice(), b"\r\n"].concat());
        }
        if let Some(kind) = self.kind {
            head.extend(format!("Content-Type: {kind}\r\n").bytes());
        }
        let framing = match &self.body {
            Body::None => String::new(),
            Body::Whole(body) => format!("Content-Length: {}\r\n", body.len()),
            Body::Endless => "Transfer-Encoding: chunked\r\n".to_owned(),
            Body::Begun => "Content-Length: 1000\r\n".to_owned(),
        };
        head.extend(format!("{framing}\r\n").bytes());
        head
    }

    /// Sends it, for as long as it is taken, and reads the answer meanwhile.
    async fn ask(&self, at: SocketAddr) -> Reply {
        let (mut from, mut to) = TcpStream::connect(at).await.expect("it listens").into_split();
        let (head, body) = (self.head(), self.body.clone());
        let sending = async move {
            to.write_all(&head).await?;
            match body {
                Body::None => {}
                Body::Whole(body) => to.write_all(&body).await?,
                Body::Begun => to.write_all(b"{\"name\":").await?,
                Body::Endless => loop {
                    to.write_all(&[b"1000\r\n", &[b' '; 0x1000][..], b"\r\n"].concat()).await?;
                },
            }
            std::future::pending::<std::io::Result<()>>().await
        };
        let reading = async {
            let mut answer = Vec::new();
            // An unread body may end the connection by a reset, behind the answer.
            let _ = from.read_to_end(&mut answer).await;
            answer
        };
        let answer = timeout(SOON, async {
            let mut reading = std::pin::pin!(reading);
            tokio::select! {
                answer = &mut reading => answer,
                // It takes no more; what it said is still to be read.
                _ = sending => reading.await,
            }
        });
        let answer = answer.await.unwrap_or_else(|_| panic!("{}: no answer", self.what));
        let answer = String::from_utf8(answer).expect("it answers in UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}: {answer:?}", self.what));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Asks, and checks that the answer is a problem of one of these statuses.
    async fn refused(&self, at: SocketAddr, statuses: &[u16]) -> Reply {
        let (what, reply) = (&self.what, self.ask(at).await);
        assert!(statuses.contains(&reply.status), "{what}: not one of {statuses:?}: {reply:?}");
        assert_eq!(reply.field("content-type"), Some("application/problem+json"), "{what}: {reply:?}");
        let problem: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{what}: {reply:?}"));
        assert_eq!(problem["status"], reply.status, "{what}");
        for field in ["type", "title", "detail", "hint"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: {field}: {problem}");
        }
        let raw = |letter: char| letter.is_control() || ('\u{202a}'..='\u{202e}').contains(&letter);
        let texts = [&reply.body, problem["detail"].as_str().expect("text")];
        assert!(!texts.iter().any(|text| text.contains(raw)), "{what}: {problem}");
        assert!(reply.body.len() < ANSWER_MAX_BYTES, "{what}: {} bytes", reply.body.len());
        reply
    }
}

/// A request that would be right, to this route of an application that is there.
fn right(world: &World, method: &str, path: &str) -> Wrong {
    let (kind, body) = match row(method, path) {
        Takes::Document(document, _) => (Some("application/json"), Body::Whole(document.to_string().into_bytes())),
        Takes::Nothing | Takes::Options(_) => (None, Body::None),
    };
    let token = Some(format!("Bearer {}", world.door().1).into_bytes());
    let path = path.replace("{app}", "shop").replace("{environment}", "test");
    Wrong { what: format!("{method} {path}"), method: method.to_owned(), path, token, kind, body }
}

/// All that a refused request must not have changed.
async fn state(world: &World) -> (Value, BTreeSet<std::ffi::OsString>, Vec<usize>) {
    let (status, mut apps) = world.api("GET", "/apps", None).await;
    assert_eq!(status, 200, "{apps}");
    for app in apps["apps"].as_array_mut().expect("applications") {
        for environment in app["environments"].as_array_mut().expect("environments") {
            environment["last_active_at"] = Value::Null;
        }
    }
    let folders = std::fs::read_dir(world.data().join("git")).expect("a folder");
    let fake = world.fake.as_ref().expect("the scripted engine");
    let done = [Operation::Build, Operation::Start, Operation::Stop, Operation::Remove, Operation::RemoveImage];
    (apps, folders.flatten().map(|entry| entry.file_name()).collect(), done.map(|what| fake.calls(what)).to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_api_wants_the_token() {
    let world = World::with_shop().await;
    let (at, token) = world.door();
    let before = state(&world).await;
    let long = [b"Bearer ".as_slice(), &[b'x'; 10_000]].concat();
    let more = format!("Bearer {token}x");
    let less = format!("Bearer {}", &token[1..]);
    let wrong: [Option<&[u8]>; 12] = [
        None,
        Some(b""),
        Some(b"Bearer"),
        Some(b"Bearer "),
        Some(b"Bearer wrong"),
        Some(more.as_bytes()),
        Some(less.as_bytes()),
        Some(b"Bearer \xff\xfe"),
        Some(b"Basic !!!"),
        Some(b"Basic eDp3cm9uZw=="),
        Some(b"Digest x"),
        Some(&long),
    ];
    for (method, path) in api_routes() {
        for token in wrong {
            let mut request = right(&world, method, path);
            request.token = token.map(<[u8]>::to_vec);
            request.what += &format!(" with the token {:?}", token.map(String::from_utf8_lossy));
            let reply = request.refused(at, &[401]).await;
            assert!(reply.field("www-authenticate").is_some_and(|way| way.starts_with("Bearer")), "{reply:?}");
        }
    }
    assert_eq!(state(&world).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_api_refuses_other_methods_and_says_which_it_takes() {
    let world = World::with_shop().await;
    let before = state(&world).await;
    for (_, path) in api_routes() {
        let takes: BTreeSet<&str> =
            api_routes().into_iter().filter(|(_, other)| *other == path).map(|(method, _)| method).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if takes.contains(method) {
                continue;
            }
            let first = takes.first().expect("it takes one");
            let mut request = right(&world, first, path);
            request.what = format!("{method} {path}");
            request.method = method.to_owned();
            let reply = request.refused(world.door().0, &[405]).await;
            let allowed: BTreeSet<&str> = reply.field("allow").unwrap_or_default().split(',').map(str::trim).collect();
            let allowed: BTreeSet<&str> = allowed.into_iter().filter(|method| *method != "HEAD").collect();
            assert_eq!(allowed, takes, "{}", request.what);
        }
    }
    assert_eq!(state(&world).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_api_tells_names_that_nothing_has() {
    let world = World::with_shop().await;
    let before = state(&world).await;
    for (method, path) in api_routes() {
        for place in ["{app}", "{environment}"] {
            for name in NAMES {
                if !path.contains(place) {
                    continue;
                }
                let path = path.replace(place, name).replace("{app}", "shop").replace("{environment}", "test");
                let mut request = right(&world, method, api_path(&path, method, place));
                request.what = format!("{method} {path}");
                request.path = path;
                request.refused(world.door().0, &[400, 404, 405]).await;
            }
        }
    }
    assert_eq!(state(&world).await, before);
    for nothing in ["/", "/api", "/api/v1", "/api/v2/apps", "/api/v1/nothing", "/api/v1/apps/shop/", "/%ff", "*"] {
        let mut request = right(&world, "GET", "/api/v1/apps");
        (request.what, request.path) = (nothing.to_owned(), nothing.to_owned());
        request.refused(world.door().0, &[404]).await;
    }
}

/// The route that a path with a wrong name was made of.
fn api_path(path: &str, method: &str, place: &str) -> &'static str {
    let end = path.rsplit('/').next().expect("its last part");
    let fits = |route: &&(&'static str, &'static str)| route.0 == method && route.1.contains(place);
    let routes = api_routes();
    let of_end = routes.iter().filter(fits).find(|(_, route)| route.ends_with(end) && !end.is_empty());
    of_end.or(routes.iter().find(fits)).expect("it is one").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_api_refuses_documents_and_options_that_it_does_not_know() {
    let world = World::with_shop().await;
    let before = state(&world).await;
    let at = world.door().0;
    for (method, path) in api_routes() {
        let right = right(&world, method, path);
        match row(method, path) {
            Takes::Nothing => {}
            Takes::Options(all) => {
                for options in all {
                    let mut request = right.clone();
                    request.path += &format!("?{options}");
                    request.what = format!("{method} {}", request.path);
                    request.refused(at, &[400]).await;
                }
            }
            Takes::Document(document, fields) => {
                for (what, body) in documents(&document, &fields) {
                    let request = Wrong { what: format!("{method} {path}: {what}"), body, ..right.clone() };
                    let expected: &[u16] = if what == "too large" || what == "endless" { &[413] } else { &[400, 422] };
                    request.refused(at, expected).await;
                }
                for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("\u{7}")] {
                    let request = Wrong { what: format!("{method} {path}: {kind:?}"), kind, ..right.clone() };
                    if kind == Some("\u{7}") {
                        // No field at all to whoever reads the head.
                        assert_eq!(request.ask(at).await.status, 400);
                    } else {
                        request.refused(at, &[415]).await;
                    }
                }
            }
        }
    }
    assert_eq!(state(&world).await, before);
}

/// Documents that are none, or not the one that is taken.
fn documents(right: &Value, fields: &Fields) -> Vec<(String, Body)> {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let mut all: Vec<(String, Body)> = vec![
        ("too large".into(), Body::Whole(format!("{right}{}", " ".repeat(2 << 20)).into_bytes())),
        ("endless".into(), Body::Endless),
        ("deep".into(), Body::Whole(deep.clone().into_bytes())),
    ];
    let texts: [&[u8]; 14] = [
        b"",
        b" ",
        b"{",
        b"nul",
        b"[]",
        b"1",
        b"\"x\"",
        b"null",
        b"1e999",
        b"{\"\xff\":1}",
        b"\xef\xbb\xbf{}",
        b"{\"\\ud800\":1}",
        b"{\"a\x1b[2J\":1}",
        b"{\"\xe2\x80\xae\\u001b[2J\":1}",
    ];
    all.extend(texts.map(|text| (String::from_utf8_lossy(text).into_owned(), Body::Whole(text.to_vec()))));
    all.push(("two of them".into(), Body::Whole(format!("{right}{right}").into_bytes())));
    let object = right.as_object().expect("an object");
    let with = |field: &str, value: Value| {
        let mut changed = object.clone();
        changed.insert(field.to_owned(), value);
        Body::Whole(Value::Object(changed).to_string().into_bytes())
    };
    all.push(("an unknown field".into(), with("unknown", json!(1))));
    for field in object.keys() {
        let wrong = [json!({ "x": 1 }), json!([1]), json!(true), json!(-1.5), json!("a\u{1b}[2J\u{202e}")];
        for wrong in wrong.into_iter().filter(|wrong| *wrong != object[field]) {
            all.push((format!("{field} as {wrong}"), with(field, wrong)));
        }
        let long = "x".repeat(100_000);
        all.push((format!("{field} too long"), with(field, json!(long))));
        let nested = format!("{{\"{field}\":{deep}}}");
        all.push((format!("{field} deep"), Body::Whole(nested.into_bytes())));
        let twice = format!("{{\"{field}\":{0},\"{field}\":{0}}}", object[field]);
        all.push((format!("{field} twice"), Body::Whole(twice.into_bytes())));
        if *fields == Fields::Needed {
            let mut changed = object.clone();
            changed.remove(field);
            all.push((format!("no {field}"), Body::Whole(Value::Object(changed).to_string().into_bytes())));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_does_not_arrive_is_not_waited_for_for_ever() {
    let world = World::with_shop().await;
    let before = state(&world).await;
    let slow = api_routes().into_iter().filter(|(method, path)| matches!(row(method, path), Takes::Document(..)));
    let all = slow.map(|(method, path)| {
        let request = right(&world, method, path);
        Wrong { what: format!("{method} {path}: slow"), body: Body::Begun, ..request }
    });
    let at = world.door().0;
    let mut waiting = tokio::task::JoinSet::new();
    for request in all {
        waiting.spawn(async move { request.refused(at, &[408]).await.status });
    }
    assert!(waiting.join_all().await.len() >= 2);
    assert_eq!(state(&world).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_is_told_what_is_wrong_too() {
    let world = World::with_shop().await;
    let before = state(&world).await;
    let (at, token) = world.door();
    let token = format!("Bearer {token}").into_bytes();
    for path in ["", "/", "/shop.git", "/shop.git/HEAD", "/shop.git/info/refs", "/../shop.git/info/refs"]
        .into_iter()
        .chain(["/shop.git/info/refs?service=x", "/nobody.git/info/refs?service=git-receive-pack"])
        .chain([
            "/%ff.git/info/refs?service=git-receive-pack",
            "/-e.git/git-receive-pack",
            "/shop%1b.git/git-receive-pack",
        ])
    {
        for (method, token) in [("GET", Some(&token)), ("POST", Some(&token)), ("DELETE", Some(&token)), ("POST", None)]
        {
            let request = Wrong {
                what: format!("{method} /git{path}"),
                method: method.to_owned(),
                path: format!("/git{path}"),
                token: token.cloned(),
                kind: None,
                body: Body::Whole(b"\x1b[2J".to_vec()),
            };
            let reply = request.ask(at).await;
            assert!((400..500).contains(&reply.status), "{}: {reply:?}", request.what);
            let harmless = !reply.body.trim_end().contains(char::is_control) && reply.body.len() < ANSWER_MAX_BYTES;
            assert!(harmless && !reply.body.is_empty(), "{}: {reply:?}", request.what);
        }
    }
    assert_eq!(state(&world).await, before);
}
