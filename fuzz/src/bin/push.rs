//! A push out of any bytes: its measure does not depend on the pieces it comes in, and a refusal is told in
//! whole packets. Git's own answer, too, is any bytes.
//!
//! The control plane's files are taken as they are: so the target is built in seconds, without the rest of it.

#![no_main]
#![allow(dead_code, reason = "the files have more than is used here")]

#[path = "../../../control/src/git/limits.rs"]
mod limits;
#[path = "../../../control/src/git/measure.rs"]
mod measure;
#[path = "../../../control/src/git/pack.rs"]
mod pack;
#[path = "../../../control/src/git/packet.rs"]
mod packet;

use limits::{Excess, Limits};
use measure::Measure;
use packet::Packet;

/// Small, so that each of them is met.
fn small() -> Limits {
    Limits {
        push_max_bytes: 4_000,
        unpacked_max_bytes: 100_000,
        object_max_bytes: 50_000,
        objects_max: 20,
        push_max_refs: 5,
        refs_max: 8,
        ref_max_bytes: 60,
        ..Limits::default()
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&pieces, push)) = bytes.split_first() else { return };
    let (whole, _) = measured(push, usize::MAX);
    let (in_pieces, measure) = measured(push, usize::from(pieces).max(1));
    assert_eq!(in_pieces, whole, "pieces do not matter");
    if let Err(excess) = whole {
        let report = measure.report(excess);
        assert!(packets(&report).is_some_and(|count| count != 1), "the report is nothing, or whole packets");
    }
    packets(push);
});

fn measured(push: &[u8], pieces: usize) -> (Result<(), Excess>, Measure) {
    let mut measure = Measure::new(small(), 2);
    let result = push.chunks(pieces).try_for_each(|piece| measure.see(piece));
    (result, measure)
}

/// How many packets these are, where they are nothing else.
fn packets(mut bytes: &[u8]) -> Option<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut count = 0;
        loop {
            match packet::read(&mut bytes).await {
                Ok(Some(Packet::Data(data))) => {
                    assert_eq!(packet::length(&data[..4]), Some(data.len()));
                    count += 1;
                }
                Ok(Some(Packet::Flush)) => count += 1,
                Ok(None) => return Some(count),
                Err(_) => return None,
            }
        }
    })
}
