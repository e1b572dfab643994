//! One git program and one client, joined: the request's body goes to the program, the program's words go to the client.
//!
//! The end comes in order. When the time is over, the program's input is closed, so that it ends by itself and leaves no half
//! work; only one that does not is killed. A push's last packet is held back until everything that followed was shown.

use std::io::{self, Write};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{sleep, timeout};

use super::PIECE_BYTES;
use super::limits::{Excess, Limits};
use super::measure::Measure;
use super::out::{Out, Until};
use super::packet::{self, FLUSH, Packet};
use super::refusal::Refusal;
use super::repository::{self, Repository};
use super::request::{Action, Coding, Service, Version};

/// How long a program may take to end once its input is closed.
const GRACE: Duration = Duration::from_secs(10);

/// The largest request of a fetch, unpacked: some 300 000 names of objects.
const FETCH_MAX_BYTES: u64 = 16 << 20;

/// How much of a body or a pack is unpacked at once. It grows at most a thousandfold.
const UNPACK_BYTES: usize = 4 << 10;

/// How much of a program's complaint is logged, in bytes.
const COMPLAINT_MAX_BYTES: u64 = 4 << 10;

/// What a developer reads beside git's own words, which name no disk.
const DISK_FULL: &str = "Refused: the disk that holds Dormouse's data folder is full. Its operator must free some space; then \
                         push again.";

/// Whether git complains of a full disk, or of a quota that is used up.
fn disk_full(says: &[u8]) -> bool {
    let says = String::from_utf8_lossy(says);
    repository::DISK_FULL.iter().any(|words| says.contains(words))
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Well, and the client understands lines for people.
    Lines,
    /// Well, but the client has no place for lines.
    NoLines,
    /// It was not given all of it, for this reason.
    Refused(Excess),
    /// Not well, or it was ended.
    Broken,
}

/// Starts git's program for one request.
pub(super) fn spawn(
    service: Service,
    action: Action,
    repository: &Repository,
    version: Version,
    limits: &Limits,
) -> Result<Child, Refusal> {
    let mut git = repository::git(repository.path());
    git.env("GIT_PROTOCOL", version.variable());
    git.arg("-c").arg(format!("receive.maxInputSize={}", limits.push_max_bytes));
    git.arg(service.program());
    if service == Service::Fetch {
        git.arg("--strict");
    }
    git.arg("--stateless-rpc");
    if action == Action::Advertise {
        git.arg("--advertise-refs");
    }
    git.arg("--").arg(repository.path());
    git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    git.spawn().map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "git could not be started");
        Refusal::Failed
    })
}

