//! One JSON line per request, written by a thread of its own.
//!
//! A request's record is queued when its [`crate::exchange::Exchange`] ends, whichever way that is. When the disk is slower
//! than the traffic, records are dropped and counted; requests never wait for it. No query, no header, no body is recorded.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, TimePrecision};
use tracing::warn;

use crate::config::Limits;

/// Bytes of lines that are gathered for one write, but for the last line.
const GATHERED: usize = 8 << 10;

/// RFC 3339 with milliseconds.
const TIME: Iso8601<
    {
        let precision = TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(3) };
        Config::DEFAULT.set_time_precision(precision).encode()
    },
> = Iso8601;

/// What is known of a request when it has ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: SystemTime,
    pub(crate) request_id: String,
    pub(crate) app: String,
    pub(crate) environment: String,
    pub(crate) deployment: u64,
    pub(crate) instance: String,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    pub(crate) tls: bool,
    pub(crate) client: String,
    /// 0 where no answer was begun.
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) held_ms: u64,
    pub(crate) connect_ms: Option<u64>,
    pub(crate) first_byte_ms: Option<u64>,
    pub(crate) total_ms: u64,
    pub(crate) retries: u32,
    pub(crate) reused: bool,
    pub(crate) woke: bool,
    pub(crate) ended_by: EndedBy,
    /// Why it was refused, in one word; empty where it was not.
    pub(crate) refused: &'static str,
    /// Records lost before this one, since the last that was not.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) lost_before: u64,
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndedBy {
    /// The instance, by an answer that came through whole.
    Instance,
    /// The client, by leaving.
    Client,
    /// This proxy, by an answer of its own, a limit, or its own end.
    Proxy,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let text = OffsetDateTime::from(*time).format(&TIME).map_err(serde::ser::Error::custom)?;
    to.serialize_str(&text)
}

/// The workers' end. The log ends, flushed, when the last one is dropped or closed.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: Option<SyncSender<Record>>,
    lost: Arc<AtomicU64>,
    owner: Arc<Mutex<Owner>>,
}

/// Who may rename the files. Two processes that did would write over each other's full ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This process.
    This,
    /// The one before or after it, which writes to the same file: lines are only added, to the file that is open even after
    /// it got another name.
    Another,
}

impl AccessLog {
    /// Opens the file and starts the thread.
    pub(crate) fn start(
        path: Option<PathBuf>,
        limits: &Limits,
        owner: Owner,
    ) -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let (lost, owner) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(owner)));
        let Some(path) = path else { return Ok((Self { queue: None, lost, owner }, None)) };
        let log = Log::open(path, limits)?;
        let (queue, queued) = sync_channel(limits.access_queue);
        let of = Arc::clone(&owner);
        let write = move || log.write(&queued, &of);
        let thread = std::thread::Builder::new().name("dormouse-access".into()).spawn(write)?;
        Ok((Self { queue: Some(queue), lost, owner }, Some(thread)))
    }

    /// Queues a record, or counts it as lost.
    pub(crate) fn say(&self, mut record: Record) {
        let Some(queue) = &self.queue else { return };
        record.lost_before = self.lost.swap(0, Ordering::Relaxed);
        let lost = record.lost_before + 1;
        if queue.try_send(record).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Says whose the files are. When it returns, nothing is renamed here any more unless they are ours.
    pub(crate) fn owned_by(&self, owner: Owner) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
    }

    /// Gives up this end.
    pub(crate) fn close(&mut self) {
        self.queue = None;
    }
}

/// The file, as the thread has it open.
struct Log {
    path: PathBuf,
    limit: usize,
    kept: usize,
    file: File,
}

enum File {
    Shared(std::fs::File),
    Rotated(Box<FileRotate<AppendCount>>),
}

impl Log {
    fn open(path: PathBuf, limits: &Limits) -> io::Result<Self> {
        let file = File::Shared(options().open(&path)?);
        Ok(Self { path, limit: limits.access_file_bytes.max(1), kept: limits.access_files, file })
    }

    /// Opens it anew if it changed hands. What one owner found out about the files is not true any more for the next.
    fn turn_to(&mut self, owner: Owner) -> io::Result<()> {
        match (&self.file, owner) {
            (File::Shared(_), Owner::This) => {
                // The rotating file says nothing when it cannot be opened.
                options().open(&self.path)?;
                let (kept, limit) = (AppendCount::new(self.kept), ContentLimit::BytesSurpassed(self.limit));
                let file = FileRotate::new(&self.path, kept, limit, Compression::None, Some(options()));
                self.file = File::Rotated(Box::new(file));
            }
            (File::Rotated(_), Owner::Another) => self.file = File::Shared(options().open(&self.path)?),
            _ => {}
        }
        Ok(())
    }

    /// Lines are gathered while more wait, and are in the file whenever none does.
    fn write(mut self, queued: &Receiver<Record>, owner: &Mutex<Owner>) {
        let mut failing = Failing::No;
        let mut lines = Vec::with_capacity(GATHERED);
        while let Ok(record) = queued.recv() {
            let mut next = Some(record);
            while let Some(record) = next {
                let whole = lines.len();
                // Plain data; and a line that does not go out must not end the log.
                match serde_json::to_writer(&mut lines, &record) {
                    Ok(()) => lines.push(b'\n'),
                    Err(_) => lines.truncate(whole),
                }
                next = if lines.len() < GATHERED { queued.try_recv().ok() } else { None };
            }
            // Held while it is written, and so while files are renamed.
            let owner = owner.lock().unwrap_or_else(PoisonError::into_inner);
            let turned = self.turn_to(*owner);
            failing = failing.note(self.append(&lines).and(turned));
            drop(owner);
            lines.clear();
        }
    }

    /// Whole lines by one write, so that two processes do not mix theirs.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.file {
            File::Shared(file) => file.write_all(lines),
            File::Rotated(file) => file.write_all(lines),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true).append(true).mode(0o600);
    options
}

/// Whether the last write failed; said once, not for each line.
#[derive(Clone, Copy, PartialEq)]
enum Failing {
    No,
    Yes,
}

impl Failing {
    fn note(self, result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::No,
            Err(error) => {
                if self == Self::No {
                    warn!(%error, "access records cannot be written");
                }
                Self::Yes
            }
        }
    }
}
