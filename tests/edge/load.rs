//! Visitors that never stop, and count what goes wrong.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program::{PATIENCE, soon};
use crate::speaker::{NoAnswer, Speaker};

/// A frame of a WebSocket, and how it goes away.
pub(crate) const HELLO: [u8; 7] = [0x81, 5, b'h', b'e', b'l', b'l', b'o'];
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// What a WebSocket client begins with.
pub(crate) const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const LAST_REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicUsize,
    pub(crate) echoed: AtomicUsize,
    pub(crate) sockets: AtomicUsize,
    /// On a connection that was used before, closed without a byte of an answer: HTTP clients ask again by themselves.
    pub(crate) asked_again: AtomicUsize,
    /// Connections of HTTP/2 that ended by a GOAWAY, and went on as another one.
    pub(crate) goaways: AtomicUsize,
    pub(crate) failures: Mutex<Vec<String>>,
    /// When a connection began, and how long until its first answer came.
    first_answers: Mutex<Vec<(Instant, Duration)>>,
    over: AtomicBool,
}

pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    visitors: JoinSet<()>,
    /// Who measures is not held up by the others.
    prober: JoinHandle<()>,
}

/// Between two connections of whom measures.
const PROBE: Duration = Duration::from_millis(4);

/// Between two requests of a visitor: so many of them are no test of the machine.
const PAUSE: Duration = Duration::from_millis(3);

impl Load {
    /// Begins with so many of each: on kept connections, on new ones, over WebSocket, over HTTP/2.
    pub(crate) fn begin(to: SocketAddr, [keeping, fresh, sockets, speaking]: [usize; 4]) -> Self {
        let tally = Arc::new(Tally::default());
        let mut visitors = JoinSet::new();
        for _ in 0..keeping {
            visitors.spawn(keep(to, Arc::clone(&tally)));
        }
        for _ in 0..fresh {
            visitors.spawn(connect_anew(to, Arc::clone(&tally), Measured::Not));
        }
        for _ in 0..sockets {
            visitors.spawn(echo(to, Arc::clone(&tally)));
        }
        for _ in 0..speaking {
            visitors.spawn(speak(to, Arc::clone(&tally)));
        }
        let probed = Arc::clone(&tally);
        let prober = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(connect_anew(to, probed, Measured::All));
        });
        Self { tally, visitors, prober }
    }

    /// Waits for so many more answers.
    pub(crate) async fn more(&self, answers: usize) {
        let before = self.tally.answered.load(Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while self.tally.answered.load(Ordering::SeqCst) < before + answers {
            assert!(Instant::now() < deadline, "no answers: {:?}", self.tally.failures.lock().unwrap());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// When connections began since this was asked before, and how long their first answers took.
    pub(crate) fn first_answers(&self) -> Vec<(Instant, Duration)> {
        std::mem::take(&mut *self.tally.first_answers.lock().unwrap())
    }

    pub(crate) async fn end(mut self) -> Arc<Tally> {
        self.tally.over.store(true, Ordering::SeqCst);
        while let Some(ended) = soon("the visitors", self.visitors.join_next()).await {
            ended.unwrap();
        }
        tokio::task::spawn_blocking(|| self.prober.join()).await.unwrap().unwrap();
        self.tally
    }
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    fn failed(&self, what: &str, why: impl std::fmt::Debug) {
        self.failures.lock().unwrap().push(format!("{what}: {why:?}"));
    }
}

/// One request after the other on a connection, as long as it lasts.
async fn keep(to: SocketAddr, tally: Arc<Tally>) {
    let mut kept: Option<TcpStream> = None;
    while tally.goes_on() {
        let used = kept.is_some();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(to).await {
                Ok(stream) => stream,
                Err(error) => {
                    tally.failed("connect", error);
                    continue;
                }
            },
        };
        match ask(&mut stream, REQUEST).await {
            Ok(Answer::Whole { closing }) => {
                tally.answered.fetch_add(1, Ordering::SeqCst);
                kept = (!closing).then_some(stream);
                sleep(PAUSE).await;
            }
            Ok(Answer::None) if used => {
                tally.asked_again.fetch_add(1, Ordering::SeqCst);
            }
            other => tally.failed("keep-alive", other),
        }
    }
}

/// Whether it is noted how long first answers take.
#[derive(Clone, Copy, PartialEq)]
enum Measured {
    Not,
    All,
}

async fn connect_anew(to: SocketAddr, tally: Arc<Tally>, measured: Measured) {
    while tally.goes_on() {
        let began = Instant::now();
        let asked = async { ask(&mut TcpStream::connect(to).await?, LAST_REQUEST).await };
        match asked.await {
            Ok(Answer::Whole { .. }) => {
                tally.answered.fetch_add(1, Ordering::SeqCst);
                if measured == Measured::All {
                    tally.first_answers.lock().unwrap().push((began, began.elapsed()));
                }
            }
            other => tally.failed("new connection", other),
        }
        sleep(if measured == Measured::All { PROBE } else { PAUSE }).await;
    }
}

/// Streams at a time of one connection, every other one with a slow answer.
const STREAMS: usize = 4;

/// Several requests at a time over HTTP/2, until the connection takes no more; then over another one.
async fn speak(to: SocketAddr, tally: Arc<Tally>) {
    while tally.goes_on() {
        let speaker = match Speaker::connect(to).await {
            Ok(speaker) => speaker,
            Err(error) => {
                tally.failed("connect for HTTP/2", error);
                continue;
            }
        };
        let paths = ["/", "/slow"].into_iter().cycle().take(STREAMS);
        let went_away =
            join_all(paths.map(|path| ask_again(&speaker, path, &tally))).await.into_iter().any(|went| went);
        tally.goaways.fetch_add(usize::from(went_away), Ordering::SeqCst);
        if went_away && let Err(error) = speaker.ended().await {
            tally.failed("the end after a GOAWAY", error);
        }
    }
}

/// Whether the connection said GOAWAY in the end.
async fn ask_again(speaker: &Speaker, path: &str, tally: &Tally) -> bool {
    while tally.goes_on() {
        match speaker.get(path).await {
            Ok((200, _)) => {
                tally.answered.fetch_add(1, Ordering::SeqCst);
                sleep(PAUSE).await;
            }
            Err(NoAnswer::NotSent(error)) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                return true;
            }
            other => {
                tally.failed("HTTP/2", other);
                return false;
            }
        }
    }
    false
}

