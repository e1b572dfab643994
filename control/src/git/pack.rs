//! A pack, measured while it passes: how large its objects are once they are unpacked, found out before git unpacks them.
//!
//! Each object says its size in front, so most of what is too large is known before a byte of it is inflated. Of a
//! difference to another object the sizes of both the difference and its result count: the result is what git holds in
//! memory. Nothing here is kept but counters; what is no pack is an error.

use flate2::{Decompress, FlushDecompress, Status};

use super::limits::{Excess, Limits};

/// `PACK`, the version, and how many objects there are.
const HEADER_BYTES: usize = 12;

/// A difference begins with two sizes, of at most this many bytes together.
const SIZES_MAX_BYTES: usize = 20;

/// How much is inflated at once.
const SCRATCH_BYTES: usize = 16 << 10;

/// A pack on its way.
pub(super) struct Pack {
    limits: Limits,
    /// The length of a name in this repository's hash, in bytes.
    name_bytes: usize,
    received: u64,
    unpacked: u64,
    objects: u32,
    at: At,
    inflate: Decompress,
    scratch: Box<[u8]>,
}

/// Where in the pack.
enum At {
    Header(Vec<u8>),
    /// In the type and size of an object.
    Size {
        kind: u8,
        size: u64,
        shift: u32,
    },
    /// In the name of what a difference is to; so many bytes are missing.
    Name {
        size: u64,
        missing: usize,
    },
    /// In the place of what a difference is to; so many bytes came.
    Place {
        size: u64,
        came: usize,
    },
    /// In an object's deflated bytes.
    Body {
        size: u64,
        came: u64,
        sizes: Option<Vec<u8>>,
    },
    /// After the last object. What follows is git's own to judge.
    End,
}

impl Pack {
    pub(super) fn new(limits: Limits, name_bytes: usize) -> Self {
        Self {
            limits,
            name_bytes,
            received: 0,
            unpacked: 0,
            objects: 0,
            at: At::Header(Vec::with_capacity(HEADER_BYTES)),
            inflate: Decompress::new(true),
            scratch: vec![0; SCRATCH_BYTES].into(),
        }
    }

    /// Looks at the next bytes.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while !bytes.is_empty() && !matches!(self.at, At::End) {
            let used = self.step(bytes)?;
            self.received += used as u64;
            if self.received > self.limits.push_max_bytes {
                return Err(Excess::Push(self.limits.push_max_bytes));
            }
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Whether every object was seen.
    #[cfg(test)]
    pub(super) fn whole(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// Takes at least one of `bytes`, and says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Excess> {
        let first = bytes[0];
        match &mut self.at {
            At::Header(header) => {
                header.push(first);
                if let Ok(header) = <[u8; HEADER_BYTES]>::try_from(&header[..]) {
                    self.begin(header)?;
                }
            }
            At::Size { kind, size, shift } => {
                if *shift == 0 {
                    (*kind, *size, *shift) = (first >> 4 & 7, u64::from(first & 15), 4);
                } else {
                    *size |= shifted(first, *shift)?;
                    *shift += 7;
                }
                if first & 0x80 == 0 {
                    let (kind, size) = (*kind, *size);
                    self.at = self.object(kind, size)?;
                }
            }
            At::Name { size, missing } => {
                *missing -= 1;
                if *missing == 0 {
                    self.at = At::Body { size: *size, came: 0, sizes: Some(Vec::with_capacity(SIZES_MAX_BYTES)) };
                }
            }
            At::Place { size, came } => {
                *came += 1;
                if first & 0x80 == 0 {
                    self.at = At::Body { size: *size, came: 0, sizes: Some(Vec::with_capacity(SIZES_MAX_BYTES)) };
                } else if *came == SIZES_MAX_BYTES / 2 {
                    return Err(Excess::Unreadable);
                }
            }
            At::Body { .. } => return self.body(bytes),
            At::End => {}
        }
        Ok(1)
    }

