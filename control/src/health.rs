//! The probe: asks a new instance until it answers as an application does, or the time is over.
//!
//! What counts is the status line. Any answer up to 499 will do, and exactly 500 (a half-configured application can still be
//! deployed and looked into); every other one, and none, is tried again. Called for each instance before it gets requests.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dormouse_link::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How much of an answer is read at once, in bytes. The status line is in the first few; the rest is taken so that a small
/// answer is whole, and the application has no reset connection to complain of.
const READ_BYTES: usize = 16 << 10;

/// The waits between tries: the first, and the longest. Each is one and a half of the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(400));

/// How long a probe waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeLimits {
    /// For one connection.
    pub connect: Duration,
    /// For one answer, once connected.
    pub answer: Duration,
    /// For all tries together.
    pub window: Duration,
    /// One that has answered must still listen after this time, unless it is zero: some end with their first answer.
    pub settle: Duration,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(400),
            answer: Duration::from_secs(20),
            window: Duration::from_secs(60),
            settle: Duration::ZERO,
        }
    }
}

/// The instance answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The status of its answer.
    pub status: u16,
    /// How often it was asked.
    pub tries: u32,
    /// How long that took.
    pub took: Duration,
}

/// Why an instance does not count as ready, in words for its developer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No connection came about.
    #[error(
        "nothing listened on port {port} within {} ({}): does the application listen on the port that the variable PORT \
         says, and on 0.0.0.0 rather than 127.0.0.1?",
        Seconds(*.within), Tries(*.tries)
    )]
    NeverListened {
        /// Where it was looked for.
        port: u16,
        /// How often.
        tries: u32,
        /// How long.
        within: Duration,
    },
    /// It took connections, but said nothing.
    #[error("port {port} took the connection, but no answer to GET / came within {} ({})", Seconds(*.within), Tries(*.tries))]
    NoAnswer {
        /// Where it listens.
        port: u16,
        /// How often it was asked.
        tries: u32,
        /// How long.
        within: Duration,
    },
    /// It answered that it cannot serve, to the end.
    #[error("GET / was answered {code} to the end, for {} ({}): any status up to 499, or 500, would do", Seconds(*.within), Tries(*.tries))]
    Status {
        /// Its last status.
        code: u16,
        /// How often it was asked.
        tries: u32,
        /// How long.
        within: Duration,
    },
    /// It speaks something else.
    #[error("port {port} answered, but not in HTTP/1.1, within {} ({}): is it the port of a database, or of HTTPS?", Seconds(*.within), Tries(*.tries))]
    NotHttp {
        /// Where it listens.
        port: u16,
        /// How often it was asked.
        tries: u32,
        /// How long.
        within: Duration,
    },
}

/// What one try showed; what says more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Try {
    NotListening,
    Silent,
    NotHttp,
    Status(u16),
}

/// Asks `target` for `/` of `host` until it is ready or the window is over. Dropping the future ends it.
pub async fn probe(target: SocketAddr, host: &Host, limits: ProbeLimits) -> Result<Ready, ProbeError> {
    let begin = Instant::now();
    let end = begin + limits.window;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: dormouse-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let (mut pause, mut tries, mut last) = (PAUSES.0, 0, Try::NotListening);
    loop {
        tries += 1;
        let seen = ask(target, request.as_bytes(), limits, end).await;
        if let Try::Status(status) = seen
            && is_ready(status)
        {
            let took = begin.elapsed();
            if limits.settle.is_zero() || still_listens(target, limits).await {
                return Ok(Ready { status, tries, took });
            }
        }
        let seen = if matches!(seen, Try::Status(status) if is_ready(status)) { Try::NotListening } else { seen };
        // A try that the end cut off must not hide what the one before it showed.
        last = if Instant::now() < end { seen } else { last.max(seen) };
        let over = Instant::now() + pause >= end;
        if over {
            return Err(refusal(last, target.port(), tries, limits.window));
        }
        sleep_until(Instant::now() + pause).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

/// Whether an application is there a moment after it answered. Not asked for another answer: it may be slow at that.
async fn still_listens(target: SocketAddr, limits: ProbeLimits) -> bool {
    sleep_until(Instant::now() + limits.settle).await;
    let connect = timeout_at(Instant::now() + limits.connect, TcpStream::connect(target));
    matches!(connect.await, Ok(Ok(_)))
}

/// Whether an application that answers so may get requests.
fn is_ready(status: u16) -> bool {
    matches!(status, 100..=500)
}

fn refusal(last: Try, port: u16, tries: u32, within: Duration) -> ProbeError {
    match last {
        Try::NotListening => ProbeError::NeverListened { port, tries, within },
        Try::Silent => ProbeError::NoAnswer { port, tries, within },
        Try::NotHttp => ProbeError::NotHttp { port, tries, within },
        Try::Status(code) => ProbeError::Status { code, tries, within },
    }
}

/// One try.
async fn ask(target: SocketAddr, request: &[u8], limits: ProbeLimits, end: Instant) -> Try {
    let Ok(Ok(mut socket)) = timeout_at(end.min(Instant::now() + limits.connect), TcpStream::connect(target)).await
    else {
        return Try::NotListening;
    };
    let answer = timeout_at(end.min(Instant::now() + limits.answer), answer(&mut socket, request)).await;
    answer.ok().and_then(Result::ok).unwrap_or(Try::Silent)
}

async fn answer(socket: &mut TcpStream, request: &[u8]) -> io::Result<Try> {
    socket.write_all(request).await?;
    let mut head = Vec::with_capacity(READ_BYTES);
    loop {
        let read = socket.read_buf(&mut head).await?;
        match status(&head) {
            Some(seen) => return Ok(seen),
            None if read == 0 && head.is_empty() => return Ok(Try::Silent),
            None if read == 0 => return Ok(Try::NotHttp),
            // Fewer bytes than a status line has: this ends soon.
            None => {}
        }
    }
}

/// What the beginning of an answer says; `None` while it says nothing yet.
fn status(head: &[u8]) -> Option<Try> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = head.len().min(BEGIN.len());
    if head[..length] != BEGIN[..length] {
        return Some(Try::NotHttp);
    }
    // "HTTP/1.x NNN", and what follows the number so that it is known to be whole.
    let line = head.get(..13)?;
    let digits = line[9..12].iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u16::from(byte - b'0')),
        _ => None,
    });
    let shape = matches!(line[7], b'0' | b'1') && line[8] == b' ' && matches!(line[12], b' ' | b'\r' | b'\n');
    Some(digits.filter(|&code| shape && code >= 100).map_or(Try::NotHttp, Try::Status))
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

struct Tries(u32);

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 try"),
            tries => write!(f, "{tries} tries"),
        }
    }
}

#[cfg(test)]
mod tests;
