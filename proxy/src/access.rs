//! One JSON line per request, written by a thread of its own.
//!
//! A request's record is queued when its [`crate::exchange::Exchange`] ends, whichever way that is. When the disk is slower
//! than the traffic, or full, records are dropped and counted; requests never wait for it. No query, no header, no body is recorded.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

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

impl Record {
    /// Of nothing.
    pub(crate) fn empty() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            request_id: String::new(),
            app: String::new(),
            environment: String::new(),
            deployment: 0,
            instance: String::new(),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            protocol: "",
            tls: false,
            client: String::new(),
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            held_ms: 0,
            connect_ms: None,
            first_byte_ms: None,
            total_ms: 0,
            retries: 0,
            reused: false,
            woke: false,
            ended_by: EndedBy::Proxy,
            refused: "",
            lost_before: 0,
        }
    }
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
    ours: Arc<AtomicBool>,
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
        let (lost, ours) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(owner == Owner::This)));
        let Some(path) = path else { return Ok((Self { queue: None, lost, ours }, None)) };
        let file = Shared::open(path, limits, Arc::clone(&ours))?;
        let (queue, queued) = sync_channel(limits.access_queue);
        let counter = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("dormouse-access".into());
        let thread = thread.spawn(move || Writer::new(file, &counter).run(&queued))?;
        Ok((Self { queue: Some(queue), lost, ours }, Some(thread)))
    }

    /// Whether records are kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.queue.is_some()
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

    /// Says whose the files are, and waits for no disk: files may be renamed once more by a write that has begun.
    pub(crate) fn owned_by(&self, owner: Owner) {
        self.ours.store(owner == Owner::This, Ordering::SeqCst);
    }

    /// Gives up this end.
    pub(crate) fn close(&mut self) {
        self.queue = None;
    }
}

/// The file, which another process may have open, too. Whoever writes whole lines by one write mixes them with nobody's.
struct Shared {
    path: PathBuf,
    limit: usize,
    kept: usize,
    /// Whether files may be renamed here.
    ours: Arc<AtomicBool>,
    file: File,
}

enum File {
    Added(std::fs::File),
    Rotated(Box<FileRotate<AppendCount>>),
}

impl Shared {
    fn open(path: PathBuf, limits: &Limits, ours: Arc<AtomicBool>) -> io::Result<Self> {
        let file = File::Added(options().open(&path)?);
        Ok(Self { path, limit: limits.access_file_bytes.max(1), kept: limits.access_files, ours, file })
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A rotating file renames before it writes: this is the last look before that.
        let ours = self.ours.load(Ordering::SeqCst);
        // Opened anew if it changed hands: what one owner found out about the files is not true any more for the next.
        match (&self.file, ours) {
            (File::Added(_), true) => {
                // The rotating file says nothing when it cannot be opened.
                options().open(&self.path)?;
                let (kept, limit) = (AppendCount::new(self.kept), ContentLimit::BytesSurpassed(self.limit));
                let file = FileRotate::new(&self.path, kept, limit, Compression::None, Some(options()));
                self.file = File::Rotated(Box::new(file));
            }
            (File::Rotated(_), false) => self.file = File::Added(options().open(&self.path)?),
            _ => {}
        }
        match &mut self.file {
            File::Added(file) => file.write(bytes),
            File::Rotated(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            File::Added(file) => file.flush(),
            File::Rotated(file) => file.flush(),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true).append(true).mode(0o600);
    options
}

/// Lines are gathered up to this many bytes, and written together.
const GATHERED_BYTES: usize = 8 << 10;

/// How long the thread lets records gather after it has written: to be woken for each costs more than to write it.
const GATHERS_FOR: Duration = Duration::from_millis(5);

/// The thread's end: lines are gathered while more wait, and are in the file soon after. What the file does not take
/// is dropped and counted, so that a full disk costs records and nothing else.
struct Writer<'l, W> {
    file: W,
    lost: &'l AtomicU64,
    gathered: Vec<u8>,
    /// Records that are in `gathered`, and those that were lost before them.
    records: u64,
    state: State,
}

/// How the last write went.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Well,
    /// Not well: said once, not for each line. A line may have been written in part.
    Failing,
}

