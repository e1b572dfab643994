//! Bytes as they come → lines of text. Used for what containers and builds write.

/// The longest line, in bytes; a longer one is cut into several.
pub(super) const LINE_MAX: usize = 16 * 1024;

/// Collects bytes until a line is complete. Holds at most [`LINE_MAX`] bytes.
#[derive(Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Takes the next bytes; returns the lines they complete, without line ends.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_MAX) {
                if self.0.len() + part.len() > LINE_MAX + 1 {
                    self.cut(&mut lines);
                }
                self.0.extend_from_slice(part);
            }
            if piece.ends_with(b"\n") {
                self.0.pop();
                if self.0.ends_with(b"\r") {
                    self.0.pop();
                }
                emit(&std::mem::take(&mut self.0), &mut lines);
            }
        }
        lines
    }

    /// What is left when nothing more comes.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.0.is_empty() {
            emit(&std::mem::take(&mut self.0), &mut lines);
        }
        lines
    }

    /// Gives out an overlong line's beginning, and keeps a character that is not complete yet.
    fn cut(&mut self, lines: &mut Vec<String>) {
        let kept = match std::str::from_utf8(&self.0) {
            Err(error) if error.error_len().is_none() => self.0.split_off(error.valid_up_to()),
            _ => Vec::new(),
        };
        emit(&std::mem::replace(&mut self.0, kept), lines);
    }
}

/// What is not UTF-8 is replaced, which may lengthen the text: so it is cut here once more.
fn emit(bytes: &[u8], lines: &mut Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.as_ref();
    while rest.len() > LINE_MAX {
        let (line, more) = rest.split_at(rest.floor_char_boundary(LINE_MAX));
        lines.push(line.to_owned());
        rest = more;
    }
    lines.push(rest.to_owned());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\r\ntwo\n\n\x1b[31mred"), ["one", "two", ""]);
        assert_eq!(lines.push(b"\x1b[0m"), Vec::<String>::new());
        assert_eq!(lines.finish(), ["\x1b[31mred\x1b[0m"]);
        assert_eq!(lines.finish(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(Lines::default().push(b"a\xffb\n"), ["a\u{fffd}b"]);
    }

    #[test]
    fn an_endless_line_is_cut_between_characters() {
        let text = "é".repeat(LINE_MAX);
        let mut lines = Lines::default();
        let mut got: Vec<String> = text.as_bytes().chunks(1000).flat_map(|chunk| lines.push(chunk)).collect();
        got.extend(lines.finish());
        assert_eq!(got.concat(), text);
        assert!(got.len() > 1 && got.iter().all(|line| line.len() <= LINE_MAX));
    }

    proptest! {
        #[test]
        fn however_it_comes_the_lines_are_the_same(bytes: Vec<u8>, size in 1..50_usize) {
            let whole = { let mut lines = Lines::default(); let mut got = lines.push(&bytes); got.extend(lines.finish()); got };
            let mut lines = Lines::default();
            let mut got: Vec<String> = bytes.chunks(size).flat_map(|chunk| lines.push(chunk)).collect();
            got.extend(lines.finish());
            prop_assert_eq!(got, whole);
        }
    }
}
