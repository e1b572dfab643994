//! A crowd of visitors at a fixed rate: some stay connected, some come on a new connection for each request. Every request
//! that does not get its answer is counted, by its kind.
//!
//! Each visitor asks at its own moments, whatever the others wait for; one that is still waiting when its next moment
//! comes asks as soon as it has its answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::Result;
use crate::figures::Samples;

/// Nobody waits longer for an answer.
const WITHIN: Duration = Duration::from_secs(30);

/// The head of an answer is not longer.
const HEAD_MAX: usize = 16 << 10;

/// How a visitor comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One connection for all requests.
    Stays,
    /// A connection for each request.
    Fresh,
}

/// Who comes, where to and how often.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) at: SocketAddr,
    pub(crate) host: &'static str,
    /// Visitors that stay connected, and visitors that do not.
    pub(crate) stays: u32,
    pub(crate) fresh: u32,
    /// Between two requests of one visitor.
    pub(crate) every: Duration,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) times: Samples,
}

impl Tally {
    pub(crate) fn merge(&mut self, other: Self) {
        self.answered += other.answered;
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        self.times.merge(other.times);
    }

    pub(crate) fn fail(&mut self, kind: String, count: u64) {
        *self.failed.entry(kind).or_default() += count;
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// Visitors that come until they are told to stop.
pub(crate) struct Crowd {
    visitors: JoinSet<Tally>,
    mood: Arc<Mood>,
}

struct Mood {
    asks: AtomicBool,
    stays: AtomicBool,
}

impl Crowd {
    /// They wait for [`Crowd::ask`].
    pub(crate) fn gather(plan: &Plan) -> Self {
        let mood = Arc::new(Mood { asks: AtomicBool::new(false), stays: AtomicBool::new(true) });
        let mut visitors = JoinSet::new();
        for number in 0..plan.stays + plan.fresh {
            let manner = if number < plan.stays { Manner::Stays } else { Manner::Fresh };
            let after = plan.every * number / (plan.stays + plan.fresh);
            visitors.spawn(visit(plan.clone(), manner, after, mood.clone()));
        }
        Self { visitors, mood }
    }

    pub(crate) fn ask(&self) {
        self.mood.asks.store(true, Ordering::SeqCst);
    }

    pub(crate) fn pause(&self) {
        self.mood.asks.store(false, Ordering::SeqCst);
    }

    /// Sends them home when they have their answers.
    pub(crate) async fn end(self) -> Tally {
        self.mood.stays.store(false, Ordering::SeqCst);
        let mut all = Tally::default();
        for tally in self.visitors.join_all().await {
            all.merge(tally);
        }
        all
    }
}

async fn visit(plan: Plan, manner: Manner, after: Duration, mood: Arc<Mood>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    tokio::time::sleep(after).await;
    let mut moments = interval(plan.every);
    moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let requests = requests(plan.host, manner);
    for request in requests.iter().cycle() {
        moments.tick().await;
        if !mood.stays.load(Ordering::SeqCst) {
            break;
        }
        if !mood.asks.load(Ordering::SeqCst) {
            continue;
        }
        let begin = Instant::now();
        match timeout(WITHIN, ask(plan.at, &mut connection, request.as_bytes())).await {
            Ok(Ok((200, after))) => {
                tally.answered += 1;
                tally.times.add_time(begin.elapsed());
                if after == After::Closes {
                    connection = None;
                }
            }
            Ok(Ok((status, _))) => {
                tally.fail(format!("status {status}"), 1);
                connection = None;
            }
            Ok(Err(error)) => {
                tally.fail(error.to_string(), 1);
                connection = None;
            }
            Err(_) => {
                tally.fail("no answer".to_owned(), 1);
                connection = None;
            }
        }
    }
    tally
}

/// What is asked in turns: a page, and something that must not be asked twice.
fn requests(host: &str, manner: Manner) -> [String; 2] {
    let connection = match manner {
        Manner::Stays => "keep-alive",
        Manner::Fresh => "close",
    };
    let common = format!("HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n");
    [format!("GET /health {common}\r\n"), format!("POST /count {common}Content-Length: 5\r\n\r\nhello")]
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Stays,
    Closes,
}

/// One request and its whole answer.
async fn ask(at: SocketAddr, connection: &mut Option<TcpStream>, request: &[u8]) -> Result<(u16, After)> {
    let reused = if connection.is_some() { "a kept connection" } else { "a new connection" };
    let socket = match connection {
        Some(socket) => socket,
        None => {
            let socket = TcpStream::connect(at).await.map_err(|error| format!("not connected: {error}"))?;
            socket.set_nodelay(true)?;
            connection.insert(socket)
        }
    };
    socket.write_all(request).await.map_err(|error| format!("{reused}, writing: {error}"))?;
    let mut bytes = Vec::with_capacity(1024);
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let read = socket.read_buf(&mut bytes).await.map_err(|error| format!("{reused}, reading: {error}"))?;
        if read == 0 || bytes.len() > HEAD_MAX {
            return Err(format!("{reused} ended without an answer").into());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    let length = length.ok_or("an answer without its length")?;
    while bytes.len() < head + length {
        if socket.read_buf(&mut bytes).await.map_err(|error| format!("{reused}, body: {error}"))? == 0 {
            return Err("an answer was cut off".into());
        }
    }
    let after = if text.contains("\r\nconnection: close") { After::Closes } else { After::Stays };
    Ok((status, after))
}