    fn begin(&mut self, header: [u8; HEADER_BYTES]) -> Result<(), Excess> {
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..4] != b"PACK" || !matches!(number(4), 2 | 3) {
            return Err(Excess::Unreadable);
        }
        self.objects = number(8);
        if self.objects > self.limits.objects_max {
            return Err(Excess::Objects(self.limits.objects_max));
        }
        self.at = if self.objects == 0 { At::End } else { next() };
        Ok(())
    }

    fn object(&mut self, kind: u8, size: u64) -> Result<At, Excess> {
        self.count(size)?;
        match kind {
            // Commit, tree, file, tag.
            1..=4 => Ok(At::Body { size, came: 0, sizes: None }),
            6 => Ok(At::Place { size, came: 0 }),
            7 => Ok(At::Name { size, missing: self.name_bytes }),
            _ => Err(Excess::Unreadable),
        }
    }

    fn count(&mut self, size: u64) -> Result<(), Excess> {
        if size > self.limits.object_max_bytes {
            return Err(Excess::Object(self.limits.object_max_bytes));
        }
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.unpacked_max_bytes {
            return Err(Excess::Unpacked(self.limits.unpacked_max_bytes));
        }
        Ok(())
    }

    /// Inflates until the object or the input ends.
    fn body(&mut self, bytes: &[u8]) -> Result<usize, Excess> {
        let At::Body { size, came, sizes } = &mut self.at else { return Ok(0) };
        let mut used = 0;
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&bytes[used..], &mut self.scratch, FlushDecompress::None);
            let status = status.map_err(|_| Excess::Unreadable)?;
            // Both are at most the lengths of what was given.
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            used += read;
            *came += written as u64;
            if *came > *size {
                return Err(Excess::Unreadable);
            }
            if let Some(sizes) = sizes {
                let room = SIZES_MAX_BYTES.saturating_sub(sizes.len());
                sizes.extend_from_slice(&self.scratch[..written.min(room)]);
            }
            match status {
                Status::StreamEnd => break,
                // It has taken all, and has no more to give.
                _ if used == bytes.len() && written < self.scratch.len() => return Ok(used),
                _ if read == 0 && written == 0 => return Err(Excess::Unreadable),
                _ => {}
            }
        }
        let whole = came == size;
        let result = sizes.as_deref().map(result_of).transpose()?;
        self.inflate.reset(true);
        self.count(result.unwrap_or(0))?;
        self.objects -= 1;
        self.at = if self.objects == 0 { At::End } else { next() };
        if whole { Ok(used) } else { Err(Excess::Unreadable) }
    }
}

/// Before an object.
fn next() -> At {
    At::Size { kind: 0, size: 0, shift: 0 }
}

/// Seven bits of a size, in their place.
fn shifted(byte: u8, shift: u32) -> Result<u64, Excess> {
    let bits = u64::from(byte & 0x7f);
    // What does not fit is larger than any limit, and no size that git writes.
    let placed = bits.checked_shl(shift).filter(|placed| placed >> shift == bits);
    placed.ok_or(Excess::Unreadable)
}

