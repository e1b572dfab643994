//! One record per request, whoever answered it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dormouse_proxy::{Config, Listener, Proxy};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, soon, until};

#[tokio::test]
async fn every_request_leaves_one_record_that_says_what_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut world = World::with(|config| config.access_log = Some(log)).await;
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
    let mut world = World::with(|config| config.access_log = Some(log)).await;
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
async fn two_proxies_that_follow_one_another_lose_no_record_of_one_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let small = |config: &mut Config| {
        config.access_log = Some(log.clone());
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
    ask(world.http()).await;
    until("a full file", || files() > 3).await;
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
    until("the new one to begin files", || files() > found).await;
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
    assert_eq!(records, 6 * 40);
}
