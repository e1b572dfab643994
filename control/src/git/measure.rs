//! A push, looked at while it passes to git: how many refs it names, and how large its pack is.
//!
//! What goes over a limit is not passed on. Git then misses the rest and changes nothing; its own complaint of that is
//! replaced by [`Measure::report`], which says the reason in the push's own output.

use bytes::{BufMut, Bytes, BytesMut};

use super::limits::{Excess, Limits};
use super::pack::Pack;
use super::packet::{self, FLUSH};

/// How long the list of refs in front of a pack may be, in bytes, whatever the other limits are.
const COMMANDS_MAX_BYTES: usize = 1 << 20;

/// The length of a name where no ref was told whose names show it.
const SHA1_BYTES: usize = 20;

/// A band's packet has at most this much of a report.
const REPORT_PIECE_BYTES: usize = 900;

/// What is known of a push so far.
pub(super) struct Measure {
    limits: Limits,
    /// How many refs the repository may still get.
    room: usize,
    /// What came of the list of refs and was not read yet.
    list: Vec<u8>,
    list_bytes: usize,
    refs: Vec<Vec<u8>>,
    answer: Answer,
    name_bytes: usize,
    /// `None` as long as the list lasts.
    pack: Option<Pack>,
}

/// How the client can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It asked for no report, or did not say yet.
    Not,
    /// By a report alone.
    Report,
    /// By a report on a side band, and lines beside it.
    Bands,
}

impl Measure {
    /// For a push to a repository that has so many refs.
    pub(super) fn new(limits: Limits, refs: usize) -> Self {
        Self {
            limits,
            room: limits.refs_max.saturating_sub(refs),
            list: Vec::new(),
            list_bytes: 0,
            refs: Vec::new(),
            answer: Answer::Not,
            name_bytes: SHA1_BYTES,
            pack: None,
        }
    }

    /// Looks at the next bytes of the push, before git gets them.
    pub(super) fn see(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        if let Some(pack) = &mut self.pack {
            return pack.see(bytes);
        }
        self.list_bytes = self.list_bytes.saturating_add(bytes.len().min(COMMANDS_MAX_BYTES));
        self.list.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(digits) = self.list.get(at..at + 4) {
            let length = packet::length(digits).ok_or(Excess::Unreadable)?;
            if length == 0 {
                let mut pack = Pack::new(self.limits, self.name_bytes);
                let seen = pack.see(&self.list[at + 4..]);
                self.list = Vec::new();
                self.pack = Some(pack);
                return seen;
            }
            let Some(line) = self.list.get(at + 4..at + length) else { break };
            let line = line.to_vec();
            at += length;
            self.command(&line)?;
        }
        self.list.drain(..at);
        if self.list_bytes > COMMANDS_MAX_BYTES { Err(Excess::PushRefs(self.limits.push_max_refs)) } else { Ok(()) }
    }