/// Passes on the rest of an advertisement, of which `first` was read already.
pub(super) async fn advertise(service: Service, mut child: Child, stdout: ChildStdout, first: Bytes, mut out: Out) {
    // An advertisement reads nothing.
    drop(child.stdin.take());
    out.send(Ok(first)).await;
    let until = out.until().clone();
    // Cancel-safe: what is not passed on when the time is over is lost with the response, which is cut.
    let passed = tokio::select! {
        passed = relay_bytes(stdout, &mut out) => passed.map(drop),
        () = until.reached() => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = passed {
        out.send(Err(error)).await;
    }
    complain(service, child).await;
}

/// Waits for a program whose output was read, and logs what it complained of.
pub(super) async fn complain(service: Service, mut child: Child) {
    let stderr = child.stderr.take();
    let said = async {
        let said = match stderr {
            Some(stderr) => complaint(stderr).await,
            None => String::new(),
        };
        (child.wait().await, said)
    };
    // Where the time is over, the child is killed with its handle.
    if let Ok((Ok(status), said)) = timeout(GRACE, said).await
        && !status.success()
    {
        log(service, status, &said);
    }
}

fn log(service: Service, status: std::process::ExitStatus, said: &str) {
    tracing::warn!(%service, %status, said = said.trim(), "git ended with an error");
}

/// What a client sends.
pub(super) struct Input {
    pub(super) body: BodyDataStream,
    pub(super) coding: Coding,
    /// Of a push: what is known of it.
    pub(super) measure: Option<Measure>,
}

/// A request on its way.
pub(super) struct Exchange {
    service: Service,
    child: Child,
    input: Input,
    pub(super) out: Out,
    limits: Limits,
    /// The program's last packet was an end, and the client has not got it yet.
    held: bool,
}

impl Exchange {
    pub(super) fn new(service: Service, child: Child, input: Input, out: Out, limits: Limits) -> Self {
        Self { service, child, input, out, limits, held: false }
    }

    /// Carries bytes both ways until the program has ended.
    pub(super) async fn run(&mut self) -> Outcome {
        let stdin = self.child.stdin.take().expect("stdin was asked for as a pipe");
        let stdout = self.child.stdout.take().expect("stdout was asked for as a pipe");
        let stderr = self.child.stderr.take().expect("stderr was asked for as a pipe");
        let refused = OnceLock::new();
        let Input { body, coding, measure } = &mut self.input;
        let feed = Feed {
            stdin: Some(stdin),
            measure: measure.as_mut(),
            refused: &refused,
            until: self.out.until().clone(),
            left: match self.service {
                // Git refuses a pack that is too large by itself, and says so; the rest is read so that its words arrive.
                Service::Push => self.limits.push_max_bytes.saturating_mul(2).max(FETCH_MAX_BYTES),
                Service::Fetch => FETCH_MAX_BYTES,
            },
            idle: self.limits.idle,
        };
        let over = self.out.until().clone();
        let grace = async {
            over.reached().await;
            sleep(GRACE).await;
        };
        let relay = async {
            match self.service {
                Service::Push => relay_packets(stdout, &mut self.out, &refused).await,
                Service::Fetch => relay_bytes(stdout, &mut self.out).await,
            }
        };
        let talk = async { tokio::join!(feed.run(body, *coding), relay, complaint(stderr)) };
        // Cancel-safe: when the grace is over, the pipes are dropped with the other side and the program is killed.
        let talked = tokio::select! {
            ((), relayed, said) = talk => Some((relayed, said)),
            () = grace => None,
        };
        let status = match &talked {
            Some(_) => timeout(GRACE, self.child.wait()).await.ok().and_then(Result::ok),
            None => None,
        };
        let (Some((relayed, said)), Some(status)) = (talked, status) else {
            tracing::warn!(service = %self.service, "git did not end in time and is killed");
            let _ = self.child.start_kill();
            return Outcome::Broken;
        };
        if let Some(&excess) = refused.get() {
            tracing::info!(reason = %excess, "a push was refused");
            return Outcome::Refused(excess);
        }
        if !status.success() {
            log(self.service, status, &said);
        }
        if disk_full(said.as_bytes()) && measure.as_ref().is_some_and(Measure::lines) {
            self.out.send(Ok(packet::line(DISK_FULL))).await;
        }
        match relayed {
            Ok(Relayed { lines, held }) if status.success() => {
                self.held = held;
                if lines { Outcome::Lines } else { Outcome::NoLines }
            }
            Ok(_) | Err(_) => Outcome::Broken,
        }
    }

    /// Gives the client what was held back, or cuts the response where git did not end well.
    pub(super) async fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Refused(excess) => {
                let report = self.input.measure.as_ref().map(|measure| measure.report(excess)).unwrap_or_default();
                let cut = report.is_empty();
                self.out.send(if cut { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(report) }).await;
            }
            Outcome::Broken => self.out.send(Err(io::ErrorKind::UnexpectedEof.into())).await,
            Outcome::Lines | Outcome::NoLines if self.held => self.out.send(Ok(FLUSH)).await,
            Outcome::Lines | Outcome::NoLines => {}
        }
    }
}

