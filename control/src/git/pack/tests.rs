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
