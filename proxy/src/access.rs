//! One JSON line per request, written by a thread of its own.
//!
//! A request's record is queued when its [`crate::exchange::Exchange`] ends, whichever way that is. When the disk is slower
//! than the traffic, records are dropped and counted; requests never wait for it. No query, no header, no body is recorded.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
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

/// The workers' end. The log ends, flushed, when the last one is dropped.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: Option<SyncSender<Record>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the file and starts the thread.
    pub(crate) fn start(path: Option<PathBuf>, limits: &Limits) -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let lost = Arc::new(AtomicU64::new(0));
        let Some(path) = path else { return Ok((Self { queue: None, lost }, None)) };
        let file = open(&path, limits)?;
        let (queue, queued) = sync_channel(limits.access_queue);
        let thread = std::thread::Builder::new().name("dormouse-access".into()).spawn(move || write(file, &queued))?;
        Ok((Self { queue: Some(queue), lost }, Some(thread)))
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
}

fn open(path: &Path, limits: &Limits) -> io::Result<FileRotate<AppendCount>> {
    let mut options = OpenOptions::new();
    options.read(true).create(true).append(true).mode(0o600);
    // The rotating file says nothing when it cannot be opened.
    options.open(path)?;
    let limit = ContentLimit::BytesSurpassed(limits.access_file_bytes.max(1));
    Ok(FileRotate::new(path, AppendCount::new(limits.access_files), limit, Compression::None, Some(options)))
}

/// Lines are gathered while more wait, and are in the file whenever none does.
fn write(file: FileRotate<AppendCount>, queued: &Receiver<Record>) {
    let mut file = BufWriter::new(file);
    let mut failing = Failing::No;
    let mut line = Vec::new();
    while let Ok(record) = queued.recv() {
        let mut next = Some(record);
        while let Some(record) = next {
            line.clear();
            // Plain data; and a line that does not go out must not end the log.
            if serde_json::to_writer(&mut line, &record).is_ok() {
                line.push(b'\n');
                failing = failing.note(file.write_all(&line));
            }
            next = queued.try_recv().ok();
        }
        failing = failing.note(file.flush());
    }
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
