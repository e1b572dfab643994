//! One record per request, whoever answered it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dormouse_proxy::{Config, Listener, Proxy};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::scrape::comes_to;
use crate::world::tls::Authority;
use crate::world::{World, soon};

/// Every field of a record.
const FIELDS: [&str; 31] = [
    "app",
    "bytes_in",
    "bytes_out",
    "client",
    "connect_ms",
    "deployment",
    "edge",
    "ended_by",
    "environment",
    "first_byte_ms",
    "held_ms",
    "host",
    "instance",
    "lane",
    "method",
    "path",
    "protocol",
    "refused",
    "region",
    "request_id",
    "retries",
    "reused",
    "status",
    "time",
    "tls",
    "tls_cipher",
    "tls_resumed",
    "tls_version",
    "total_ms",
    "trace_id",
    "woke",
];

#[tokio::test]
async fn every_request_leaves_one_record_that_says_what_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut world = World::with(|config| {
        config.access_log = Some(log.into());
        (config.name, config.region) = ("one-edge".to_owned(), "here".to_owned());
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("POST /echo?secret=1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
    client.response().await;
    client.get("a.example", "/second").await;
    client.get("unknown.example", "/\\escaped").await;
    client.send("no request\r\n\r\n").await;
    client.response().await;
    let id = origin.requests()[0].field("x-request-id").remove(0);
    world.stop().await;

    let text = std::fs::read_to_string(&path).expect("the log, flushed");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records.len(), 4, "{text}");
    for record in &records {
        assert_eq!(
            record.as_object().expect("an object").keys().collect::<Vec<_>>(),
            FIELDS,
            "whoever reads them relies on these"
        );
    }
    let first = &records[0];
    for (field, value) in [
        ("request_id", Value::from(id)),
        ("app", "hello".into()),
        ("environment", "test".into()),
        ("deployment", 7.into()),
        ("instance", "one".into()),
        ("method", "POST".into()),
        ("host", "a.example".into()),
        ("path", "/echo".into()),
        ("protocol", "HTTP/1.1".into()),
        ("tls", false.into()),
        ("client", "127.0.0.1".into()),
        ("status", 200.into()),
        ("held_ms", 0.into()),
        ("retries", 0.into()),
        ("reused", false.into()),
        ("woke", false.into()),
        ("ended_by", "instance".into()),
        ("refused", "".into()),
        ("edge", "one-edge".into()),
        ("region", "here".into()),
        ("tls_version", "".into()),
        ("lane", "pingora".into()),
    ] {
        assert_eq!(first[field], value, "{field} in {first}");
    }
    let time = first["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    assert!(first["bytes_in"].as_u64() > Some(60) && first["bytes_out"].as_u64() > Some(40), "{first}");
    assert!(first["first_byte_ms"].is_u64() && first["total_ms"].is_u64() && first["connect_ms"].is_u64());
    assert!(!text.contains("secret"), "no query is recorded");
    assert_eq!((&records[1]["reused"], &records[1]["path"]), (&true.into(), &"/second".into()));
    assert_eq!((&records[2]["status"], &records[2]["path"]), (&404.into(), &"/\\escaped".into()));
    assert_eq!((&records[3]["status"], &records[3]["ended_by"]), (&400.into(), &"proxy".into()));
    let mode = std::fs::metadata(&path).expect("the log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn refusals_and_departures_are_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut world = World::with(|config| config.access_log = Some(log.into())).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    world.get("unknown.example", "/").await;
    let mut client = world.client().await;
    client.send("GET /silent HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    origin.got(1).await;
    drop(client);
    world.stop().await;
    let text = std::fs::read_to_string(&path).expect("the log, flushed");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&records[0]["status"], &records[0]["refused"]), (&404.into(), &"unknown_host".into()));
    assert_eq!((&records[1]["status"], &records[1]["ended_by"]), (&0.into(), &"client".into()));
}

#[tokio::test]
async fn what_a_client_chooses_is_cut_and_what_it_escapes_stays_escaped() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let mut world = World::with(|config| config.access_log = Some(log.clone().into())).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let (path, method) = (format!("/{}?{}", "p".repeat(5000), "q".repeat(5000)), "M".repeat(3000));
    let mut client = world.client().await;
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
    client.response().await;
    world.get("a.example", "/%0d%0a%1b[2J").await;
    world.stop().await;
    let text = std::fs::read_to_string(&log).expect("the log");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(text.lines().all(|line| line.len() < 3000) && !text.contains('\u{1b}'), "c27 {text}");
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["path"], format!("/{}", "p".repeat(1023)));
    assert_eq!(records[0]["method"], "M".repeat(32));
    assert_eq!(records[1]["path"], "/%0d%0a%1b[2J");
}

