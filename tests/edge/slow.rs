//! Slow clients by a tool of others, `slowhttptest`, in its three modes: they are ended within limits, and everybody else is
//! served meanwhile.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::config;
use crate::program::{Edge, Origin, folder, get, soon};

/// Slow connections, opened within a second.
const SLOW: &str = "200";
/// The least of them that is seen at once, and the most that is left when they were ended: the tool has one more for itself.
const MANY: u64 = 100;
const FEW: u64 = 3;
/// Seconds that they would go on for, were they not ended.
const FOR_EVER: &str = "100";
/// Who is called by this name gets a long answer.
const HOST: &str = "127.0.0.1";
/// More than what is under way in all buffers.
const LONG: usize = 32 << 20;

/// What ends them, in far less time than a test has.
const CONFIG: &str = r#"
table = "table.json"
admin = "127.0.0.1:0"
[[listener]]
address = "127.0.0.1:0"
limits = { head = "3s", body_gap = "3s", client_write = "3s", client_window = "3s" }
"#;

#[tokio::test]
async fn p36_slow_heads_are_ended_and_nobody_else_notices() {
    beside("", &["-H", "-i", "1", "-x", "16"]).await;
}

#[tokio::test]
async fn p38_slow_bodies_are_ended_and_nobody_else_notices() {
    beside("", &["-B", "-i", "1", "-x", "16", "-s", "8192"]).await;
}

#[tokio::test]
async fn p38_slow_readers_are_ended_and_nobody_else_notices() {
    beside("long", &["-X", "-w", "64", "-y", "128", "-n", "1", "-z", "16"]).await;
}

/// Serves others while the tool does its worst, until all that it has are ended.
async fn beside(path: &str, mode: &[&str]) {
    let one = origin().await;
    let folder = folder(&[(HOST, &one), ("a.example", &one)]);
    let command = config::command(folder.path(), CONFIG, &[]);
    let edge = Edge::spawn(Arc::new(folder), command).await;
    let mut tool = start(&format!("http://{}/{path}", edge.address("http")), mode);
    let mut most = 0;
    let ended = async {
        loop {
            let stream = TcpStream::connect(edge.address("http")).await.unwrap();
            assert_eq!(get(stream, "a.example").await, Ok("one".to_owned()));
            let open = config::connections(&edge).await["open"].as_u64().unwrap();
            most = most.max(open);
            // The system, too, keeps nothing for them: not what they did not read.
            if most >= MANY && open <= FEW && kept(edge.address("http").port()) <= FEW {
                return;
            }
            assert!(most >= MANY || tool.try_wait().unwrap().is_none(), "it ended with {most} connections at a time");
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the slow ones to be ended", ended).await;
    tool.kill().await.unwrap();
}

/// Connections of a port that the system has something to do for (proc_pid_net(5)): all but those that are only remembered.
fn kept(port: u16) -> u64 {
    let (listens, remembered, local) = ("0A", "06", format!(":{port:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|line| line[1].ends_with(&local) && line[3] != listens && line[3] != remembered).count() as u64
}

fn start(url: &str, mode: &[&str]) -> Child {
    let mut command = Command::new("slowhttptest");
    command.args(mode).args(["-c", SLOW, "-r", SLOW, "-l", FOR_EVER, "-p", "3", "-u", url]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("slowhttptest runs: scripts/install.sh installs it")
}

/// Answers with its name, and at length to who asks for that.
async fn origin() -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let long = Arc::new(vec![b'x'; LONG]);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let long = Arc::clone(&long);
            connections.spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut line, mut body) = (String::new(), &b"one"[..]);
                while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                    if line.starts_with("GET /long ") {
                        body = &long;
                    }
                    if line == "\r\n" {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        // The edge may have left.
                        let _ = stream.write_all(head.as_bytes()).await;
                        let _ = stream.write_all(body).await;
                    }
                    line.clear();
                }
            });
        }
    });
    Origin::new(address, serving)
}