impl<'l, W: Write> Writer<'l, W> {
    fn new(file: W, lost: &'l AtomicU64) -> Self {
        Self { file, lost, gathered: Vec::with_capacity(GATHERED_BYTES), records: 0, state: State::Well }
    }

    fn run(mut self, queued: &Receiver<Record>) {
        while let Ok(record) = queued.recv() {
            let mut next = Some(record);
            while let Some(record) = next {
                self.gather(&record);
                next = queued.try_recv().ok();
            }
            self.write();
            std::thread::park_timeout(GATHERS_FOR);
        }
    }

    fn gather(&mut self, record: &Record) {
        let before = self.gathered.len();
        self.records += record.lost_before + 1;
        // Plain data; and a line that does not go out must not end the log.
        if serde_json::to_writer(&mut self.gathered, record).is_ok() {
            self.gathered.push(b'\n');
        } else {
            self.gathered.truncate(before);
        }
        if self.gathered.len() >= GATHERED_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.state == State::Failing {
            // Ends what may have been written in part.
            self.gathered.insert(0, b'\n');
        }
        let records = std::mem::take(&mut self.records);
        match self.file.write_all(&self.gathered).and_then(|()| self.file.flush()) {
            Ok(()) => self.state = State::Well,
            Err(error) => {
                if self.state == State::Well {
                    warn!(%error, "access records cannot be written; they are dropped and counted");
                }
                self.state = State::Failing;
                self.lost.fetch_add(records, Ordering::Relaxed);
            }
        }
        self.gathered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that has room for some bytes.
    struct Disk<'d> {
        room: usize,
        taken: &'d mut Vec<u8>,
    }

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(lost_before: u64) -> Record {
        Record { request_id: "r".into(), status: 200, lost_before, ..Record::empty() }
    }

    #[test]
    fn c21_what_a_full_disk_does_not_take_is_counted_and_the_next_line_is_whole() {
        let (lost, mut taken) = (AtomicU64::new(0), Vec::new());
        let mut writer = Writer::new(Disk { room: 20, taken: &mut taken }, &lost);
        writer.gather(&record(0));
        writer.gather(&record(3));
        writer.write();
        assert_eq!(lost.swap(0, Ordering::Relaxed), 5, "both, and those that were lost before them");
        writer.file.room = 10_000;
        writer.gather(&record(5));
        writer.write();
        assert_eq!(lost.load(Ordering::Relaxed), 0);
        let text = String::from_utf8(taken).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let whole: serde_json::Value = serde_json::from_str(lines[1]).expect("a whole line");
        assert_eq!(whole["lost_before"], 5);
    }

    #[test]
    fn whose_the_files_are_is_said_without_a_wait_for_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("a program");
        assert!(made.success());
        let limits = Limits { access_queue: 1, ..Limits::default() };
        let (log, _thread) = AccessLog::start(Some(path), &limits, Owner::This).expect("it opens");
        // Nobody reads: what the pipe does not hold is waited for, for ever.
        let deadline = SystemTime::now() + Duration::from_secs(60);
        let mut stuck = 0;
        while stuck < 100_000 {
            assert!(SystemTime::now() < deadline, "the disk never hung");
            let before = log.lost.load(Ordering::Relaxed);
            log.say(record(0));
            stuck = if log.lost.load(Ordering::Relaxed) > before { stuck + 1 } else { 0 };
        }
        let (said, heard) = sync_channel(1);
        std::thread::spawn(move || {
            log.owned_by(Owner::Another);
            said.send(()).expect("somebody waits");
        });
        heard.recv_timeout(Duration::from_secs(20)).expect("it waited for the disk");
    }
}