#[tokio::test]
async fn the_tls_of_a_request_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let mut world = World::with(|config| {
        config.listeners.push(Listener::https(SocketAddr::from(([127, 0, 0, 1], 0))));
        config.access_log = Some(log.clone().into());
    })
    .await;
    let (origin, mut authority) = (Origin::start("one").await, Authority::default());
    world.serve("a.example", &[&origin]).await;
    world.publish([authority.issue("a.example")]).await;
    authority.connect(&world, "a.example").await.expect("a handshake").get("a.example", "/").await;
    world.stop().await;
    let text = std::fs::read_to_string(&log).expect("the log");
    let record: Value = serde_json::from_str(&text).expect("one line");
    assert_eq!((&record["tls"], &record["tls_version"]), (&true.into(), &"TLSv1.3".into()));
    assert_eq!((&record["tls_resumed"], &record["status"]), (&false.into(), &200.into()));
    assert!(record["tls_cipher"].as_str().expect("text").starts_with("TLS13_"), "{record}");
}

#[tokio::test]
async fn records_go_to_a_syslog_daemon_and_what_it_does_not_take_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("syslog");
    let daemon = tokio::net::UnixDatagram::bind(&path).expect("a socket");
    let to = format!("syslog:{}", path.display()).parse().expect("an output");
    let mut world = World::with(|config| {
        config.access_log = Some(to);
        config.limits.access_queue = 4;
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.get("a.example", "/first").await;
    let mut bytes = vec![0; 16 << 10];
    let count = soon("a message", daemon.recv(&mut bytes)).await.expect("a message");
    let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
    let (header, line) = message.split_once('{').expect("a record");
    assert!(
        header.starts_with("<134>1 20") && header.contains(" dormouse ") && header.ends_with(" access - "),
        "{message}"
    );
    let record: Value = serde_json::from_str(&format!("{{{line}")).expect("JSON");
    assert_eq!(record["path"], "/first");
    // The daemon is away, and comes back.
    drop(daemon);
    std::fs::remove_file(&path).expect("its file");
    let admin = world.admin();
    client.get("a.example", "/lost").await;
    comes_to(admin, 1.0, ("dormouse_access_records_lost_total", &[])).await;
    let daemon = tokio::net::UnixDatagram::bind(&path).expect("a socket");
    client.get("a.example", "/found").await;
    let count = soon("a message", daemon.recv(&mut bytes)).await.expect("a message");
    let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
    assert!(message.contains("\"path\":\"/found\"") && message.contains("\"lost_before\":1"), "{message}");
    world.stop().await;
}

#[tokio::test]
async fn two_proxies_that_follow_one_another_lose_no_record_of_one_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let small = |config: &mut Config| {
        config.access_log = Some(log.clone().into());
        config.limits.access_file_bytes = 2000;
        config.limits.access_files = 1000;
    };
    let mut world = World::with(small).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let files = || std::fs::read_dir(folder.path()).expect("the folder").count();
    let ask = async |at| {
        for _ in 0..40 {
            assert_eq!(Client::connect(at).await.get("a.example", "/").await.status, 200);
        }
    };
    // Records that come together are written together, so nobody knows how many a file has.
    let fill = async |at, beyond| {
        let mut asked = 0;
        while files() <= beyond {
            ask(at).await;
            asked += 40;
        }
        asked
    };
    let mut asked = soon("a full file", fill(world.http(), 3)).await;
    // The second one listens elsewhere, so that each can be asked.
    let mut config =
        Config { listeners: vec![Listener::http(SocketAddr::from(([127, 0, 0, 1], 0)))], ..Config::default() };
    small(&mut config);
    let old = world.proxy.take().expect("running");
    let (updates, taken) = mpsc::channel(4);
    let (said, mut heard) = mpsc::channel(64);
    let new = Proxy::adopt(config, old.sockets().expect("sockets"), taken, said).expect("the proxy starts");
    updates.send(world.table.snapshot()).await.expect("taken");
    soon("its first table", heard.recv()).await;
    let (before, after) = (old.address("http").expect("bound"), new.address("http").expect("bound"));
    tokio::join!(ask(before), ask(after));
    old.step_back();
    new.alone();
    let found = files();
    tokio::join!(ask(before), ask(after));
    asked += soon("the new one to begin files", fill(after, found)).await;
    soon("its end", old.hand_over(Duration::from_secs(5))).await;
    ask(after).await;
    soon("its end", new.shutdown(Duration::from_secs(5))).await;
    let mut records = 0;
    for file in std::fs::read_dir(folder.path()).expect("the folder") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        for line in text.lines() {
            serde_json::from_str::<Value>(line).expect("a whole line");
            records += 1;
        }
    }
    assert_eq!(records, asked + 5 * 40);
}
