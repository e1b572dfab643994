//! The file of `--config`: what it says is served, arguments go before it, and a bad one is told with its line.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::files::issue;
use crate::program::{Edge, PROGRAM, folder, get, origin, soon};

/// An edge with `edge.toml` of that text in a folder, and these words.
pub(crate) fn command(folder: &Path, text: &str, words: &[&str]) -> Command {
    fs::write(folder.join("edge.toml"), text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["edge", "--config"]).arg(folder.join("edge.toml")).args(words);
    command.env_remove("DORMOUSE_LOG").kill_on_drop(true);
    command
}

async fn start(folder: TempDir, text: &str, words: &[&str]) -> Edge {
    let command = command(folder.path(), text, words);
    Edge::spawn(Arc::new(folder), command).await
}

/// How it ends that cannot be served.
async fn refused(folder: &Path, text: &str, words: &[&str]) -> (i32, String) {
    let output = soon("its refusal", command(folder, text, words).output()).await.unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// What the admin listener says of connections.
pub(crate) async fn connections(edge: &Edge) -> Value {
    let mut stream = TcpStream::connect(edge.address("admin")).await.unwrap();
    stream.write_all(b"GET /connections HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("the admin listener", stream.read_to_string(&mut text)).await.unwrap();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn status(edge: &Edge, listener: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(edge.address(listener)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    soon("an answer", stream.read_exact(&mut status)).await.unwrap();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

const CONFIG: &str = r#"
table = "table.json"
cert = "own.pem"
key = "own.key"
admin = "127.0.0.1:0"
memory_limit = "64g"
workers = 1

[limits]
connections = 100
target_bytes = "1k"

[[listener]]
address = "127.0.0.1:0"

[[listener]]
name = "inner"
address = "127.0.0.1:0"
limits = { target_bytes = "2k", connections = 5 }

[[listener]]
address = "127.0.0.1:0"
tls = true
"#;

#[tokio::test]
async fn listeners_of_a_file_are_served_each_with_its_own_limits() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let mut edge = start(folder, CONFIG, &["--connections", "50"]).await;
    for listener in ["http", "inner"] {
        let stream = TcpStream::connect(edge.address(listener)).await.unwrap();
        assert_eq!(get(stream, "a.example").await, Ok("one".to_owned()), "{listener}");
    }
    assert_eq!(crate::files::over_tls(&edge, "own.pem", "a.example").await, Ok("one".to_owned()));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n", "x".repeat(1500));
    assert_eq!(status(&edge, "http", &long).await, "414", "the edge's");
    assert_eq!(status(&edge, "inner", &long).await, "200", "its own");
    let shown = connections(&edge).await;
    assert_eq!((&shown["limit"], &shown["overload"]["memory"]["limit"]), (&50.into(), &(64_u64 << 30).into()));
    let limits: Vec<_> = shown["listeners"].as_array().unwrap().iter().map(|room| room["limit"].as_u64()).collect();
    assert_eq!(limits, [Some(50), Some(5), Some(50)], "{shown}");
    assert_eq!(shown["workers"].as_array().unwrap().len(), 1);
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
}

#[tokio::test]
async fn all_listeners_are_handed_to_a_successor_by_their_names() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let text = CONFIG.replace("cert = \"own.pem\"\nkey = \"own.key\"\n", "run = \"run\"\n");
    let folder = Arc::new(folder);
    let spawn = async |words: &[&str]| Edge::spawn(Arc::clone(&folder), command(folder.path(), &text, words)).await;
    let mut old = spawn(&[]).await;
    let new = spawn(&["--upgrade"]).await;
    assert!(old.ended().await.success());
    // Two of them with a free port on one address: each has its own.
    for listener in ["http", "inner", "https", "admin"] {
        assert_eq!(new.address(listener), old.address(listener), "{listener}");
    }
    let stream = TcpStream::connect(new.address("inner")).await.unwrap();
    assert_eq!(get(stream, "a.example").await, Ok("one".to_owned()));
}

#[tokio::test]
async fn arguments_go_before_the_file_and_listeners_are_said_in_one_place() {
    let (one, two) = (origin("one").await, origin("two").await);
    let folder = folder(&[("a.example", &one)]);
    fs::write(
        folder.path().join("other.json"),
        format!(r#"{{"routes": [{{"host": "a.example", "endpoints": ["{}"]}}]}}"#, two.address),
    )
    .unwrap();
    let other = folder.path().join("other.json").to_str().unwrap().to_owned();
    let text = "table = \"table.json\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    for flag in ["--http=127.0.0.1:0", "--trust-forwarded-from=unix", "--http2-prior-knowledge"] {
        let (code, told) = refused(folder.path(), text, &[flag]).await;
        assert!(code == 78 && told.contains(flag.split('=').next().unwrap()), "{flag}: {code} {told}");
    }
    let edge = start(folder, text, &["--table", &other]).await;
    assert_eq!(edge.get("a.example").await, Ok("two".to_owned()));
}

#[tokio::test]
async fn a_bad_file_is_told_with_its_line_and_what_is_missing_is_named() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    let two = "[[listener]]\naddress = \"127.0.0.1:47\"\n[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:47\"\n";
    for (text, words) in [
        ("table = \"table.json\"\nlistners = 1", &["edge.toml, line 2", "unknown field"][..]),
        ("table = true", &["edge.toml, line 1", "invalid type"]),
        ("", &["there is no table", "--table"]),
        (&format!("table = \"t\"\n{two}"), &["listener http (line 2)", "listener b (line 4)", "127.0.0.1:47"]),
        ("table = \"t\"\nadmin = \"127.0.0.1:8080\"\n", &["--http and --admin are both 127.0.0.1:8080"]),
        ("table = \"t\"\ncert = \"c\"", &["cert and key"]),
        ("table = \"t\"\nticket_keys = \"c\"", &["HTTPS, which is not served"]),
        ("table = \"gone.json\"", &["gone.json", "No such file"]),
        ("table = \"\u{1b}[2J\n", &["edge.toml, line 1"]),
    ] {
        let (code, told) = refused(folder.path(), text, &[]).await;
        assert_eq!(code, 78, "{text:?}: {told}");
        assert!(words.iter().all(|word| told.contains(word)) && told.contains("\nhint: "), "{text:?}: {told}");
        assert!(!told.contains('\u{1b}'), "{told:?}");
    }
    let mut command = Command::new(PROGRAM);
    let output = soon("its end", command.args(["edge", "--config", "/nonexistent/edge.toml"]).output()).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(78) && told.contains("cannot read /nonexistent/edge.toml"), "{told}");
}

#[tokio::test]
async fn a_memory_limit_that_is_passed_is_logged_and_shown() {
    let one = origin("one").await;
    let words = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--memory-limit", "1m"];
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    let line = edge.says("there is too much to do").await;
    assert!(line.contains("of 1048576") && line.contains("new TLS handshakes, held requests"), "{line}");
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()), "nobody is busier than the first");
    let shown = connections(&edge).await;
    assert_eq!(
        (&shown["overload"]["level"], &shown["overload"]["memory"]["limit"]),
        (&"busiest".into(), &(1 << 20).into())
    );
}
