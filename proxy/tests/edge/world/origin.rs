//! An application that does what a request's path says, and remembers what it got.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Client, field};
use super::until;

pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Seen>,
    task: JoinSet<()>,
    hears: Arc<Semaphore>,
}

/// As long as a connection may take to a listener that has room for it.
const CONNECTS_WITHIN: Duration = Duration::from_millis(500);

/// Between two bytes of `/trickle`.
const TRICKLE: Duration = Duration::from_millis(10);

pub(crate) struct Seen {
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    /// What `/raw` and its like answer.
    script: Mutex<Vec<u8>>,
    /// Bytes that were left over when a connection ended: no request at all.
    junk: Mutex<Vec<u8>>,
    /// Connections that ended.
    ended: AtomicUsize,
    /// What `/slow`, `/raw-late`, `/late-continue` and `/events` wait for.
    pub(crate) go: Semaphore,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn field(&self, name: &str) -> Vec<String> {
        field(&self.head, name)
    }

    /// Whether nobody can read it in two ways.
    pub(crate) fn is_well_framed(&self) -> bool {
        let lines: Vec<_> = self.head.strip_suffix("\r\n\r\n").expect("a whole head").split("\r\n").collect();
        let one_line = |line: &&str| !line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']);
        let token = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        };
        let named = |line: &&str| line.split_once(':').is_some_and(|(name, _)| token(name));
        let (lengths, codings) = (self.field("content-length"), self.field("transfer-encoding"));
        let framed = match (&lengths[..], &codings[..]) {
            ([], []) => self.body.is_empty(),
            ([length], []) => *length == self.body.len().to_string(),
            ([], [coding]) => coding == "chunked",
            _ => false,
        };
        let begin: Vec<_> = lines[0].split(' ').collect();
        lines.iter().all(one_line)
            && matches!(begin[..], [method, _, "HTTP/1.1"] if token(method))
            && lines[1..].iter().all(named)
            && self.field("host").len() == 1
            && framed
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).expect("a path")
    }
}

