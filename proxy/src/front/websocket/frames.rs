//! One direction of a WebSocket connection, frame by frame (RFC 6455 section 5.2): where frames end, and what they are.
//!
//! It judges nothing: what an endpoint would refuse passes like anything else, so that both ends come to the verdict that they
//! would come to without an edge between them. Payloads are not looked at, but for their length.

/// The longest length of a payload field in bytes, after the seven bits that say so.
const LENGTH_64: u8 = 8;
const LENGTH_16: u8 = 2;
/// The seven bits that stand for the two.
const IS_64: u8 = 127;
const IS_16: u8 = 126;
const MASK_BYTES: u64 = 4;
/// The bit of an opcode that all control frames have, those that are not known yet included.
const CONTROL: u8 = 0x8;
const CLOSE: u8 = 0x8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A part of a message.
    Data,
    /// A ping or a pong.
    Control,
    /// The end: its sender sends no other frame.
    Close,
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    at: At,
    /// Of the frame that runs, or ran last.
    kind: Kind,
    /// A whole Close has passed.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Between two frames.
    Begin,
    /// Before the byte that has the mask's bit and the short length.
    Second,
    /// In a longer length: so many bytes of it are missing; what it says so far; and what follows it beside the payload.
    Length(u8, u64, u64),
    /// In what follows the length.
    Rest(u64),
}

impl Default for Frames {
    fn default() -> Self {
        Self { at: At::Begin, kind: Kind::Control, closed: false }
    }
}

impl Frames {
    /// Takes bytes, up to the end of the frame that they are of at most; says how many, and what the frame is. Of no bytes it
    /// takes none.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, Kind) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
            if self.at == At::Begin {
                self.closed |= self.kind == Kind::Close;
                break;
            }
        }
        (at, self.kind)
    }

    /// Whether another frame can begin here.
    pub(crate) fn is_between(&self) -> bool {
        self.at == At::Begin
    }

    /// Whether its sender has said the last that it has to say.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes at least one of the (not empty) bytes.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        let (taken, next) = match self.at {
            At::Begin => {
                self.kind = match byte & 0xf {
                    CLOSE => Kind::Close,
                    opcode if opcode & CONTROL != 0 => Kind::Control,
                    _ => Kind::Data,
                };
                (1, At::Second)
            }
            At::Second => {
                let mask = if byte & 0x80 != 0 { MASK_BYTES } else { 0 };
                let next = match byte & 0x7f {
                    IS_64 => At::Length(LENGTH_64, 0, mask),
                    IS_16 => At::Length(LENGTH_16, 0, mask),
                    length => At::Rest(mask + u64::from(length)),
                };
                (1, next)
            }
            At::Length(missing, length, mask) => {
                let length = length << 8 | u64::from(byte);
                let next = if missing > 1 {
                    At::Length(missing - 1, length, mask)
                } else {
                    At::Rest(length.saturating_add(mask))
                };
                (1, next)
            }
            At::Rest(left) => {
                let taken = left.min(bytes.len() as u64);
                (taken as usize, At::Rest(left - taken))
            }
        };
        self.at = if next == At::Rest(0) { At::Begin } else { next };
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame, with what follows its opcode as its sender says.
    fn frame(first: u8, masked: bool, length_of: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match length_of {
            0 => bytes.push(mask | payload.len() as u8),
            1 => {
                bytes.push(mask | 126);
                bytes.extend((payload.len() as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(if masked { vec![7; 4] } else { vec![] });
        bytes.extend(payload);
        bytes
    }

    /// All frames that end in these bytes: what each was, and where it ended.
    fn ends(bytes: &[u8], cuts: &[usize]) -> (Vec<(Kind, usize)>, Frames) {
        let (mut frames, mut ends, mut from) = (Frames::default(), Vec::new(), 0);
        for &cut in cuts {
            while from < cut {
                let (taken, kind) = frames.take(&bytes[from..cut]);
                assert!(taken > 0);
                from += taken;
                if frames.is_between() {
                    ends.push((kind, from));
                }
            }
        }
        (ends, frames)
    }

    /// The same, read plainly from whole bytes.
    fn naive(bytes: &[u8]) -> Vec<(Kind, usize)> {
        let (mut at, mut ends) = (0, Vec::new());
        loop {
            let rest = &bytes[at..];
            let Some((&first, &second)) = rest.first().zip(rest.get(1)) else { return ends };
            let number = |from: usize, to: usize| {
                rest.get(from..to).map(|bytes| bytes.iter().fold(0, |sum, byte| sum * 256 + u128::from(*byte)))
            };
            let (head, length) = match second % 128 {
                126 => (4, number(2, 4)),
                127 => (10, number(2, 10)),
                short => (2, Some(u128::from(short))),
            };
            let Some(length) = length else { return ends };
            let all = head + length + if second >= 128 { 4 } else { 0 };
            if all > rest.len() as u128 {
                return ends;
            }
            at += all as usize;
            let kind = match first % 16 {
                8 => Kind::Close,
                9.. => Kind::Control,
                _ => Kind::Data,
            };
            ends.push((kind, at));
        }
    }

    #[test]
    fn each_length_ends_where_it_says_and_each_opcode_is_what_it_is() {
        for (length_of, length) in [(0, 0), (0, 1), (0, 125), (1, 0), (1, 126), (1, 65_535), (2, 3), (2, 65_536)] {
            for (first, kind) in [
                (0x80, Kind::Data),
                (0x01, Kind::Data),
                (0xc2, Kind::Data),
                (0x83, Kind::Data),
                (0x88, Kind::Close),
                (0x89, Kind::Control),
                (0x8a, Kind::Control),
                (0x8f, Kind::Control),
            ] {
                for masked in [false, true] {
                    let bytes = frame(first, masked, length_of, &vec![0x88; length]);
                    let mut frames = Frames::default();
                    let next = [&bytes[..], &[0x88, 0x00]].concat();
                    assert_eq!(frames.take(&next), (bytes.len(), kind));
                    assert_eq!((frames.is_between(), frames.is_closed()), (true, kind == Kind::Close));
                }
            }
        }
    }

    #[test]
    fn a_close_is_seen_when_it_is_whole_and_the_longest_length_overflows_nothing() {
        let mut frames = Frames::default();
        frames.take(&[0x88, 0x02, 0x03]);
        assert!(!frames.is_between() && !frames.is_closed());
        frames.take(&[0xe8]);
        assert!(frames.is_between() && frames.is_closed());
        let mut frames = Frames::default();
        frames.take(&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(frames.take(&[0; 1000]), (1000, Kind::Data));
        assert!(!frames.is_between());
    }

    proptest! {
        #[test]
        fn frames_are_those_of_a_plain_reader_and_cuts_do_not_matter(
            frames in proptest::collection::vec(
                (any::<u8>(), any::<bool>(), 0_u8..3, proptest::collection::vec(any::<u8>(), 0..120)), 0..8),
            tail in proptest::collection::vec(any::<u8>(), 0..14),
            cuts in proptest::collection::vec(0_usize..1500, 0..12),
        ) {
            let mut bytes: Vec<u8> =
                frames.iter().flat_map(|(first, masked, of, payload)| frame(*first, *masked, *of, payload)).collect();
            bytes.extend(tail);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            let (whole, end) = ends(&bytes, &[bytes.len()]);
            prop_assert_eq!(&whole, &naive(&bytes));
            prop_assert_eq!((whole, end), ends(&bytes, &cuts));
        }
    }
}