/// The size of what a difference makes: the second of the two sizes it begins with.
fn result_of(begin: &[u8]) -> Result<u64, Excess> {
    let mut begin = begin.iter();
    let mut number = || {
        let (mut number, mut shift) = (0, 0);
        loop {
            let &byte = begin.next().ok_or(Excess::Unreadable)?;
            number |= shifted(byte, shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
    };
    number()?;
    number()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    const COMMIT: u8 = 1;
    const FILE: u8 = 3;
    const BY_PLACE: u8 = 6;
    const BY_NAME: u8 = 7;

    fn limits() -> Limits {
        Limits {
            push_max_bytes: 5_000,
            unpacked_max_bytes: 100_000,
            object_max_bytes: 60_000,
            objects_max: 5,
            ..Limits::default()
        }
    }

    fn header(objects: u32) -> Vec<u8> {
        [&b"PACK\0\0\0\x02"[..], &objects.to_be_bytes()].concat()
    }

    fn number(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// An object that says it has `size`, and has `content`.
    fn saying(kind: u8, size: u64, between: &[u8], content: &[u8]) -> Vec<u8> {
        let low = (kind << 4) | (size & 15) as u8;
        let mut bytes = if size > 15 { [&[low | 0x80][..], &number(size >> 4)].concat() } else { vec![low] };
        bytes.extend_from_slice(between);
        let mut deflate = ZlibEncoder::new(bytes, Compression::best());
        deflate.write_all(content).expect("memory takes all");
        deflate.finish().expect("memory takes all")
    }

    fn object(kind: u8, content: &[u8]) -> Vec<u8> {
        saying(kind, content.len() as u64, b"", content)
    }

    /// A difference whose result has this size.
    fn difference(result: u64) -> Vec<u8> {
        let content = [number(7), number(result), vec![0x90, 7]].concat();
        saying(BY_NAME, content.len() as u64, &[1; 20], &content)
    }

    fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = header(objects.len() as u32);
        bytes.extend(objects.concat());
        bytes.extend([7; 20]);
        bytes
    }

    fn seen(bytes: &[u8], pieces: usize) -> (Result<(), Excess>, bool) {
        let mut pack = Pack::new(limits(), 20);
        let result = bytes.chunks(pieces).try_for_each(|piece| pack.see(piece));
        (result, pack.whole())
    }

    #[test]
    fn a_pack_is_seen_to_its_end_whatever_pieces_it_comes_in() {
        let by_place = saying(BY_PLACE, 4, &[0x81, 0x22], &[7, 9, 0x90, 7]);
        let bytes = pack(&[object(COMMIT, b""), object(FILE, &[b'x'; 50_000]), difference(99), by_place]);
        for pieces in [1, 2, 3, 7, 1_000, 100_000] {
            assert_eq!(seen(&bytes, pieces), (Ok(()), true), "{pieces}");
            assert_eq!(
                seen(&bytes[..bytes.len() - 30], pieces),
                (Ok(()), false),
                "{pieces}: what is missing is git's to tell"
            );
        }
        assert_eq!(seen(&header(0), 100), (Ok(()), true));
    }

    #[test]
    fn c03_a_bomb_is_known_by_what_it_says_before_it_is_inflated() {
        let limits = limits();
        let large = object(FILE, &vec![0; 60_001]);
        let excess = seen(&pack(std::slice::from_ref(&large))[..HEADER_BYTES + 4], 100).0;
        assert_eq!(excess, Err(Excess::Object(limits.object_max_bytes)), "four bytes of the object are enough");
        let half = object(FILE, &vec![0; 55_000]);
        assert_eq!(seen(&pack(&[half.clone(), half]), 100).0, Err(Excess::Unpacked(limits.unpacked_max_bytes)));
        assert_eq!(seen(&header(6), 100).0, Err(Excess::Objects(5)));
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(9_000).collect();
        assert_eq!(seen(&pack(&[object(FILE, &noise)]), 100).0, Err(Excess::Push(limits.push_max_bytes)));
    }

    #[test]
    fn c03_what_a_difference_makes_counts_as_if_it_were_sent_whole() {
        assert_eq!(seen(&pack(&[difference(60_001)]), 100).0, Err(Excess::Object(60_000)));
        assert_eq!(seen(&pack(&[difference(60_000), difference(60_000)]), 100).0, Err(Excess::Unpacked(100_000)));
        assert_eq!(seen(&pack(&[difference(u64::MAX)]), 100).0, Err(Excess::Object(60_000)));
    }

    #[test]
    fn c03_an_object_that_is_not_what_it_says_is_refused() {
        for wrong in [
            saying(FILE, 10, b"", &[0; 11]),
            saying(FILE, 10, b"", &[0; 9]),
            saying(FILE, 10, b"", &vec![0; 50_000]),
            saying(0, 1, b"", b"x"),
            saying(5, 1, b"", b"x"),
            vec![FILE << 4 | 1, b'n', b'o', b' ', b'z', b'l', b'i', b'b'],
            saying(BY_NAME, 1, &[1; 20], &[0x80]),
            saying(BY_NAME, 0, &[1; 20], &[]),
            [&[FILE << 4 | 0x8f][..], &[0xff; 9], &[0x7f]].concat(),
            [&[BY_PLACE << 4][..], &[0x80; 30]].concat(),
        ] {
            assert_eq!(seen(&pack(std::slice::from_ref(&wrong)), 100).0, Err(Excess::Unreadable), "{wrong:x?}");
        }
        assert_eq!(seen(b"PUCK\0\0\0\x02\0\0\0\x01", 100).0, Err(Excess::Unreadable));
        assert_eq!(seen(b"PACK\0\0\0\x04\0\0\0\x01", 100).0, Err(Excess::Unreadable));
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_the_pieces(
            sizes in proptest::collection::vec((0usize..70_000, any::<bool>()), 0..7),
            spoilt in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            pieces in 1usize..300,
        ) {
            let made = sizes.iter().map(|&(size, whole)| {
                if whole { object(FILE, &vec![b'x'; size]) } else { difference(size as u64) }
            });
            let mut bytes = pack(&made.collect::<Vec<_>>());
            if let Some((at, byte)) = spoilt {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            prop_assert_eq!(seen(&bytes, pieces), seen(&bytes, usize::MAX));
        }
    }
}
