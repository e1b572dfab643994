//! Whatever an origin does wrong, on a new connection or on one that worked before, and whatever its client speaks: nobody gets a
//! clean answer that is none, and the next request is served.

use std::time::Duration;

use dormouse_proxy::Http2;

use crate::world::origin::Origin;
use crate::world::{World, http2, ready, until};

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What is to be answered has all the time that it needs.
const RULES: &str = r#"{"kind":"route","host":"a.example","rules":[{"environment":"a.example"},
    {"path":"/silent","environment":"a.example","limits":{"answer_ms":150}},
    {"path":"/stops","environment":"a.example","replace_prefix":"/","limits":{"gap_ms":150}}]}"#;

/// Which connection to the origin an answer comes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    New,
    Reused,
}

/// What a client may be told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The answer of the edge.
    Refused(u16),
    /// An answer that was begun and is seen to be broken; or, where nothing of it was passed on yet, 502.
    Broken,
    /// The answer, as far as it was one.
    Hello,
}

/// What the client saw.
#[derive(Debug, PartialEq)]
enum Got {
    Whole(u16, String),
    Broken,
}

impl Outcome {
    fn allows(self, got: &Got) -> bool {
        match (self, got) {
            (Self::Refused(status), Got::Whole(got, _)) => *got == status,
            (Self::Broken, Got::Broken) => true,
            (Self::Broken, Got::Whole(status, _)) => *status == 502,
            (Self::Hello, Got::Whole(200, text)) => text == "hello",
            _ => false,
        }
    }
}

/// What an origin may do wrong: where, with what, and what comes of it.
fn wrongs() -> Vec<(&'static str, String, Outcome)> {
    use Outcome::{Broken, Hello, Refused};
    let many = "x".repeat(200_000);
    vec![
        ("/raw", format!("{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), Refused(502)),
        ("/raw", format!("{OK}Content-Length: 5, 6\r\n\r\nhello!"), Refused(502)),
        ("/raw", format!("{OK}Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Refused(502)),
        ("/raw", format!("{OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Hello),
        ("/raw", format!("{OK}Content-Length: 5\r\n\r\nhello, and more than was said"), Hello),
        ("/raw", format!("{OK}X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"), Refused(502)),
        ("/raw", format!("{OK}X: a\0b\r\nContent-Length: 0\r\n\r\n"), Refused(502)),
        ("/raw-end", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nfree".to_owned(), Refused(502)),
        ("/raw-end", "no HTTP at all\r\n\r\n".to_owned(), Refused(502)),
        ("/raw-end", OK.to_owned(), Refused(502)),
        ("/raw-end", format!("{OK}Content-Length: 6\r\n\r\nhello"), Broken),
        ("/raw-end", format!("{OK}Content-Length: 200001\r\n\r\n{many}"), Broken),
        ("/raw-end", format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"), Broken),
        ("/raw-end", format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Broken),
        ("/raw", format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n"), Broken),
        ("/raw", format!("{OK}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), Broken),
        ("/raw-half", format!("{OK}Content-Length: 6\r\n\r\nhello"), Broken),
        ("/raw-half", format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Broken),
        ("/raw-half", format!("{OK}Content-Length: 5\r\n\r\nhello"), Hello),
        ("/raw-half", format!("{OK}\r\nhello"), Hello),
        ("/raw-half", OK.to_owned(), Refused(502)),
        ("/raw-reset", format!("{OK}Content-Length: 6\r\n\r\nhello"), Broken),
        ("/raw-reset", format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Broken),
        ("/raw-reset", OK.to_owned(), Refused(502)),
        // Silence, before an answer and within one: of rules that allow but a moment of it.
        ("/silent", String::new(), Refused(504)),
        ("/stops/raw", format!("{OK}Content-Length: 6\r\n\r\nhello"), Broken),
    ]
}

async fn world() -> (World, Origin) {
    let mut world = World::with(|config| {
        // One pool, that keeps what it has.
        config.workers = 1;
        config.limits.pooled_idle = Duration::from_secs(100);
        config.listeners[0].http2 = Http2::On;
    })
    .await;
    let origin = Origin::start("one").await;
    let rules = serde_json::from_str(RULES).expect("a route");
    world.publish([rules, ready("a.example", 1, &[&origin])]).await;
    (world, origin)
}

async fn ask(world: &World, version: &str, path: &str) -> Got {
    let answer = if version == "HTTP/2" {
        let mut client = http2::Client::connect(world.http()).await;
        client.get("a.example", path).await.ok().map(|answer| (answer.status, answer.text()))
    } else {
        let mut client = world.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        client.whole().await.map(|answer| (answer.status, answer.text()))
    };
    answer.map_or(Got::Broken, |(status, text)| Got::Whole(status, text))
}

#[tokio::test]
async fn p14_p16_what_an_origin_does_wrong_is_never_a_clean_answer() {
    let (mut world, origin) = world().await;
    let ways = ["HTTP/1.1", "HTTP/2"].into_iter().flat_map(|version| [(version, On::New), (version, On::Reused)]);
    let mut epoch = 1;
    for (version, on) in ways {
        for (path, answer, outcome) in wrongs() {
            let what = format!("{path} {:?}, {version}, {on:?}", &answer[..answer.len().min(120)]);
            // With an epoch, connections of before are nobody's.
            epoch += 1;
            world.publish([ready("a.example", epoch, &[&origin])]).await;
            if on == On::Reused {
                assert_eq!(ask(&world, version, "/").await, Got::Whole(200, "one".to_owned()), "{what}");
            }
            origin.say(&answer);
            let (connections, ended) = (origin.connections(), origin.ended());
            let got = ask(&world, version, path).await;
            assert!(outcome.allows(&got), "{what}: {got:?}");
            // Half a head is none, and a reset may overtake what was sent: then a reused connection seems to be stale, and the
            // request is sent again.
            if path != "/raw-reset" && answer != OK {
                assert_eq!(origin.connections() - connections, usize::from(on == On::New), "{what}");
            }
            if path != "/silent" && (outcome != Outcome::Hello || path == "/raw-half") {
                until("the connection to be dropped", || origin.ended() > ended).await;
            }
            assert_eq!(ask(&world, version, "/").await, Got::Whole(200, "one".to_owned()), "after {what}");
        }
    }
    world.stop().await;
}