/// Echoes over an upgraded connection until it is closed, and again. An orderly close between two echoes is no failure.
async fn echo(to: SocketAddr, tally: Arc<Tally>) {
    while tally.goes_on() {
        let opened = async {
            let mut stream = TcpStream::connect(to).await?;
            stream.write_all(UPGRADE.as_bytes()).await?;
            let head = head(&mut stream).await?;
            if head.starts_with("HTTP/1.1 101") { Ok(stream) } else { Err(io::Error::other(head)) }
        };
        let mut stream = match opened.await {
            Ok(stream) => stream,
            Err(error) => {
                tally.failed("upgrade", error);
                continue;
            }
        };
        tally.sockets.fetch_add(1, Ordering::SeqCst);
        while tally.goes_on() {
            let mut back = [0; HELLO.len()];
            let echoed = async {
                stream.write_all(&HELLO).await?;
                stream.read_exact(&mut back).await
            };
            match echoed.await {
                Ok(_) if back == HELLO => tally.echoed.fetch_add(1, Ordering::SeqCst),
                Err(error) => {
                    if error.kind() == io::ErrorKind::ConnectionReset {
                        tally.failed("the end of a WebSocket", error);
                    }
                    break;
                }
                Ok(_) => {
                    tally.failed("echo", back);
                    break;
                }
            };
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[derive(Debug)]
pub(crate) enum Answer {
    Whole {
        closing: bool,
    },
    /// The connection ended before the first byte.
    None,
}

/// Asks, and reads an answer with a length.
pub(crate) async fn ask(stream: &mut TcpStream, request: &str) -> io::Result<Answer> {
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Ok(Answer::None);
    }
    let head = match head(stream).await {
        Ok(head) => head,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Answer::None),
        Err(error) => return Err(error),
    };
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head));
    }
    let field = |name: &str| {
        let line = |line: &str| Some(line.to_ascii_lowercase().strip_prefix(name)?.trim().to_owned());
        head.lines().find_map(line)
    };
    let length = field("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(Answer::Whole { closing: field("connection:").as_deref() == Some("close") })
}

/// Byte by byte, so that nothing behind it is taken; an end before the first byte is an unexpected one, any other is cut off.
pub(crate) async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if !head.is_empty() => return Err(io::Error::other("the head was cut off")),
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
