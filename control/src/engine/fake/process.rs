//! What stands for a process in a container: a task with a small HTTP/1.1 server.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::script::Script;

/// The code of a process that was killed.
pub(super) const KILLED: i64 = 137;

/// A Close without a code (RFC 6455 section 5.5.1).
const CLOSE: [u8; 2] = [0x88, 0];

/// The longest request head.
const HEAD_MAX_BYTES: u64 = 64 * 1024;

/// A handle on a process. Dropping it kills.
#[derive(Debug)]
pub(super) struct Process {
    stopping: CancellationToken,
    fate: Fate,
}

/// How far a process is.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    killed: CancellationToken,
    ended: CancellationToken,
}

impl Fate {
    /// Whether it was killed: it will end, if it has not ended yet.
    pub(super) fn is_sealed(&self) -> bool {
        self.killed.is_cancelled()
    }

    /// Waits until it has ended and its port is free.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Process {
    /// SIGTERM: it finishes what it is at, unless its script says otherwise.
    pub(super) fn terminate(&self) {
        self.stopping.cancel();
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        self.fate.killed.cancel();
    }

    pub(super) fn fate(&self) -> Fate {
        self.fate.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process answers.
pub(super) struct Answers {
    pub(super) script: Script,
    pub(super) text: String,
    /// Counts the POST requests that came, whatever becomes of them.
    pub(super) posts: Arc<AtomicU64>,
}

impl Answers {
    pub(super) fn new(script: Script, variables: &BTreeMap<String, String>, posts: Arc<AtomicU64>) -> Self {
        let variables: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Self { text: format!("{}\n{variables}", script.body), script, posts }
    }
}

/// Starts a process on `thread`; `end` hears its exit code. Without a boot time it listens when this returns.
pub(super) fn spawn(
    thread: &Handle,
    at: SocketAddr,
    answers: Answers,
    end: impl FnOnce(i64) + Send + 'static,
) -> Process {
    let (stopping, killed, ended) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let fate = Fate { killed: killed.clone(), ended: ended.clone() };
    let process = Process { stopping: stopping.clone(), fate };
    let early = (answers.script.boot.is_zero() && answers.script.exit.is_none()).then(|| listen(at));
    let answers = Arc::new(answers);
    thread.spawn(async move {
        let _ended = ended.drop_guard();
        let code = tokio::select! {
            () = killed.cancelled() => KILLED,
            code = run(at, early, answers, stopping) => code,
        };
        end(code);
    });
    process
}

/// A port that is listened on, and free for the next process as soon as this is dropped. To close the socket would not do:
/// whoever starts a program at that moment (git, in another world of the same test) has a copy of it until the program runs.
struct Port(std::net::TcpListener);

impl Drop for Port {
    fn drop(&mut self) {
        // Fails only where it does not listen any more.
        let _ = socket2::SockRef::from(&self.0).shutdown(std::net::Shutdown::Both);
    }
}

fn listen(at: SocketAddr) -> io::Result<Port> {
    if !matches!(at.ip(), IpAddr::V4(address) if address.is_loopback()) {
        return Err(io::Error::other("the fake engine listens on 127.0.0.0/8 only"));
    }
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(Port(listener))
}

async fn run(
    at: SocketAddr,
    early: Option<io::Result<Port>>,
    answers: Arc<Answers>,
    stopping: CancellationToken,
) -> i64 {
    tokio::select! {
        () = tokio::time::sleep(answers.script.boot) => {}
        () = stopping.cancelled() => return 0,
    }
    if let Some(code) = answers.script.exit {
        return code;
    }
    let port = early.unwrap_or_else(|| listen(at));
    let listening = port.and_then(|port| Ok((tokio::net::TcpListener::from_std(port.0.try_clone()?)?, port)));
    let (listener, port) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            tracing::warn!(address = %at, error = &error as &dyn std::error::Error, "a fake process cannot listen");
            return 1;
        }
    };
    let over = CancellationToken::new();
    let mut clients = JoinSet::new();
    loop {
        // A connection that is not accepted yet stays in the queue.
        tokio::select! {
            () = stopping.cancelled() => break,
            () = over.cancelled() => return 1,
            Some(_) = clients.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                clients.spawn(serve(client, answers.clone(), stopping.clone(), over.clone()));
            }
        }
    }
    drop((port, listener));
    if answers.script.drop_at_stop {
        clients.shutdown().await;
    }
    while clients.join_next().await.is_some() {}
    0
}

