//! The fence around one message: which of a connection's next bytes belong to the request that was let in.
//!
//! The head and its framing were checked by the gate; chunks are scanned here, strictly, as they pass (RFC 9112 section 7.1).
//! So no byte of the next request reaches whoever reads this one, however the bytes arrive.

/// Bytes of a chunk's size line, its extensions included.
const CHUNK_LINE_MAX: u16 = 256;
/// Bytes of a trailer section.
const TRAILER_MAX: u16 = 8 << 10;

/// How much follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Nothing.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks up to the last.
    Chunked,
}

/// Where in a message a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// So many bytes and no more.
    Length(u64),
    /// So many bytes of head, then chunks.
    Chunked(u64, Chunks),
    /// The message is over; what follows belongs to the next.
    Closed,
    /// The bytes are no message.
    Broken,
    /// Upgraded: there are no messages any more.
    Lifted,
}

/// Where in a chunked body a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the digits of a size: what they say so far, and how many there were.
    Size(u64, u8),
    /// After a size, in extensions: the size, and how long the line is.
    Extension(u64, u16),
    /// Before the line feed of a size line.
    SizeEnd(u64),
    /// In data.
    Data(u64),
    /// Before the carriage return after data.
    DataEnd,
    /// Before the line feed after data.
    DataEndLf,
    /// At the begin of a trailer line; how long the section is.
    TrailerBegin(u16),
    /// In a trailer line.
    Trailer(u16),
    /// Before the line feed of a trailer line.
    TrailerLf(u16),
    /// Before the last line feed.
    LastLf,
    /// Over.
    End,
}

impl Fence {
    /// Around a message whose head has `head` bytes.
    pub(crate) fn around(head: usize, framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Length(head as u64),
            Framing::Length(length) => Self::Length((head as u64).saturating_add(length)),
            Framing::Chunked => Self::Chunked(head as u64, Chunks::Size(0, 0)),
        }
    }

    /// Whether nothing of the message is missing.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// How many of the connection's next bytes belong to the message; they are passed by this.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Closed | Self::Broken => 0,
            Self::Lifted => bytes.len(),
            Self::Length(left) => {
                let passed = (bytes.len() as u64).min(*left);
                *left -= passed;
                if *left == 0 {
                    *self = Self::Closed;
                }
                passed as usize
            }
            Self::Chunked(head, chunks) => {
                let mut at = (bytes.len() as u64).min(*head) as usize;
                *head -= at as u64;
                while at < bytes.len() {
                    let Some((passed, next)) = chunks.step(&bytes[at..]) else {
                        *self = Self::Broken;
                        return at;
                    };
                    at += passed;
                    *chunks = next;
                    if next == Chunks::End {
                        *self = Self::Closed;
                        return at;
                    }
                }
                at
            }
        }
    }

    /// The most that a read may ask for without touching the next message, where that is known before reading.
    pub(crate) fn bound(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(0, Chunks::Data(left)) => Some(*left),
            _ => None,
        }
    }
}