    /// `OLD NEW NAME`, the first one with what the client can do after a NUL.
    fn command(&mut self, line: &[u8]) -> Result<(), Excess> {
        if line.starts_with(b"shallow ") {
            return Ok(());
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut halves = line.splitn(2, |&byte| byte == 0);
        let command = halves.next().unwrap_or(line);
        if let (true, Some(abilities)) = (self.refs.is_empty(), halves.next()) {
            self.answer = Answer::of(abilities);
        }
        let mut words = command.splitn(3, |&byte| byte == b' ');
        let (Some(old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) else {
            return Err(Excess::Unreadable);
        };
        if old.len() != new.len() || !matches!(old.len(), 40 | 64) {
            return Err(Excess::Unreadable);
        }
        self.name_bytes = old.len() / 2;
        self.refs.push(name.to_vec());
        if name.len() > self.limits.ref_max_bytes {
            return Err(Excess::RefName(self.limits.ref_max_bytes));
        }
        if self.refs.len() > self.limits.push_max_refs {
            return Err(Excess::PushRefs(self.limits.push_max_refs));
        }
        if old.iter().all(|&digit| digit == b'0') {
            self.room = self.room.checked_sub(1).ok_or(Excess::Refs(self.limits.refs_max))?;
        }
        Ok(())
    }

    /// Whether the client shows lines.
    pub(super) fn lines(&self) -> bool {
        self.answer == Answer::Bands
    }

    /// The answer to a push that is refused: the reason for people, then each ref as not taken. Empty where the client
    /// asked for none.
    pub(super) fn report(&self, excess: Excess) -> Bytes {
        let mut report = BytesMut::new();
        if self.answer == Answer::Not {
            return report.freeze();
        }
        packet::put(&mut report, b"unpack ok\n");
        for name in &self.refs {
            packet::put(&mut report, &[b"ng ", &name[..], b" ", excess.short().as_bytes(), b"\n"].concat());
        }
        report.put_slice(&FLUSH);
        if self.answer == Answer::Report {
            return report.freeze();
        }
        let mut bands = BytesMut::from(&packet::line(&format!("Refused: {excess}."))[..]);
        for piece in report.chunks(REPORT_PIECE_BYTES) {
            packet::put(&mut bands, &[b"\x01", piece].concat());
        }
        bands.put_slice(&FLUSH);
        bands.freeze()
    }
}

impl Answer {
    fn of(abilities: &[u8]) -> Self {
        let has = |wanted: &[&[u8]]| abilities.split(|&byte| byte == b' ').any(|ability| wanted.contains(&ability));
        match (has(&[b"report-status", b"report-status-v2"]), has(&[b"side-band-64k"])) {
            (true, true) => Self::Bands,
            (true, false) => Self::Report,
            (false, _) => Self::Not,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "0000000000000000000000000000000000000000";
    const ONE: &str = "1111111111111111111111111111111111111111";

    fn limits() -> Limits {
        Limits { push_max_refs: 3, refs_max: 10, ref_max_bytes: 20, ..Limits::default() }
    }

    /// A list of commands; the first one with what git's client can do.
    fn list(commands: &[(&str, &str)], abilities: &str) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        for (at, (old, name)) in commands.iter().enumerate() {
            let abilities = if at == 0 { format!("\0 {abilities}") } else { String::new() };
            packet::put(&mut bytes, format!("{old} {ONE} {name}{abilities}").as_bytes());
        }
        bytes.put_slice(&FLUSH);
        bytes.to_vec()
    }

    fn seen(bytes: &[u8], refs: usize) -> Result<(), Excess> {
        let verdicts = [1, 5, 1 << 20].map(|pieces| {
            let mut measure = Measure::new(limits(), refs);
            bytes.chunks(pieces).try_for_each(|piece| measure.see(piece))
        });
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?}");
        verdicts[0]
    }

    #[test]
    fn c03_refs_are_counted_before_git_makes_any() {
        let named = |old, count: usize| vec![(old, "refs/heads/a"); count];
        assert_eq!(seen(&list(&named(NONE, 3), ""), 7), Ok(()));
        assert_eq!(seen(&list(&named(NONE, 4), ""), 0), Err(Excess::PushRefs(3)));
        assert_eq!(seen(&list(&named(NONE, 3), ""), 8), Err(Excess::Refs(10)));
        assert_eq!(seen(&list(&named(ONE, 3), ""), 10), Ok(()), "moving makes no new ones");
        assert_eq!(seen(&list(&[(NONE, &"x".repeat(21))], ""), 0), Err(Excess::RefName(20)));
        let shallow =
            [&b"0035shallow 1111111111111111111111111111111111111111\n"[..], &list(&named(NONE, 1), "")].concat();
        assert_eq!(seen(&shallow, 0), Ok(()));
        // However they are told.
        let endless = b"0035shallow 1111111111111111111111111111111111111111\n".repeat(30_000);
        assert_eq!(seen(&endless, 0), Err(Excess::PushRefs(3)));
    }

    #[test]
    fn what_is_no_list_of_refs_is_refused() {
        assert_eq!(seen(b"0000", 0), Ok(()), "a probe");
        for bad in ["0003", "zzzz", "000epush-cert\0", "0001", "0008a b c"] {
            assert_eq!(seen(bad.as_bytes(), 0), Err(Excess::Unreadable), "{bad}");
        }
        let difference_without_refs = b"0000PACK\0\0\0\x02\0\0\0\x01\x70111";
        assert_eq!(seen(difference_without_refs, 0), Ok(()), "which git does not read on");
        assert_eq!(seen(&[&list(&[(NONE, "a")], "")[..], b"no pack at all"].concat(), 0), Err(Excess::Unreadable));
    }

    #[test]
    fn the_answer_is_in_the_words_that_the_client_asked_for() {
        let report = |abilities: &str| {
            let mut measure = Measure::new(limits(), 0);
            measure.see(&list(&[(NONE, "refs/heads/a"), (NONE, "refs/tags/b")], abilities)).expect("two refs");
            (measure.lines(), measure.report(Excess::Object(5)))
        };
        assert_eq!(report("delete-refs"), (false, Bytes::new()));
        let plain = b"000eunpack ok\n0023ng refs/heads/a file too large\n0022ng refs/tags/b file too large\n0000";
        assert_eq!(report("report-status"), (false, Bytes::from_static(plain)));
        let (lines, bands) = report("report-status-v2 side-band-64k quiet");
        assert!(lines && bands.ends_with(&[&b"005c\x01"[..], plain, b"0000"].concat()), "{bands:?}");
        assert!(bands[4..].starts_with(b"\x02Refused: this push has a file larger than 5 bytes"), "{bands:?}");
    }

    #[test]
    fn the_report_of_many_refs_fits_the_packets() {
        let mut measure = Measure::new(Limits { push_max_refs: 1_000, refs_max: 2_000, ..limits() }, 0);
        let bytes = list(&vec![(NONE, "refs/heads/a"); 1_001], "report-status side-band-64k");
        let excess = measure.see(&bytes).expect_err("one too many");
        let report = measure.report(excess);
        let mut at = 0;
        while at < report.len() {
            let length = packet::length(&report[at..at + 4]).expect("a packet");
            assert!(length <= 1_000);
            at += length.max(4);
        }
        assert_eq!(at, report.len());
    }
}
