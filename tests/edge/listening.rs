//! Listeners of the program: their addresses, what they are told of proxies, and how many connections they hold.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::config::connections;
use crate::files::{issue, over_tls};
use crate::program::{Edge, folder, get, origin, refused, soon};

/// Idle connections that are tried, if the process may have descriptors enough for them.
const IDLE: usize = 10_000;
/// Memory that an edge takes when it first has something to do, whatever the number of connections.
const FIXED: u64 = 32 << 20;

#[tokio::test]
async fn a_unix_socket_is_served_on_and_its_file_goes_at_the_end() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let path = folder.path().join("edge.sock");
    // Left behind by one that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display());
    let mut edge = Edge::with(folder, &["--http", &address]).await;
    assert_eq!(edge.ready(), format!("ready http={address}\n"));
    let data = fs::metadata(&path).unwrap();
    assert!(data.file_type().is_socket() && data.permissions().mode() & 0o777 == 0o660);
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    let (code, told) = refused(edge.folder(), &["--http", &address]).await;
    assert!(code == 69 && told.contains(&address) && told.contains("in use"), "{code} {told}");
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_address_or_network_is_refused_with_words() {
    let one = origin("one").await;
    let good = folder(&[("a.example", &one)]);
    for (words, wanted) in [
        (["--http", "unix:relative"], "begins with /"),
        (["--http", "localhost:80"], "an address is IP:PORT"),
        (["--http", ""], "an address is IP:PORT"),
        (["--https", "unix:/a\u{1b}b"], "no control characters"),
        (["--proxy-protocol-from", "10.1.2.3/8"], "begins at 10.0.0.0"),
        (["--proxy-protocol-from", "everybody"], "a network is IP/BITS"),
        (["--trust-forwarded-from", "10.0.0.0/33"], "at most 32"),
        (["--connections-per-client", "0"], "--connections-per-client"),
        (["--connections", "0"], "--connections"),
        (["--connections", "-1"], "'-1'"),
    ] {
        let (code, told) = refused(good.path(), &words).await;
        assert!(code == 64 && told.contains(wanted) && !told.contains('\u{1b}'), "{words:?}: {code} {told}");
    }
    let file = good.path().join("file");
    fs::write(&file, "kept").unwrap();
    let (code, told) = refused(good.path(), &["--http", &format!("unix:{}", file.display())]).await;
    assert!(code == 69 && told.contains("no socket"), "{code} {told}");
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
}

#[tokio::test]
async fn proxies_are_believed_where_the_command_line_says_so() {
    let one = origin("one").await;
    let words = ["--http", "127.0.0.1:0", "--proxy-protocol-from", "127.0.0.1", "--proxy-protocol-from", "10.0.0.0/8"];
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("access.log");
    let more = ["--trust-forwarded-from", "203.0.113.0/24", "--access-log", log.to_str().unwrap()];
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &[&words[..], &more].concat()).await;
    assert_eq!(edge.get("a.example").await, Err(400), "the header is required");
    let mut stream = TcpStream::connect(edge.address("http")).await.unwrap();
    let header = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 198.51.100.3\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{header}{request}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    edge.signal("TERM").await;
    edge.ended().await;
    let records = fs::read_to_string(log).unwrap();
    assert!(records.contains(r#""client":"198.51.100.3""#) && records.contains("proxy_header"), "{records}");
}

/// One request, after which the connection stays.
async fn keep_alive(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"one") {
        assert!(soon("an answer", stream.read_buf(&mut answer)).await.unwrap() > 0, "{answer:?}");
    }
}

#[tokio::test]
async fn p37_ten_thousand_idle_connections_leave_room_for_others() {
    let one = origin("one").await;
    let words = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2"];
    let edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    let mine = dormouse_proxy::raise_descriptor_limit().unwrap();
    let limit = connections(&edge).await["limit"].as_u64().unwrap();
    // The edge's ends are in its process, the visitors' and some of the origin's in this one.
    let count = IDLE.min(usize::try_from(limit.min(mine.saturating_sub(400)) - 10).unwrap());
    let before = edge.memory();
    let mut opening = JoinSet::new();
    for part in 0..50 {
        let (at, share) = (edge.address("http"), count / 50 + usize::from(part < count % 50));
        opening.spawn(async move {
            let mut held = Vec::with_capacity(share);
            for _ in 0..share {
                let mut stream = TcpStream::connect(at).await.unwrap();
                keep_alive(&mut stream).await;
                held.push(stream);
            }
            held
        });
    }
    let mut held: Vec<TcpStream> = opening.join_all().await.into_iter().flatten().collect();
    let shown = connections(&edge).await;
    let each = edge.memory().saturating_sub(before) / count as u64;
    println!("{count} idle connections of {IDLE} (limit {limit}), {each} bytes each: {shown}");
    assert_eq!(shown["open"], count, "none was closed");
    assert!(each * count as u64 <= FIXED + (16 << 10) * count as u64, "{each} bytes each");
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    for stream in held.iter_mut().step_by(count.div_ceil(10)) {
        keep_alive(stream).await;
    }
}

#[tokio::test]
async fn p37_a_thousand_half_handshakes_stop_nobody_and_take_little_memory() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let words = [
        "--https",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--cert",
        &path("own.pem"),
        "--key",
        &path("own.key"),
    ];
    let edge = Edge::with(folder, &words).await;
    let before = edge.memory();
    let mut half = Vec::new();
    // With few descriptors fewer, so that it is not the limit of connections that is tried.
    let count = (connections(&edge).await["limit"].as_u64().unwrap() / 2).min(1000);
    for _ in 0..count {
        let mut stream = TcpStream::connect(edge.address("https")).await.unwrap();
        // A record that says it has 512 bytes, and the begin of a hello.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
        half.push(stream);
    }
    assert_eq!(over_tls(&edge, "own.pem", "a.example").await, Ok("one".to_owned()));
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    let each = edge.memory().saturating_sub(before) / count;
    println!("{each} bytes for each of {count} half handshakes");
    assert!(each * count <= FIXED + (64 << 10) * count, "{each} bytes each");
}