impl Chunks {
    /// Takes at least one of the (not empty) bytes; none where they are no chunked body.
    fn step(self, bytes: &[u8]) -> Option<(usize, Self)> {
        let byte = bytes[0];
        let next = match self {
            Self::Size(size, digits) => match (byte, char::from(byte).to_digit(16)) {
                (_, Some(digit)) if digits < 15 => Self::Size(size << 4 | u64::from(digit), digits + 1),
                (b'\r', None) if digits > 0 => Self::SizeEnd(size),
                (b';', None) if digits > 0 => Self::Extension(size, 0),
                _ => return None,
            },
            Self::Extension(size, length) => match byte {
                b'\r' => Self::SizeEnd(size),
                b'\t' | b' '..=b'~' if length < CHUNK_LINE_MAX => Self::Extension(size, length + 1),
                _ => return None,
            },
            Self::SizeEnd(0) if byte == b'\n' => Self::TrailerBegin(0),
            Self::SizeEnd(size) if byte == b'\n' => Self::Data(size),
            Self::Data(left) => {
                let passed = (bytes.len() as u64).min(left);
                let next = if passed == left { Self::DataEnd } else { Self::Data(left - passed) };
                return Some((passed as usize, next));
            }
            Self::DataEnd if byte == b'\r' => Self::DataEndLf,
            Self::DataEndLf if byte == b'\n' => Self::Size(0, 0),
            Self::TrailerBegin(_) if byte == b'\r' => Self::LastLf,
            Self::TrailerBegin(length) | Self::Trailer(length) if length < TRAILER_MAX => match byte {
                b'\r' => Self::TrailerLf(length + 1),
                b'\n' | 0 => return None,
                _ => Self::Trailer(length + 1),
            },
            Self::TrailerLf(length) if byte == b'\n' => Self::TrailerBegin(length),
            Self::LastLf if byte == b'\n' => Self::End,
            _ => return None,
        };
        Some((1, next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Passes `bytes` in two pieces, split at `split`; what belongs to the message.
    fn passed(mut fence: Fence, bytes: &[u8], split: usize) -> (usize, Fence) {
        let first = fence.pass(&bytes[..split]);
        if first < split {
            return (first, fence);
        }
        (first + fence.pass(&bytes[split..]), fence)
    }

    #[test]
    fn p10_no_byte_of_the_next_request_passes_wherever_the_bytes_are_split() {
        let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bodies: [(Framing, &[u8]); 6] = [
            (Framing::Empty, b""),
            (Framing::Length(5), b"hello"),
            (Framing::Chunked, b"0\r\n\r\n"),
            (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\n"),
            (Framing::Chunked, b"5;a=\"b\"\r\nhello\r\nA\r\n0\r\n\r\n12345\r\n0\r\nx: y\r\n\r\n"),
            (Framing::Chunked, b"0\r\nexpires: 0\r\nb: c\r\n\r\n"),
        ];
        for (framing, body) in bodies {
            let whole = [head.as_slice(), body, next].concat();
            for split in 0..=whole.len() {
                let (count, fence) = passed(Fence::around(head.len(), framing), &whole, split);
                assert_eq!((count, fence), (head.len() + body.len(), Fence::Closed), "{framing:?} split at {split}");
            }
        }
    }

    #[test]
    fn p08_what_is_no_chunked_body_breaks_the_message() {
        for bad in [
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "5_\r\nhello\r\n",
            "\r\nhello",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "10000000000000000\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5;a\nb\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "5;\0\r\n",
        ] {
            for split in 0..=bad.len() {
                let (_, fence) = passed(Fence::around(0, Framing::Chunked), bad.as_bytes(), split);
                assert_eq!(fence, Fence::Broken, "{bad:?} split at {split}");
            }
        }
        let long = format!("5;{}\r\n", "a".repeat(300));
        assert_eq!(passed(Fence::around(0, Framing::Chunked), long.as_bytes(), 0).1, Fence::Broken);
    }

    #[test]
    fn nothing_passes_a_closed_or_broken_fence_and_everything_a_lifted_one() {
        assert_eq!(Fence::Closed.pass(b"x"), 0);
        assert_eq!(Fence::Broken.pass(b"x"), 0);
        assert_eq!(Fence::Lifted.pass(b"xyz"), 3);
    }

    proptest! {
        #[test]
        fn chunked_bytes_pass_alike_however_they_are_cut(
            bytes in "[0-9a-fx;\r\n]{0,40}", cuts in proptest::collection::vec(0usize..40, 0..6)
        ) {
            let bytes = bytes.as_bytes();
            let mut whole = Fence::around(0, Framing::Chunked);
            let count = whole.pass(bytes);
            let mut fence = Fence::around(0, Framing::Chunked);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut from, mut total) = (0, 0);
            for cut in cuts {
                total += fence.pass(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!((count, whole), (total, fence));
        }
    }
}