/// The way to the program.
struct Feed<'e> {
    /// `None` once the program reads no more.
    stdin: Option<ChildStdin>,
    measure: Option<&'e mut Measure>,
    /// Set, before its input is closed, where the program does not get the rest.
    refused: &'e OnceLock<Excess>,
    until: Until,
    /// How many bytes the client may still send.
    left: u64,
    idle: Duration,
}

impl Feed<'_> {
    /// Ends when the body does, is cut, or is too long, and when the time is over. Then the program's input is closed: git
    /// notices itself where something is missing.
    async fn run(mut self, body: &mut BodyDataStream, coding: Coding) {
        let mut unpack = match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(GzDecoder::new(Vec::new())),
        };
        loop {
            // Cancel-safe: a piece that is not received is part of a body that is given up.
            let piece = tokio::select! {
                piece = timeout(self.idle, body.next()) => piece,
                () = self.until.reached() => return,
            };
            let Ok(Some(Ok(piece))) = piece else { break };
            for part in piece.chunks(UNPACK_BYTES) {
                let go_on = match &mut unpack {
                    None => self.write(part).await,
                    Some(unpack) => {
                        unpack.write_all(part).is_ok() && self.write(&std::mem::take(unpack.get_mut())).await
                    }
                };
                if !go_on {
                    return;
                }
            }
        }
        if let Some(Ok(rest)) = unpack.map(GzDecoder::finish) {
            self.write(&rest).await;
        }
    }

    /// Whether to go on.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else { return false };
        self.left = left;
        let Some(stdin) = &mut self.stdin else { return true };
        if let Some(measure) = &mut self.measure {
            if let Err(excess) = measure.see(bytes) {
                // In this order: what git says of the missing rest is not passed on.
                let _first = self.refused.set(excess);
                self.stdin = None;
                return true;
            }
            // Inflating a part can take milliseconds; others have their turn between two of them.
            tokio::task::yield_now().await;
        }
        // Cancel-safe: what was written in part is part of an input that is given up.
        let written = tokio::select! {
            written = stdin.write_all(bytes) => written,
            () = self.until.reached() => return false,
        };
        if written.is_err() {
            // The program has said what it had to say. The rest is read nevertheless, for a client reads the answer last.
            self.stdin = None;
        }
        true
    }
}

/// What a program's output was.
#[derive(Default)]
struct Relayed {
    /// It was on side bands.
    lines: bool,
    /// Its last packet was an end, and was kept.
    held: bool,
}

/// Passes packets on, the last one excepted where it is an end. Reads to the end even without a client: a program whose
/// output nobody reads is killed by it.
/// Once the push is `refused`, git's words are of what it misses, and for nobody.
async fn relay_packets(stdout: ChildStdout, out: &mut Out, refused: &OnceLock<Excess>) -> io::Result<Relayed> {
    let mut stdout = BufReader::with_capacity(PIECE_BYTES, stdout);
    let mut relayed = Relayed::default();
    while let Some(packet) = packet::read(&mut stdout).await? {
        if refused.get().is_some() {
            continue;
        }
        if std::mem::take(&mut relayed.held) {
            out.send(Ok(FLUSH)).await;
        }
        relayed.lines |= packet.on_a_band();
        match packet {
            Packet::Flush => relayed.held = true,
            Packet::Data(data) => {
                let full = packet::for_people(&data) && disk_full(&data);
                out.send(Ok(data)).await;
                if full {
                    out.send(Ok(packet::line(DISK_FULL))).await;
                }
            }
        }
    }
    Ok(relayed)
}

/// Passes everything on, as long as there is a client.
async fn relay_bytes(mut stdout: ChildStdout, out: &mut Out) -> io::Result<Relayed> {
    while !out.gone() {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        if stdout.read_buf(&mut piece).await? == 0 {
            break;
        }
        out.send(Ok(piece.freeze())).await;
    }
    Ok(Relayed::default())
}

/// The beginning of what a program complains of; the rest is read and forgotten.
async fn complaint(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    // What cannot be read is not there to be logged.
    let _ = (&mut stderr).take(COMPLAINT_MAX_BYTES).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}
