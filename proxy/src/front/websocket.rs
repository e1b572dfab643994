//! A WebSocket's tunnel as the connection sees it: both directions, frame by frame, and a Close for each where the edge ends it.
//!
//! A Close goes between two frames and is the last of its direction: what comes after it is dropped, for neither side may be sent
//! anything behind a Close (RFC 6455 section 5.5.1). Pure; `front::conn` asks for each piece of a tunnel, and nobody else has one.

pub(crate) mod frames;

use crate::live::lasting::Moved;
use frames::{Frames, Kind};

/// "Going away" (RFC 6455 section 7.4.1), whyever the edge ends a tunnel. Clients come again for 1001 as they do for 1012, which
/// is younger, and asks them for a delay that nobody needs: tunnels are ended one by one.
pub(crate) const CLOSE: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The same as a client says it. The mask may be known to all, as nobody can choose what it hides.
pub(crate) const CLOSE_MASKED: [u8; 8] = [0x88, 0x82, 0x5a, 0xa5, 0x3c, 0xc3, 0x03 ^ 0x5a, 0xe9 ^ 0xa5];

/// Where the status stands in an answer's head.
const STATUS: std::ops::Range<usize> = 9..12;

/// Both directions.
#[derive(Debug, Default)]
pub(crate) struct Tunnel {
    heads: Heads,
    pub(crate) to_client: Way,
    pub(crate) to_instance: Way,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Way {
    frames: Frames,
    /// Bytes of a Close that went out.
    said: usize,
}

impl Tunnel {
    /// Takes bytes of the answer's head, and says how many were; the rest are the tunnel's. Not asked once that has begun.
    pub(crate) fn head(&mut self, bytes: &[u8]) -> usize {
        self.heads.take(bytes)
    }

    /// Whether the tunnel has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.heads.over
    }
}

impl Way {
    /// Notes bytes that pass, and tells what they are.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> Moved {
        let mut moved = Moved::Signs;
        while !bytes.is_empty() {
            let (taken, kind) = self.frames.take(bytes);
            if kind == Kind::Data {
                moved = Moved::Data;
            }
            bytes = &bytes[taken..];
        }
        moved
    }

    /// How many of these bytes belong to the frame that has begun.
    pub(crate) fn rest(&self, bytes: &[u8]) -> usize {
        if self.is_between() { 0 } else { self.frames.clone().take(bytes).0 }
    }

    /// Whether it is between two frames.
    pub(crate) fn is_between(&self) -> bool {
        self.frames.is_between()
    }

    /// Whether its own end has said the last.
    pub(crate) fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    /// What of `close` is to be said yet, of a direction that is to end here.
    pub(crate) fn left<'c>(&self, close: &'c [u8]) -> &'c [u8] {
        if self.is_closed() { &[] } else { close.get(self.said..).unwrap_or_default() }
    }

    /// Notes that so many bytes of that were said.
    pub(crate) fn say(&mut self, count: usize) {
        self.said += count;
    }
}

/// The heads of an answer, up to the end of the 101's: interim ones may come before it, in one piece with it.
#[derive(Debug, Default)]
struct Heads {
    /// Bytes of the head that runs.
    bytes: usize,
    /// How far its status is that of a 101.
    matched: usize,
    /// Bytes of the empty line at its end that are there.
    end: usize,
    over: bool,
}

impl Heads {
    fn take(&mut self, bytes: &[u8]) -> usize {
        const END: &[u8] = b"\r\n\r\n";
        for (at, &byte) in bytes.iter().enumerate() {
            if STATUS.contains(&self.bytes) && byte == b"101"[self.bytes - STATUS.start] {
                self.matched += 1;
            }
            self.bytes += 1;
            self.end = if byte == END[self.end] { self.end + 1 } else { usize::from(byte == END[0]) };
            if self.end == END.len() {
                self.over = self.matched == STATUS.len();
                (self.bytes, self.matched, self.end) = (0, 0, 0);
                if self.over {
                    return at + 1;
                }
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: &[u8] =
        b"HTTP/1.1 103 Early Hints\r\nLink: </101>\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n";

    #[test]
    fn a_tunnel_begins_after_the_101_however_its_head_comes() {
        for step in 1..HEADS.len() {
            let (mut tunnel, mut head) = (Tunnel::default(), 0);
            for piece in [HEADS, b"\x81\x00\r\n\r\n"].concat().chunks(step) {
                let mut piece = piece;
                while !piece.is_empty() && !tunnel.has_begun() {
                    let count = tunnel.head(piece);
                    head += count;
                    piece = &piece[count..];
                }
            }
            assert_eq!((head, tunnel.has_begun()), (HEADS.len(), true), "in pieces of {step}");
        }
    }

    #[test]
    fn a_close_goes_between_two_frames_and_not_behind_another() {
        let mut way = Way::default();
        assert_eq!(way.left(&CLOSE), CLOSE);
        assert_eq!(way.pass(&[0x81, 0x03, b'a']), Moved::Data);
        assert!(!way.is_between());
        assert_eq!(way.rest(b"bc\x81\x00"), 2);
        assert_eq!(way.pass(b"bc"), Moved::Data);
        assert_eq!((way.is_between(), way.rest(b"\x81\x00")), (true, 0));
        way.say(3);
        assert_eq!(way.left(&CLOSE), &CLOSE[3..]);
        way.pass(&[0x88, 0x00]);
        assert!(way.left(&CLOSE).is_empty());
    }

    #[test]
    fn p90_pings_and_a_close_are_no_data_and_a_part_of_a_message_is() {
        let mut way = Way::default();
        assert_eq!(way.pass(&[0x89, 0x02, 1, 2, 0x8a, 0x00]), Moved::Signs);
        assert_eq!(way.pass(&[0x89, 0x00, 0x82, 0x02]), Moved::Data);
        assert_eq!(way.pass(&[1]), Moved::Data);
        assert_eq!(way.pass(&[2, 0x89, 0x00]), Moved::Data);
        assert_eq!(way.pass(&[0x89, 0x00, 0x88, 0x00]), Moved::Signs);
    }

    #[test]
    fn both_closes_say_1001() {
        let code = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(code(&CLOSE[2..]), 1001);
        let unmasked: Vec<_> =
            CLOSE_MASKED[6..].iter().zip(&CLOSE_MASKED[2..]).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(code(&unmasked), 1001);
        let mut frames = Frames::default();
        assert_eq!(frames.take(&CLOSE_MASKED), (8, Kind::Close));
        assert!(frames.is_closed());
    }
}
