//! The logs of builds and deployments: a file each, appended to line by line, read by whoever follows from where it left off.
//!
//! A reader that comes late, or again, loses nothing; a file that grows past its limit says so once and takes no more.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

/// The most that one log holds, in bytes.
const LOG_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The most that the lines about its end take beyond that.
const LAST_MAX_BYTES: u64 = 512 * 1024;

/// The most that one read returns, in bytes.
const READ_MAX_BYTES: u64 = 64 * 1024;

/// The longest line, in bytes; the rest of a longer one is dropped.
const LINE_MAX_BYTES: usize = 4096;

/// The folder of logs.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    changed: watch::Sender<u64>,
}

/// Which log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Log<'a> {
    /// What the engine said while it built.
    Build(&'a str),
    /// The steps of a deployment.
    Deployment(&'a str),
}

impl Journal {
    /// Takes a folder and makes it where it is missing.
    pub(crate) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), changed: watch::Sender::new(0) })
    }

    fn file(&self, log: Log<'_>) -> PathBuf {
        match log {
            Log::Build(id) => self.folder.join(format!("build-{id}.log")),
            Log::Deployment(id) => self.folder.join(format!("deployment-{id}.log")),
        }
    }

    /// Counts the writes: whoever follows looks again at each.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Appends a line. What cannot be written is dropped and logged: a full disk must not stop a deployment.
    pub(crate) fn say(&self, log: Log<'_>, line: &str) {
        self.append(log, line, LOG_MAX_BYTES);
    }

    /// Appends one of the few lines that tell how it ended, which has its place even where the log is full.
    pub(crate) fn say_last(&self, log: Log<'_>, line: &str) {
        self.append(log, line, LOG_MAX_BYTES + LAST_MAX_BYTES);
    }

    /// Whether lines were dropped because there were too many.
    pub(crate) fn is_full(&self, log: Log<'_>) -> bool {
        std::fs::metadata(self.file(log)).is_ok_and(|file| file.len() >= LOG_MAX_BYTES)
    }

    /// The last lines, at most `count`.
    pub(crate) fn last(&self, log: Log<'_>, count: usize) -> Vec<String> {
        let length = std::fs::metadata(self.file(log)).map_or(0, |file| file.len());
        // One more, as it begins in the middle of a line.
        let from = length.saturating_sub((count as u64 + 1) * LINE_MAX_BYTES as u64);
        let (mut lines, mut at) = (Vec::new(), from);
        while let Ok((more, after)) = self.read(log, at)
            && after > at
        {
            lines.extend(more);
            at = after;
        }
        if from > 0 && !lines.is_empty() {
            lines.remove(0);
        }
        lines.drain(..lines.len().saturating_sub(count));
        lines
    }

    fn append(&self, log: Log<'_>, line: &str, limit: u64) {
        if let Err(error) = self.try_append(log, line, limit) {
            tracing::warn!(%error, file = %self.file(log).display(), "a log line was not written");
        }
        self.changed.send_modify(|count| *count += 1);
    }

    fn try_append(&self, log: Log<'_>, line: &str, limit: u64) -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.file(log))?;
        let room = limit.saturating_sub(file.metadata()?.len());
        if room == 0 {
            return Ok(());
        }
        let end = line.floor_char_boundary(LINE_MAX_BYTES);
        let mut text = line[..end].replace(['\n', '\r'], " ");
        text.push('\n');
        if text.len() as u64 > room {
            // Fills the log to its end, so that this is said once and nothing follows it.
            let width = usize::try_from(room).unwrap_or(LINE_MAX_BYTES);
            text =
                format!("{:<width$}\n", "(the log is full; what follows is not kept)", width = width.saturating_sub(1));
        }
        file.write_all(text.as_bytes())
    }

    /// The whole lines from `offset`, and the offset after them. A log that does not exist yet is empty.
    pub(crate) fn read(&self, log: Log<'_>, offset: u64) -> std::io::Result<(Vec<String>, u64)> {
        let mut file = match std::fs::File::open(self.file(log)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), offset)),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(READ_MAX_BYTES).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = String::from_utf8_lossy(&bytes[..whole]).lines().map(str::to_owned).collect();
        Ok((lines, offset + whole as u64))
    }

    /// Removes the logs of builds and deployments whose ids are none of `owners`.
    pub(crate) fn retain(&self, owners: &[String]) {
        for file in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let id = name.strip_suffix(".log").and_then(|name| name.split_once('-')).map(|(_, id)| id);
            match id {
                Some(id) if !owners.iter().any(|owner| owner == id) => {
                    self.remove(if name.starts_with("build-") { Log::Build(id) } else { Log::Deployment(id) });
                }
                _ => {}
            }
        }
    }

    /// Removes a log.
    pub(crate) fn remove(&self, log: Log<'_>) {
        if let Err(error) = std::fs::remove_file(self.file(log))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %self.file(log).display(), "a log was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reader_gets_every_line_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        let log = Log::Build("b");
        assert_eq!(journal.read(log, 0).expect("no log yet"), (Vec::new(), 0));
        journal.say(log, "one");
        journal.say(log, "two\nlines");
        let (lines, offset) = journal.read(log, 0).expect("a log");
        assert_eq!(lines, ["one", "two lines"]);
        journal.say(log, "three");
        let (lines, end) = journal.read(log, offset).expect("a log");
        assert_eq!(lines, ["three"]);
        assert_eq!(journal.read(log, end).expect("a log"), (Vec::new(), end));
    }

    #[test]
    fn logs_without_an_owner_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        for log in [Log::Build("a"), Log::Build("b"), Log::Deployment("a"), Log::Deployment("c")] {
            journal.say(log, "line");
        }
        journal.retain(&["a".to_owned()]);
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|file| file.file_name()).collect();
        left.sort();
        assert_eq!(left, ["build-a.log", "deployment-a.log"]);
    }

    #[test]
    fn a_flood_fills_the_log_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        let line = "x".repeat(LINE_MAX_BYTES * 2);
        for _ in 0..(LOG_MAX_BYTES / LINE_MAX_BYTES as u64 + 10) {
            journal.say(Log::Deployment("d"), &line);
        }
        let length = std::fs::metadata(folder.path().join("deployment-d.log")).expect("a log").len();
        assert!(length <= LOG_MAX_BYTES + 100, "{length}");
        let text = std::fs::read_to_string(folder.path().join("deployment-d.log")).expect("a log");
        assert_eq!(text.matches("the log is full").count(), 1);
        assert!(text.trim_end().ends_with("what follows is not kept)"), "nothing follows it");
        assert!(journal.is_full(Log::Deployment("d")));
        journal.say_last(Log::Deployment("d"), "how it ended");
        assert_eq!(journal.last(Log::Deployment("d"), 1), ["how it ended"]);
        assert_eq!(journal.last(Log::Deployment("d"), 50).len(), 50, "though they are as long as lines can be");
    }
}
