//! `dormouse edge` as a child, with files in a folder of its own, and origins that say who they are.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// No single step takes anything near this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program's executable.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_dormouse");

pub(crate) struct Edge {
    child: Child,
    ready: String,
    output: BufReader<ChildStdout>,
    log: Lines<BufReader<ChildStderr>>,
    heard: Vec<String>,
    folder: Arc<TempDir>,
}

/// A folder with a table in it.
pub(crate) fn folder(routes: &[(&str, &Origin)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_table(folder.path(), routes);
    folder
}

/// Replaces the table as editors and programs do: whole.
pub(crate) fn write_table(folder: &Path, routes: &[(&str, &Origin)]) {
    let routes: Vec<_> = routes.iter().map(|(host, to)| json!({"host": host, "endpoints": [to.address]})).collect();
    replace(&folder.join("table.json"), &json!({ "routes": routes }).to_string());
}

pub(crate) fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A certificate that signs itself, as `NAME.pem` and `NAME.key`; returns the key.
pub(crate) fn issue(folder: &Path, name: &str, hosts: &[&str]) -> String {
    let made = rcgen::generate_simple_self_signed(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let key = made.signing_key.serialize_pem();
    replace(&folder.join(name).with_extension("pem"), &made.cert.pem());
    replace(&folder.join(name).with_extension("key"), &key);
    key
}

/// The command that serves the table of a folder, with more words.
pub(crate) fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["edge", "--table"])
        .arg(folder.join("table.json"))
        .args(words)
        .env_remove("DORMOUSE_LOG")
        .kill_on_drop(true);
    command
}

impl Edge {
    /// Serves a folder's table on a free port.
    pub(crate) async fn start(folder: TempDir) -> Self {
        Self::with(folder, &["--http", "127.0.0.1:0"]).await
    }

    pub(crate) async fn with(folder: TempDir, words: &[&str]) -> Self {
        let command = command(folder.path(), words);
        Self::spawn(Arc::new(folder), command).await
    }

    /// Starts another one with the same folder and these words, and waits until it serves.
    pub(crate) async fn another(&self, words: &[&str]) -> Self {
        Self::spawn(Arc::clone(&self.folder), command(self.folder(), words)).await
    }

    pub(crate) async fn spawn(folder: Arc<TempDir>, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut edge = Self { child, ready: String::new(), output, log, heard: Vec::new(), folder };
        edge.ready = edge.line().await;
        if !edge.ready.starts_with("ready") {
            edge.says("ready, of which there was no line").await;
        }
        edge
    }

    /// The next line of its output, or of what it started.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("its ready line", self.output.read_line(&mut line)).await.unwrap();
        line
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The line that it says it with.
    pub(crate) fn ready(&self) -> &str {
        &self.ready
    }

    /// Its memory in bytes, as the system counts it.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Where it says that a listener is.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let word = self.ready.split_whitespace().find_map(|word| word.strip_prefix(&format!("{listener}=")));
        word.unwrap_or_else(|| panic!("no {listener} in {:?}", self.ready)).parse().unwrap()
    }

    /// Memory that it has written to, in KiB.
    pub(crate) fn memory_kib(&self) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn signal(&self, name: &str) {
        signal(self.id(), name).await;
    }

    /// Waits until a line of its log has these words.
    pub(crate) async fn says(&mut self, words: &str) -> String {
        if let Some(line) = self.heard.iter().find(|line| line.contains(words)) {
            return line.clone();
        }
        let heard = &mut self.heard;
        let line = timeout(PATIENCE, async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                heard.push(line.clone());
                if line.contains(words) {
                    return Some(line);
                }
            }
            None
        });
        line.await.ok().flatten().unwrap_or_else(|| panic!("never {words:?} in {:#?}", self.heard))
    }

    /// Every line of its log, once it has ended.
    pub(crate) async fn all(&mut self) -> Vec<String> {
        while let Some(line) = soon("its log's end", self.log.next_line()).await.unwrap() {
            self.heard.push(line);
        }
        self.heard.clone()
    }

    /// Whose body a host gets, or another status than 200.
    pub(crate) async fn get(&self, host: &str) -> Result<String, u16> {
        get(TcpStream::connect(self.address("http")).await.unwrap(), host).await
    }

    /// Waits until a host gets that.
    pub(crate) async fn until(&self, host: &str, wanted: Result<&str, u16>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = self.get(host).await;
            if got.as_deref().map_err(|status| *status) == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{host} still gets {got:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("its end", self.child.wait()).await.unwrap()
    }
}

/// Signals a process that a test started.
pub(crate) async fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().await.unwrap().success());
}

/// Waits for a future that must come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Runs to its end, which must be a failure at the start.
pub(crate) async fn refused(folder: &Path, words: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = soon("its refusal", command(folder, words).output()).await.unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// One request on a connection of its own.
pub(crate) async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> Result<String, u16> {
    get_path(stream, host, "/").await
}

/// The same for another path.
pub(crate) async fn get_path(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> Result<String, u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    soon("an answer", async {
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut text).await.unwrap();
    })
    .await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    match head.split(' ').nth(1).unwrap().parse().unwrap() {
        200 => Ok(body.to_owned()),
        status => Err(status),
    }
}

/// An origin that answers each request with its name, until it is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Origin {
    /// Who serves there until it is dropped.
    pub(crate) fn new(address: SocketAddr, serving: JoinSet<()>) -> Self {
        Self { address, _serving: serving }
    }
}

pub(crate) async fn origin(name: &'static str) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(answer(stream, name));
        }
    });
    Origin { address, _serving: serving }
}

/// How long an answer of `/slow` takes.
const SLOW: Duration = Duration::from_millis(100);
/// Between two parts of an answer that never ends.
const BEAT: Duration = Duration::from_millis(50);

/// What a frame begins with that ends a WebSocket.
const CLOSE: u8 = 0x88;

/// Answers requests, some of them slowly or without an end, and echoes once it was upgraded.
async fn answer(stream: TcpStream, name: &'static str) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut upgrade, mut path) = (String::new(), false, String::new());
    while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
        upgrade |= line.to_ascii_lowercase().starts_with("upgrade: websocket");
        if line.ends_with(" HTTP/1.1\r\n") {
            path = line.split(' ').nth(1).unwrap().to_owned();
        }
        let endless = match path.as_str() {
            "/events" => Some("text/event-stream"),
            "/grpc" => Some("application/grpc"),
            _ => None,
        };
        if let (Some(kind), "\r\n") = (endless, line.as_str()) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(b"9\r\ndata: x\n\n\r\n").await;
                sleep(BEAT).await;
            }
            return;
        }
        if line == "\r\n" && path == "/slow" {
            sleep(SLOW).await;
        }
        if line == "\r\n" && upgrade {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            let mut bytes = [0; 1024];
            let _ = stream.write_all(head.as_bytes()).await;
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                if bytes[0] == CLOSE {
                    return;
                }
                let _ = stream.write_all(&bytes[..count]).await;
            }
            return;
        }
        if line == "\r\n" {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            // The edge may have left.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        line.clear();
    }
}