impl Origin {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::on(name, TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    pub(crate) fn on(name: &'static str, listener: TcpListener) -> Self {
        let origin = Self::deaf_on(name, listener);
        origin.hear();
        origin
    }

    /// One that accepts nothing, and has no room for more, until it is told to hear.
    pub(crate) async fn deaf(name: &'static str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let mut origin = Self::deaf_on(name, socket.listen(1).expect("it listens"));
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(CONNECTS_WITHIN, TcpStream::connect(origin.address)).await {
            waiting.push(connected.expect("a connection"));
        }
        // They stay as long as it does.
        origin.task.spawn(async move {
            let _waiting = waiting;
            std::future::pending::<()>().await;
        });
        origin
    }

    /// Begins to accept.
    pub(crate) fn hear(&self) {
        self.hears.add_permits(1);
    }

    fn deaf_on(name: &'static str, listener: TcpListener) -> Self {
        let hears = Arc::new(Semaphore::new(0));
        let heard = Arc::clone(&hears);
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Seen {
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            script: Mutex::default(),
            junk: Mutex::default(),
            ended: AtomicUsize::new(0),
            go: Semaphore::new(0),
        });
        let seen = Arc::clone(&state);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _hears = heard.acquire().await.expect("nobody closes it");
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let seen = Arc::clone(&seen);
                connections.spawn(async move {
                    let mut client = Client::over(stream);
                    connection(&mut client, name, Arc::clone(&seen)).await;
                    seen.junk.lock().expect("no test panics with it").extend_from_slice(client.rest());
                    seen.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { name, address, state, task, hears }
    }

    /// An address where nobody listens.
    pub(crate) async fn down(name: &'static str) -> Self {
        let mut origin = Self::start(name).await;
        origin.kill().await;
        origin
    }

    /// Closes the listener and every connection.
    pub(crate) async fn kill(&mut self) {
        self.task.shutdown().await;
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().expect("no test panics with it").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until it has got so many requests in all.
    pub(crate) async fn got(&self, count: usize) {
        until("requests at the origin", || self.requests().len() >= count).await;
    }

    /// Sets what `/raw` and its like answer.
    pub(crate) fn say(&self, bytes: impl AsRef<[u8]>) {
        *self.state.script.lock().expect("no test panics with it") = bytes.as_ref().to_vec();
    }

    /// How many connections ended.
    pub(crate) fn ended(&self) -> usize {
        self.state.ended.load(Ordering::SeqCst)
    }

    /// What came and was no request, of connections that ended.
    pub(crate) fn junk(&self) -> Vec<u8> {
        self.state.junk.lock().expect("no test panics with it").clone()
    }

    /// Lets one `/slow` answer, or one event go.
    pub(crate) fn go(&self) {
        self.state.go.add_permits(1);
    }
}

async fn connection(client: &mut Client<TcpStream>, name: &'static str, seen: Arc<Seen>) {
    while let Some(head) = client.head().await {
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        if path == "/early" {
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
        }
        if path == "/late-continue" {
            let Ok(go) = seen.go.acquire().await else { return };
            go.forget();
        }
        let Some(body) = body(client, &head).await else { return };
        seen.requests.lock().expect("no test panics with it").push(Request { head: head.clone(), body: body.clone() });
        match path.split('?').next().expect("a path") {
            "/early" => {}
            "/echo" | "/late-continue" => {
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())).await;
                client.send(body).await;
            }
            "/chunked" => {
                client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                for chunk in body.chunks(7001) {
                    client.send(format!("{:x}\r\n", chunk.len())).await;
                    client.send(chunk).await;
                    client.send("\r\n").await;
                }
                client.send("0\r\n\r\n").await;
            }
            "/until-closed" => {
                client.send("HTTP/1.1 200 OK\r\n\r\nto the end").await;
                return;
            }
            "/cut" => {
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all").await;
                return;
            }
            "/raw" => client.send(script(&seen)).await,
            // The script's first half, and the second one when it is told to.
            "/raw-halves" => {
                let script = script(&seen);
                let at = script.windows(4).position(|window| window == b"HALF").expect("a mark");
                client.send(&script[..at]).await;
                let Ok(go) = seen.go.acquire().await else { return };
                go.forget();
                client.send(&script[at + 4..]).await;
            }
            "/raw-end" => return client.send(script(&seen)).await,
            "/raw-reset" => {
                client.send(script(&seen)).await;
                let socket = socket2::SockRef::from(&client.stream);
                return socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
            }
            // Says that nothing more comes, and stays.
            "/raw-half" => {
                client.send(script(&seen)).await;
                client.finish().await;
                while client.head().await.is_some() {}
                return;
            }
            "/raw-late" => {
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())).await;
                let Ok(go) = seen.go.acquire().await else { return };
                go.forget();
                client.send(script(&seen)).await;
            }
            "/garbage" => return client.send("no HTTP at all\r\n\r\n").await,
            "/slow" => {
                let Ok(go) = seen.go.acquire().await else { return };
                go.forget();
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())).await;
            }
            "/silent" => std::future::pending().await,
            "/trickle" => {
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
                while client.stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(TRICKLE).await;
                }
                return;
            }
            "/events" => {
                client.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n").await;
                let Ok(go) = seen.go.acquire().await else { return };
                go.forget();
                return client.send("data: second\n\n").await;
            }
            "/socket" => {
                client
                    .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    .await;
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = client.stream.read(&mut buffer).await {
                    client.stream.write_all(&buffer[..count]).await.expect("the proxy reads");
                }
                return;
            }
            // Agrees to an upgrade, and resets the connection.
            "/socket-reset" => {
                client
                    .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    .await;
                let Ok(go) = seen.go.acquire().await else { return };
                go.forget();
                let socket = socket2::SockRef::from(&client.stream);
                return socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
            }
            "/hop" => {
                let fields = "Keep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nTrailer: y\r\nX-Mine: z\r\n\
                              Connection: x-mine, keep-alive\r\nETag: kept\r\nLocation: http://elsewhere/\r\n";
                client.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).await;
            }
            "/not-asked" => return client.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").await,
            "/none" => client.send("HTTP/1.1 204 No Content\r\n\r\n").await,
            _ if head.starts_with("HEAD ") => client.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await,
            _ => client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())).await,
        }
    }
}

fn script(seen: &Seen) -> Vec<u8> {
    seen.script.lock().expect("no test panics with it").clone()
}

async fn body(client: &mut Client<TcpStream>, head: &str) -> Option<Vec<u8>> {
    if field(head, "expect").first().is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
        client.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    if let Some(length) = field(head, "content-length").first() {
        return client.take(length.parse().expect("a length")).await;
    }
    let mut body = Vec::new();
    if !field(head, "transfer-encoding").is_empty() {
        loop {
            let size = usize::from_str_radix(client.until(b"\r\n").await?.trim(), 16).expect("a chunk size");
            let chunk = client.take(size + 2).await?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(body)
}