/// Answers one request after the other, until either side is done.
async fn serve(client: TcpStream, answers: Arc<Answers>, stopping: CancellationToken, over: CancellationToken) {
    let mut client = BufReader::new(client);
    loop {
        // A head that is half read when it stops is lost, as in any server.
        let head = tokio::select! {
            () = stopping.cancelled() => return,
            head = head(&mut client) => head,
        };
        let Ok(Some(head)) = head else { return };
        answers.posts.fetch_add(u64::from(head.post), Ordering::Relaxed);
        if head.read_body(&mut client).await.is_err() {
            return;
        }
        if answers.script.never_answer {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(answers.script.answer_after).await;
        if head.socket {
            // Told to stop, it ends as a server does that has no more time.
            return tokio::select! {
                () = stopping.cancelled() => {}
                _ = socket(client.get_mut()) => {}
            };
        }
        let last = head.close || stopping.is_cancelled();
        let answer = answer(&head, &answers, last);
        if client.get_mut().write_all(answer.as_bytes()).await.is_err() || client.get_mut().flush().await.is_err() {
            return;
        }
        if answers.script.exit_after_ready {
            over.cancel();
        }
        if last {
            return;
        }
    }
}

/// A WebSocket that has nothing to say: it reads until its client says Close, and answers that.
async fn socket(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await?;
    let mut piece = [0; 1024];
    // A frame comes in a piece of its own.
    while client.read(&mut piece).await? > 0 {
        if piece[0] == CLOSE[0] {
            return client.write_all(&CLOSE).await;
        }
    }
    Ok(())
}

fn answer(head: &Head, answers: &Answers, last: bool) -> String {
    let text = &answers.text;
    let status = answers.script.status.unwrap_or(200);
    let connection = if last { "close" } else { "keep-alive" };
    let length = text.len();
    let body = if head.bodyless { "" } else { text };
    format!(
        "HTTP/1.1 {status} Fake\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}"
    )
}

/// What matters of a request's head.
#[derive(Default)]
struct Head {
    /// Whether the answer has no body.
    bodyless: bool,
    post: bool,
    /// Whether it asks for a WebSocket.
    socket: bool,
    close: bool,
    chunked: bool,
    length: u64,
}

/// The next request's head; `None` at the end of the connection.
async fn head(client: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    let mut client = client.take(HEAD_MAX_BYTES);
    let mut line = String::new();
    client.read_line(&mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    head.bodyless = line.starts_with("HEAD ");
    head.post = line.starts_with("POST ");
    head.close = line.trim_end().ends_with("HTTP/1.0");
    loop {
        line.clear();
        if client.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(Some(head));
        }
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            "transfer-encoding" => head.chunked = true,
            "connection" => head.close |= value == "close",
            "upgrade" => head.socket = value == "websocket",
            _ => {}
        }
    }
}

impl Head {
    async fn read_body(&self, client: &mut BufReader<TcpStream>) -> io::Result<()> {
        if !self.chunked {
            return skip(client, self.length).await;
        }
        loop {
            let mut size = String::new();
            client.take(HEAD_MAX_BYTES).read_line(&mut size).await?;
            let digits = size.trim().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            // Each chunk ends with a line end; so does the last one, of no length, as it has no trailers here.
            skip(client, size + 2).await?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

async fn skip(client: &mut BufReader<TcpStream>, length: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut client.take(length), &mut tokio::io::sink()).await?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_at_once_even_where_somebody_has_a_copy_of_its_socket() {
        let port = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let at = port.0.local_addr().expect("an address");
        let copy = port.0.try_clone().expect("a copy");
        assert!(listen(at).is_err(), "it is in use");
        drop(port);
        listen(at).expect("it is free");
        drop(copy);
    }
}
