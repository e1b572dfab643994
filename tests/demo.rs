//! The demo application behaves as its README says: it is the origin of the other tests, so it is tested first.

#![expect(clippy::unwrap_used, reason = "what a test relies on ends it")]

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dormouse::boilerplate;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// No single step here takes anything near this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program, running out of a folder of its own.
struct Demo {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
    _folder: TempDir,
}

impl Demo {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let folder = folder();
        let mut child = spawn(folder.path(), variables);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = line_with(&mut output, "listening on port ").await;
        let port = line.split("listening on port ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
        Self { child, output, port, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        timeout(PATIENCE, reqwest::get(self.url(path))).await.unwrap().unwrap()
    }

    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap())
    }

    async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    boilerplate::write(folder.path(), "A <message> & more").unwrap();
    folder
}

fn spawn(folder: &Path, variables: &[(&str, &str)]) -> Child {
    Command::new(folder.join("hello"))
        .env_clear()
        .env("PORT", "0")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
}

async fn line_with(lines: &mut Lines<BufReader<ChildStdout>>, part: &str) -> String {
    let found = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the program goes on");
            if line.contains(part) {
                return line;
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line with {part:?}"))
}

/// One answer with a Content-Length: its head and its body.
async fn answer(connection: &mut BufReader<TcpStream>) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(timeout(PATIENCE, connection.read_line(&mut head)).await.unwrap().unwrap(), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    timeout(PATIENCE, connection.read_exact(&mut body)).await.unwrap().unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn pattern(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

fn fnv1a(bytes: &[u8]) -> String {
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}")
}

#[tokio::test]
async fn the_page_shows_what_the_environment_told_and_escapes_it() {
    let variables = [("STAGE", "test"), ("DEBUG", "True"), ("DEPLOYMENT", "7"), ("GIT_COMMIT", "abc<1>")];
    let demo = Demo::start(&variables).await;
    let page = demo.get("/").await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    for part in ["A &lt;message&gt; &amp; more", "test", "True", "<td>7</td>", "abc&lt;1&gt;"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(!page.contains("{facts}") && !page.contains("{headers}") && !page.contains("{stage}"), "{page}");
}

#[tokio::test]
async fn programs_get_the_same_as_json() {
    let demo = Demo::start(&[("STAGE", "live"), ("DOMAIN", "hello.localhost")]).await;
    let client = reqwest::Client::new();
    let asked = client.get(demo.url("/")).header("accept", "application/json").header("x-odd", "a\"b\\c");
    for answer in [asked.send().await.unwrap(), demo.get("/.json").await] {
        let facts: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(facts["stage"], "live");
        assert_eq!(facts["domain"], "hello.localhost");
        assert_eq!(facts["deployment"], serde_json::Value::Null);
        assert_eq!(facts["message"], "A <message> & more");
    }
    let headers = client.get(demo.url("/headers")).header("x-odd", "a\"b\\c").send().await.unwrap();
    let headers: serde_json::Value = serde_json::from_str(&headers.text().await.unwrap()).unwrap();
    assert!(headers["headers"].as_array().unwrap().contains(&serde_json::json!(["x-odd", "a\"b\\c"])), "{headers}");
}

#[tokio::test]
async fn a_body_has_the_size_that_was_asked_for() {
    let demo = Demo::start(&[]).await;
    for size in [0, 1, 251, 65_536, 1_048_577] {
        let body = demo.get(&format!("/bytes?n={size}")).await;
        assert_eq!(body.content_length(), Some(size as u64));
        assert!(body.bytes().await.unwrap() == pattern(size), "{size}");
        let body = demo.get(&format!("/bytes?n={size}&chunked=1")).await;
        assert_eq!(body.headers()["transfer-encoding"], "chunked");
        assert!(body.bytes().await.unwrap() == pattern(size), "{size}");
    }
}

#[tokio::test]
async fn bodies_arrive_whole_whether_counted_or_chunked() {
    let demo = Demo::start(&[]).await;
    let bytes = pattern(300_000);
    let expected = serde_json::json!({"bytes": bytes.len(), "fnv1a": fnv1a(&bytes)});
    let client = reqwest::Client::new();
    let chunked = || {
        let chunks: Vec<_> = bytes.chunks(70_001).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
    };
    for body in [reqwest::Body::from(bytes.clone()), chunked()] {
        let answer = client.post(demo.url("/count")).body(body).send().await.unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&answer.text().await.unwrap()).unwrap(), expected);
    }
    for body in [reqwest::Body::from(bytes.clone()), chunked()] {
        let answer = client.post(demo.url("/echo")).body(body).send().await.unwrap();
        assert!(answer.bytes().await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn an_echo_streams() {
    let demo = Demo::start(&[]).await;
    let mut connection = demo.connect().await;
    connection.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    assert!(answer(&mut connection).await.0.contains("Transfer-Encoding: chunked"));
    for word in ["one", "two"] {
        let chunk = format!("3\r\n{word}\r\n");
        connection.write_all(chunk.as_bytes()).await.unwrap();
        let mut back = vec![0; chunk.len()];
        timeout(PATIENCE, connection.read_exact(&mut back)).await.expect("each piece comes back at once").unwrap();
        assert_eq!(back, chunk.as_bytes());
    }
    connection.write_all(b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut end = [0; 5];
    connection.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    assert_eq!(answer(&mut connection).await.1, "200\n");
}

#[tokio::test]
async fn a_connection_serves_many_requests_even_past_unwanted_bodies() {
    let demo = Demo::start(&[]).await;
    let mut connection = demo.connect().await;
    for _ in 0..3 {
        connection.write_all(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        assert!(answer(&mut connection).await.0.starts_with("HTTP/1.1 404 "));
        connection.write_all(b"HEAD /bytes?n=9 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            connection.read_line(&mut head).await.unwrap();
        }
        assert!(head.contains("Content-Length: 9"), "{head}");
    }
    connection.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(answer(&mut connection).await.0.contains("Connection: close"));
    assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let demo = Demo::start(&[]).await;
    for bad in [
        "nonsense\r\n\r\n",
        "GET / HTTP/3\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /count HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /count HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST /count HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
    ] {
        let mut connection = demo.connect().await;
        connection.write_all(bad.as_bytes()).await.unwrap();
        assert!(answer(&mut connection).await.0.starts_with("HTTP/1.1 400 "), "{bad}");
    }
}

#[tokio::test]
async fn events_come_one_by_one() {
    let demo = Demo::start(&[]).await;
    let mut events = demo.get("/events?n=3&ms=20").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    for n in 1..=3 {
        let event = timeout(PATIENCE, events.chunk()).await.unwrap().unwrap().unwrap();
        assert_eq!(event, format!("id: {n}\ndata: event {n}\n\n"));
    }
    assert_eq!(events.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn health_is_what_was_asked_for() {
    let demo = Demo::start(&[("HEALTH_STATUS", "503")]).await;
    assert_eq!(demo.get("/").await.status(), 503);
    assert_eq!(demo.get("/health").await.status(), 503);
    let change = reqwest::Client::new().post(demo.url("/health?status=404")).send().await.unwrap();
    assert_eq!(change.status(), 200);
    assert_eq!(demo.get("/health").await.status(), 404);
    assert_eq!(demo.get("/").await.status(), 404);
}

#[tokio::test]
async fn it_exits_with_the_code_that_was_asked_for() {
    let mut demo = Demo::start(&[]).await;
    assert_eq!(demo.get("/exit?code=3").await.status(), 200);
    assert_eq!(demo.ended().await.code(), Some(3));

    let folder = folder();
    std::fs::write(folder.path().join("settings"), "# why\nEXIT_AT_START=4\n").unwrap();
    let ended = timeout(PATIENCE, spawn(folder.path(), &[]).wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(4));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("giving up with code 4"));
}

#[tokio::test]
async fn a_slow_start_and_no_start_end_at_once_on_sigterm() {
    for variable in [("START_DELAY_MS", "60000"), ("NEVER_LISTEN", "1")] {
        let folder = folder();
        let mut child = spawn(folder.path(), &[variable]);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        line_with(&mut output, "hello: ").await;
        signal(&child, "TERM").await;
        assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(0), "{variable:?}");
    }
    let begun = Instant::now();
    let demo = Demo::start(&[("START_DELAY_MS", "300")]).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(demo.get("/health").await.status(), 200);
}

#[tokio::test]
async fn sigterm_lets_a_running_request_finish_and_takes_no_new_one() {
    let mut demo = Demo::start(&[]).await;
    let mut idle = demo.connect().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    answer(&mut idle).await;
    let mut slow = demo.connect().await;
    slow.write_all(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await.unwrap();
    // The request is running for sure when the program has answered another one that came later.
    demo.get("/health").await;
    demo.signal("TERM").await;
    line_with(&mut demo.output, "stopping").await;
    let refused = async {
        while TcpStream::connect(("127.0.0.1", demo.port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("the port closes");
    assert!(demo.child.try_wait().unwrap().is_none(), "a request is running");
    slow.write_all(b"lo").await.unwrap();
    let (head, body) = answer(&mut slow).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Connection: close"), "{head}");
    assert!(body.contains("\"bytes\":5"), "{body}");
    assert_eq!(demo.ended().await.code(), Some(0));
    line_with(&mut demo.output, "stopped, 0 requests unfinished").await;
}

#[tokio::test]
async fn sigterm_drops_a_running_request_where_the_setting_says_so() {
    let mut demo = Demo::start(&[("DROP_AT_SIGTERM", "1")]).await;
    let mut slow = demo.connect().await;
    slow.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // It was accepted before this one.
    demo.get("/health").await;
    demo.signal("TERM").await;
    assert_eq!(demo.ended().await.code(), Some(0));
    let mut said = String::new();
    // Cut off, in order or by a reset.
    let _ = timeout(PATIENCE, slow.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "");
}

#[tokio::test]
async fn who_connected_before_sigterm_is_answered() {
    for _ in 0..5 {
        let mut demo = Demo::start(&[]).await;
        let mut silent = demo.connect().await;
        demo.signal("STOP").await;
        let mut queued = demo.connect().await;
        queued.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        demo.signal("TERM").await;
        demo.signal("CONT").await;
        assert_eq!(answer(&mut queued).await.1, "200\n");
        assert_eq!(demo.ended().await.code(), Some(0));
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_websocket_says_back_what_it_is_told_and_goes_away_in_order() {
    const KEY: &[u8; 4] = b"\x01\x02\x03\x04";
    let frame = |first: u8, payload: &[u8]| {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            long => frame.extend([0x80 | 126, (long >> 8) as u8, long as u8]),
        }
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    };
    let mut demo = Demo::start(&[]).await;
    assert_eq!(demo.get("/ws").await.status(), 426);
    let mut socket = demo.connect().await;
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket";
    let head = format!("{head}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    // A frame right behind the head: it must not be lost.
    socket.write_all(&[head.as_bytes(), &frame(0x81, b"early")].concat()).await.unwrap();
    let (head, _) = answer(&mut socket).await;
    // The example of RFC 6455, section 1.3.
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let long = pattern(300);
    let mut expected = b"\x81\x05early".to_vec();
    for (sent, back) in [(0x82, 0x82), (0x89, 0x8a)] {
        let payload: &[u8] = if sent == 0x82 { &long } else { b"ping" };
        socket.write_all(&frame(sent, payload)).await.unwrap();
        expected.push(back);
        match payload.len() {
            short @ 0..126 => expected.push(short as u8),
            long => expected.extend([126, (long >> 8) as u8, long as u8]),
        }
        expected.extend(payload);
    }
    let mut back = vec![0; expected.len()];
    timeout(PATIENCE, socket.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, expected);
    demo.signal("TERM").await;
    let mut close = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut close)).await.unwrap().unwrap();
    assert_eq!(close, [0x88, 2, 0x03, 0xe9], "closed with 1001");
    assert_eq!(demo.ended().await.code(), Some(0));
}
