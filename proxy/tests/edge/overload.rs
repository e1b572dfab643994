//! Too much to do: what is let go, in which order, who is served all the same, and that it passes.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::{Report, State};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::world::client::{Client, Response};
use crate::world::origin::Origin;
use crate::world::tls::{Authority, VERSIONS, shake, visit};
use crate::world::{World, environment, http2, ready, route, soon, under};

/// Descriptors that this process may have: few enough to use them up.
const DESCRIPTORS: u64 = 4096;
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n";
const HELD: &str = "GET / HTTP/1.1\r\nHost: c.example\r\n\r\n";

/// What the admin listener says of it.
async fn shown(world: &World) -> Value {
    let shown = Client::connect(world.admin()).await.get("admin", "/connections").await;
    serde_json::from_slice::<Value>(&shown.body).expect("JSON")["overload"].take()
}

/// Waits until it is at that level.
async fn level(world: &World, level: &str) {
    soon("the level", async {
        while shown(world).await["level"] != level {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Opens or closes files until so much of the descriptors is used, and waits for the level that this is.
async fn press(world: &World, files: &mut Vec<File>, permille: u64, expected: &str) {
    let descriptors = shown(world).await["descriptors"].take();
    let figure = |name: &str| usize::try_from(descriptors[name].as_u64().expect("a figure")).expect("not too large");
    let more = figure("limit") * usize::try_from(permille).expect("a thousand at most") / 1000;
    let count = (files.len() + more).saturating_sub(figure("used"));
    files.truncate(count);
    files.extend((files.len()..count).map(|_| File::open("/dev/null").expect("there are some left")));
    level(world, expected).await;
}

fn is_refused(response: &Response, words: &str) -> bool {
    response.status == 503 && response.field("retry-after").as_deref() == Some("5") && response.text().contains(words)
}

#[tokio::test]
async fn handshakes_go_first_then_held_requests_then_new_ones_to_the_busiest_and_it_passes() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.unwrap_or(u64::MAX).min(DESCRIPTORS));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("fewer are always allowed");
    let mut world = World::with_tls(|_| {}).await;
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let mut authority = Authority::default();
    let certificate = authority.issue("a.example");
    world.publish([route("a.example"), ready("a.example", 1, &[&one]), certificate]).await;
    world.serve("b.example", &[&two]).await;
    for asleep in ["c.example", "d.example"] {
        world.publish([route(asleep), environment(asleep, 1, State::Asleep, &[&two])]).await;
    }
    let (https, trusting) = (world.tls("https"), Arc::new(authority.client(&VERSIONS, None)));
    let shakes = async || shake(https, &trusting, "a.example").await.is_ok();

    // Before: one is connected by TLS, one is held, three run.
    let mut kept = authority.connect(&world, "a.example").await.expect("a handshake");
    assert_eq!(kept.get("a.example", "/").await.status, 200);
    let mut held = world.client().await;
    held.send(HELD).await;
    world.reports.find("it to be wanted", 0, |report| matches!(report, Report::Wanted(_))).await;
    let mut running = Vec::new();
    for count in 2..5 {
        let mut client = world.client().await;
        client.send(SLOW).await;
        one.got(count).await;
        running.push(client);
    }
    assert_eq!(shown(&world).await["level"], "calm");

    let mut files = Vec::new();
    press(&world, &mut files, 850, "handshakes").await;
    assert!(!shakes().await, "new handshakes are refused");
    assert_eq!(kept.get("a.example", "/").await.status, 200, "requests on open connections are served");
    assert_eq!(world.get("a.example", "/").await.text(), "one", "new ones without TLS are, too");
    assert_eq!(shown(&world).await["shed"]["held"], 0, "whoever is held is held");

    press(&world, &mut files, 925, "held").await;
    assert!(is_refused(&held.response().await, "wait for this site"), "it was sent away");
    let from = world.reports.count();
    assert!(is_refused(&held.get("d.example", "/").await, "wait for this site"), "nobody else is held");
    let d = |report: &Report| matches!(report, Report::Wanted(all) if all.iter().any(|one| one.environment.as_str() == "d.example"));
    assert!(!world.reports.since(from).iter().any(d), "not for a moment");
    assert!(!shakes().await);
    assert_eq!(world.get("a.example", "/").await.text(), "one");

    press(&world, &mut files, 975, "busiest").await;
    assert_eq!(shown(&world).await["busiest"], "a.example");
    let mut refused = world.client().await;
    assert!(is_refused(&refused.get("a.example", "/").await, "for this site"));
    assert!(is_refused(&kept.get("a.example", "/").await, "for this site"), "on open connections, too");
    assert_eq!(refused.get("b.example", "/").await.text(), "two", "the connection goes on, and others are served");
    for client in &mut running {
        one.go();
        assert_eq!(client.response().await.text(), "one", "what runs is not cut off");
    }
    let shed = shown(&world).await["shed"].take();
    assert!(shed["handshakes"].as_u64() >= Some(2) && shed["held"] == 2 && shed["requests"] == 2, "{shed}");

    // It passes: to the level below, and to none.
    press(&world, &mut files, 830, "handshakes").await;
    assert_eq!(refused.get("a.example", "/").await.text(), "one");
    drop(files);
    level(&world, "calm").await;
    visit(https, &trusting, "a.example").await.expect("a handshake");
    let from = world.reports.count();
    held.send(HELD).await;
    world.reports.find("it to be wanted", from, |report| matches!(report, Report::Wanted(_))).await;
    world.publish([ready("c.example", 2, &[&two])]).await;
    assert_eq!(held.response().await.text(), "two");
    world.stop().await;
}

#[tokio::test]
async fn without_memory_only_the_busiest_environment_is_refused_and_each_of_its_streams_is() {
    let (mut world, one) = http2::world(|config| config.limits.memory = Some(1)).await;
    let two = Origin::start("two").await;
    world.serve("b.example", &[&two]).await;
    level(&world, "busiest").await;
    // Nobody is busy yet, so this one is served.
    let mut running = world.client().await;
    running.send(SLOW).await;
    one.got(1).await;
    soon("it to be the busiest", async {
        while shown(&world).await["busiest"] != "a.example" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut client = http2::Client::connect(world.http()).await;
    let request = |host: &str| http2::request(http::Method::GET, host, "/");
    let refused = client.send(request("a.example"), b"").await.expect("an answer");
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("5")));
    assert_eq!(client.send(request("b.example"), b"").await.expect("an answer").text(), "two");
    one.go();
    assert_eq!(running.response().await.text(), "one");
    let memory = shown(&world).await["memory"].take();
    assert!(memory["limit"] == 1 && memory["used"].as_u64() > Some(1 << 20), "{memory}");
    world.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_before_overload_and_a_pause_holds_nobody_then() {
    let mut world = World::with(|config| {
        config.limits.memory = Some(1);
        config.listeners[0].trust_forwarded_from = vec!["127.0.0.1".parse().expect("a network")];
    })
    .await;
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let closed = under(r#"{"access": {"allow": ["192.0.2.1"]}}"#, ready("a.example", 1, &[&one]));
    let paused = under(r#"{"pause": {}}"#, ready("b.example", 1, &[&two]));
    world.publish([route("a.example"), closed, route("b.example"), paused]).await;
    level(&world, "busiest").await;
    let mut running = world.client().await;
    running.send(SLOW.replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")).await;
    one.got(1).await;
    soon("it to be the busiest", async {
        while shown(&world).await["busiest"] != "a.example" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut client = world.client().await;
    for (from, status) in [("192.0.2.2", 403), ("192.0.2.1", 503)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: {from}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status, "{from}");
    }
    assert!(is_refused(&client.get("b.example", "/").await, "wait for this site"));
    let shed = shown(&world).await["shed"].take();
    assert!(shed["held"] == 1 && shed["requests"] == 1, "{shed}");
    one.go();
    assert_eq!(running.response().await.text(), "one");
    world.stop().await;
}
