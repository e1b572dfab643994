//! One JSON line per request, written by a thread of its own.
//!
//! A request's record is queued when its [`crate::exchange::Exchange`] ends, whichever way that is. When the disk is slower
//! than the traffic, or full, records are dropped and counted; requests never wait for it. No query, no header, no body is recorded.

mod output;
mod record;
mod syslog;
mod writer;

pub use output::{Output, OutputError};
pub(crate) use record::{EndedBy, HOST_MAX_BYTES, METHOD_MAX_BYTES, PATH_MAX_BYTES, Record, cut};
pub use syslog::SyslogAddress;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::config::Limits;
use syslog::Topic;
use writer::Writer;

/// The workers' end. The log ends, flushed, when the last one is dropped or closed.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: Option<SyncSender<Record>>,
    loss: Arc<Loss>,
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

/// Records that nobody will read.
#[derive(Debug, Default)]
struct Loss {
    /// Those that no later record told yet.
    untold: AtomicU64,
    total: AtomicU64,
}

impl Loss {
    /// Records were lost, and with them what they told of `before`.
    fn add(&self, records: u64, before: u64) {
        self.untold.fetch_add(records + before, Ordering::Relaxed);
        self.total.fetch_add(records, Ordering::Relaxed);
    }

    /// For the next record to tell.
    fn take(&self) -> u64 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

impl AccessLog {
    /// Opens what is written to, and starts the thread; every line tells the names of edge and region.
    pub(crate) fn start(
        to: Option<&Output>,
        limits: &Limits,
        owner: Owner,
        names: (&str, &str),
    ) -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let (loss, ours) = (Arc::new(Loss::default()), Arc::new(AtomicBool::new(owner == Owner::This)));
        let Some(to) = to else { return Ok((Self { queue: None, loss, ours }, None)) };
        let writer = Writer::new(to.open(limits, Arc::clone(&ours), Topic::Access)?, Arc::clone(&loss), names);
        let (queue, queued) = sync_channel(limits.access_queue);
        let thread = std::thread::Builder::new().name("dormouse-access".into());
        let thread = thread.spawn(move || writer.run(&queued))?;
        Ok((Self { queue: Some(queue), loss, ours }, Some(thread)))
    }

    /// Whether records are kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues a record, or counts it as lost.
    pub(crate) fn say(&self, mut record: Record) {
        let Some(queue) = &self.queue else { return };
        record.lost_before = self.loss.take();
        let before = record.lost_before;
        if queue.try_send(record).is_err() {
            self.loss.add(1, before);
        }
    }

    /// How many were lost so far.
    pub(crate) fn lost_total(&self) -> u64 {
        self.loss.total()
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn whose_the_files_are_is_said_without_a_wait_for_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("a program");
        assert!(made.success());
        let limits = Limits { access_queue: 1, ..Limits::default() };
        let (log, _thread) = AccessLog::start(Some(&path.into()), &limits, Owner::This, ("", "")).expect("it opens");
        // Nobody reads: what the pipe does not hold is waited for, for ever.
        let deadline = SystemTime::now() + Duration::from_secs(60);
        let mut stuck = 0;
        while stuck < 100_000 {
            assert!(SystemTime::now() < deadline, "the disk never hung");
            let before = log.lost_total();
            log.say(Record::empty());
            stuck = if log.lost_total() > before { stuck + 1 } else { 0 };
        }
        let (said, heard) = sync_channel(1);
        std::thread::spawn(move || {
            log.owned_by(Owner::Another);
            said.send(()).expect("somebody waits");
        });
        heard.recv_timeout(Duration::from_secs(20)).expect("it waited for the disk");
    }
}
