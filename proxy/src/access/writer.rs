//! The access log's thread: gathers lines, and writes them together. What is not taken is dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tracing::warn;

use super::Loss;
use super::record::Record;

/// Lines are gathered up to this many bytes, and written together.
const GATHERED_BYTES: usize = 8 << 10;

/// How long the thread lets records gather after it has written: to be woken for each costs more than to write it.
const GATHERS_FOR: Duration = Duration::from_millis(5);

/// The thread's end: lines are gathered while more wait, and are in the file soon after. What the file does not take
/// is dropped and counted, so that a full disk costs records and nothing else.
pub(super) struct Writer<W> {
    file: W,
    loss: Arc<Loss>,
    /// What every line ends with: who wrote it.
    end: String,
    gathered: Vec<u8>,
    /// Records that are in `gathered`, and those of which they tell that they were lost before.
    records: (u64, u64),
    state: State,
}

/// How the last write went.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Well,
    /// Not well: said once, not for each line. A line may have been written in part.
    Failing,
}

impl<W: Write> Writer<W> {
    /// `edge` and `region` are told in every line.
    pub(super) fn new(file: W, loss: Arc<Loss>, (edge, region): (&str, &str)) -> Self {
        let end = serde_json::json!({"edge": edge, "region": region}).to_string();
        let end = format!(",{}\n", end.trim_start_matches('{'));
        Self { file, loss, end, gathered: Vec::with_capacity(GATHERED_BYTES), records: (0, 0), state: State::Well }
    }

    pub(super) fn run(mut self, queued: &Receiver<Record>) {
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
        self.records = (self.records.0 + 1, self.records.1 + record.lost_before);
        // Plain data; and a line that does not go out must not end the log.
        if serde_json::to_writer(&mut self.gathered, record).is_ok() {
            // The record's own brace makes place for the rest of the line.
            self.gathered.pop();
            self.gathered.extend(self.end.as_bytes());
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
        let (records, before) = std::mem::take(&mut self.records);
        match self.file.write_all(&self.gathered).and_then(|()| self.file.flush()) {
            Ok(()) => self.state = State::Well,
            Err(error) => {
                if self.state == State::Well {
                    warn!(%error, "access records cannot be written; they are dropped and counted");
                }
                self.state = State::Failing;
                self.loss.add(records, before);
            }
        }
        self.gathered.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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
        let (loss, mut taken) = (Arc::new(Loss::default()), Vec::new());
        let mut writer = Writer::new(Disk { room: 20, taken: &mut taken }, Arc::clone(&loss), ("one", "here"));
        writer.gather(&record(0));
        writer.gather(&record(3));
        writer.write();
        assert_eq!(loss.take(), 5, "both, and those that were lost before them");
        writer.file.room = 10_000;
        writer.gather(&record(5));
        writer.write();
        assert_eq!((loss.take(), loss.total()), (0, 2), "none is counted twice");
        let text = String::from_utf8(taken).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let whole: serde_json::Value = serde_json::from_str(lines[1]).expect("a whole line");
        assert_eq!(whole["lost_before"], 5);
        assert_eq!((&whole["edge"], &whole["region"]), (&"one".into(), &"here".into()));
    }
}
