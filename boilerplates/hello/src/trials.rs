//! What tries how far the program gets: its capabilities, its neighbours, its memory, processes and log. Only where the
//! setting `TRIALS` is set; a visitor of the demonstration shall not have this.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::Request;

/// The argument that makes the program a process which rests until its parent ends it.
pub const REST: &str = "rest";

/// The argument that makes the program write so many MiB, and end.
pub const CHATTER: &str = "chatter";

/// How long an address may take to answer.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The most memory, output and processes that can be asked for.
const MEMORY_MAX_MB: u64 = 4096;
const OUTPUT_MAX_MB: u64 = 4096;
const PROCESSES_MAX: u64 = 4096;

/// The answer to a trial, or `None` if it is none.
pub fn answer(request: &Request) -> Option<String> {
    Some(match request.path.as_str() {
        "/caps" => privileges(),
        "/try" => connect(request.text("connect").unwrap_or_default()),
        "/allocate" => {
            allocate(request.number("mb", 1, MEMORY_MAX_MB));
            "it was given\n".to_owned()
        }
        "/fork" => fork(request.number("n", 1, PROCESSES_MAX)),
        "/chatter" => chatter(request.number("mb", 1, OUTPUT_MAX_MB)),
        _ => return None,
    })
}

/// Takes so much memory, uses it, and keeps it.
pub fn allocate(mb: u64) {
    let bytes = usize::try_from(mb << 20).unwrap_or(usize::MAX);
    std::mem::forget(std::hint::black_box(vec![1_u8; bytes]));
}

/// Waits until the parent lets go.
pub fn rest() {
    let _ = std::io::stdin().read(&mut [0]);
}

fn privileges() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let told = |line: &&str| line.starts_with("Cap") || line.starts_with("NoNewPrivs") || line.starts_with("Seccomp:");
    status.lines().filter(told).map(|line| format!("{line}\n")).collect()
}

fn connect(address: &str) -> String {
    let Ok(address) = address.parse::<SocketAddr>() else { return "that is no address\n".to_owned() };
    match TcpStream::connect_timeout(&address, CONNECT_MAX) {
        Ok(_) => "open\n".to_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused\n".to_owned(),
        Err(error) => format!("unreachable: {error}\n"),
    }
}

/// As many processes as it is given, up to `n`, and why no more. They rest until they are let go.
pub fn start(n: u64) -> (Vec<Child>, Option<std::io::Error>) {
    let start = |_| -> Result<Child> {
        let mut rest = Command::new(std::env::current_exe()?);
        rest.arg(REST).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let mut children = Vec::new();
    let failed = (0..n).map(start).find_map(|child| child.map(|child| children.push(child)).err());
    (children, failed)
}

/// As many processes as it is given, up to `n`; all end again.
fn fork(n: u64) -> String {
    let (children, failed) = start(n);
    let count = children.len();
    for mut child in children {
        drop(child.stdin.take());
        let _ = child.wait();
    }
    format!("{count}\n{}\n", failed.map_or_else(|| "no error".to_owned(), |error| error.to_string()))
}

/// Writes so much to the log, and tells in how many milliseconds.
pub fn chatter(mb: u64) -> String {
    let begun = Instant::now();
    let line = [b"hello: ".as_slice(), &[b'x'; 1016], b"\n"].concat();
    let mut out = std::io::stdout().lock();
    for _ in 0..mb * 1024 {
        if out.write_all(&line).is_err() {
            return "nobody listens\n".to_owned();
        }
    }
    format!("{}\n", begun.elapsed().as_millis())
}
