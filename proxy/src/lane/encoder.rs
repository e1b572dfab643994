//! Compresses one answer, part by part, in little memory: what went in comes out, decodable, before the next part is there.
//!
//! Made and used by [`super::compress`]. An answer that is not finished has no clean end, whatever becomes of its connection.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use dormouse_link::policy::Coding;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

/// Of gzip, whose window is always 32 KiB: 370 KiB of memory for each answer.
const GZIP_LEVEL: u32 = 5;
/// Of Brotli; from 4 on it takes twice the memory and more.
const BROTLI_QUALITY: u32 = 3;
/// Brotli's window is 2 to the power of that, 64 KiB: 850 KiB of memory for each answer.
const BROTLI_WINDOW: u32 = 16;
/// What Brotli hands over at a time.
const BROTLI_BUFFER_BYTES: usize = 4096;
/// Of Zstandard.
const ZSTD_LEVEL: i32 = 1;
/// Zstandard's window is 2 to the power of that, 128 KiB: 440 KiB of memory for each answer.
const ZSTD_WINDOW: u32 = 17;

/// See the module.
pub(super) struct Encoder(Option<Running>);

enum Running {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    pub(super) fn new(coding: Coding) -> io::Result<Self> {
        Ok(Self(Some(match coding {
            Coding::Gzip => Running::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Br => {
                let writer = CompressorWriter::new(Vec::new(), BROTLI_BUFFER_BYTES, BROTLI_QUALITY, BROTLI_WINDOW);
                Running::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Running::Zstd(encoder)
            }
        })))
    }

    /// Takes a part that is not the last, and gives all that its reader needs to have it.
    pub(super) fn part(&mut self, part: &[u8]) -> io::Result<Bytes> {
        let Some(running) = &mut self.0 else { return Err(ended()) };
        running.write(part)?;
        running.flush()?;
        Ok(std::mem::take(running.output()).into())
    }

    /// Takes the last part, and gives the end.
    pub(super) fn end(&mut self, part: &[u8]) -> io::Result<Bytes> {
        let mut running = self.0.take().ok_or_else(ended)?;
        running.write(part)?;
        Ok(running.finish()?.into())
    }
}

impl Running {
    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(part),
            Self::Brotli(encoder) => encoder.write_all(part),
            Self::Zstd(encoder) => encoder.write_all(part),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the answer was ended already")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    /// What a reader makes of a begin of an answer, and whether that was its end.
    fn read(coding: Coding, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut reader: Box<dyn Read + '_> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a decoder")),
        };
        let mut text = Vec::new();
        let whole = reader.read_to_end(&mut text).is_ok();
        (text, whole)
    }

    fn text(at: usize) -> Vec<u8> {
        (0..40_000).map(|byte| b"<li>dormouse</li>\n"[(byte + at) % 18] ^ u8::from(byte % 977 == at)).collect()
    }

    #[test]
    fn each_part_can_be_read_before_the_next_one_is_there() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            let (mut sent, mut said) = (Vec::new(), Vec::new());
            for at in 0..5 {
                let part = if at == 3 { b"x".to_vec() } else { text(at) };
                sent.extend_from_slice(&encoder.part(&part).expect("a part"));
                said.extend_from_slice(&part);
                assert_eq!(read(coding, &sent), (said.clone(), false), "{coding:?} {at}");
            }
            let last = text(7);
            sent.extend_from_slice(&encoder.end(&last).expect("the end"));
            said.extend_from_slice(&last);
            assert_eq!(read(coding, &sent), (said, true), "{coding:?}");
            assert!(sent.len() < 10_000, "{coding:?}: {}", sent.len());
            assert!(encoder.part(b"more").is_err());
        }
    }

    #[test]
    fn what_is_empty_has_an_end_too() {
        for coding in ALL {
            let end = Encoder::new(coding).expect("an encoder").end(b"").expect("the end");
            assert_eq!(read(coding, &end), (Vec::new(), true), "{coding:?}");
        }
    }
}
