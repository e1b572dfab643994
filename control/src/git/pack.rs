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
mod tests;
