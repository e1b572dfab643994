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
            name_bytes: 0,
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
mod tests;
