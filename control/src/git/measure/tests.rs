use super::*;

const NONE: &str = "0000000000000000000000000000000000000000";
const ONE: &str = "1111111111111111111111111111111111111111";

fn limits() -> Limits {
    Limits { push_max_refs: 3, refs_max: 10, ref_max_bytes: 20, ..Limits::default() }
}

/// A list of commands; the first one with what git's client can do.
fn list(commands: &[(&str, &str)], abilities: &str) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for (at, (old, name)) in commands.iter().enumerate() {
        let abilities = if at == 0 { format!("\0 {abilities}") } else { String::new() };
        packet::put(&mut bytes, format!("{old} {ONE} {name}{abilities}").as_bytes());
    }
    bytes.put_slice(&FLUSH);
    bytes.to_vec()
}

fn seen(bytes: &[u8], refs: usize) -> Result<(), Excess> {
    let verdicts = [1, 5, 1 << 20].map(|pieces| {
        let mut measure = Measure::new(limits(), refs);
        bytes.chunks(pieces).try_for_each(|piece| measure.see(piece))
    });
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?}");
    verdicts[0]
}

#[test]
fn c03_refs_are_counted_before_git_makes_any() {
    let named = |old, count: usize| vec![(old, "refs/heads/a"); count];
    assert_eq!(seen(&list(&named(NONE, 3), ""), 7), Ok(()));
    assert_eq!(seen(&list(&named(NONE, 4), ""), 0), Err(Excess::PushRefs(3)));
    assert_eq!(seen(&list(&named(NONE, 3), ""), 8), Err(Excess::Refs(10)));
    assert_eq!(seen(&list(&named(ONE, 3), ""), 10), Ok(()), "moving makes no new ones");
    assert_eq!(seen(&list(&[(NONE, &"x".repeat(21))], ""), 0), Err(Excess::RefName(20)));
    let shallow = [&b"0035shallow 1111111111111111111111111111111111111111\n"[..], &list(&named(NONE, 1), "")].concat();
    assert_eq!(seen(&shallow, 0), Ok(()));
    // However they are told.
    let endless = b"0035shallow 1111111111111111111111111111111111111111\n".repeat(30_000);
    assert_eq!(seen(&endless, 0), Err(Excess::PushRefs(3)));
}

#[test]
fn what_is_no_list_of_refs_is_refused() {
    assert_eq!(seen(b"0000", 0), Ok(()), "a probe");
    for bad in ["0003", "zzzz", "000epush-cert\0", "0001", "0008a b c"] {
        assert_eq!(seen(bad.as_bytes(), 0), Err(Excess::Unreadable), "{bad}");
    }
    assert_eq!(seen(&[&list(&[(NONE, "a")], "")[..], b"no pack at all"].concat(), 0), Err(Excess::Unreadable));
}

#[test]
fn the_answer_is_in_the_words_that_the_client_asked_for() {
    let report = |abilities: &str| {
        let mut measure = Measure::new(limits(), 0);
        measure.see(&list(&[(NONE, "refs/heads/a"), (NONE, "refs/tags/b")], abilities)).expect("two refs");
        (measure.lines(), measure.report(Excess::Object(5)))
    };
    assert_eq!(report("delete-refs"), (false, Bytes::new()));
    let plain = b"000eunpack ok\n0023ng refs/heads/a file too large\n0022ng refs/tags/b file too large\n0000";
    assert_eq!(report("report-status"), (false, Bytes::from_static(plain)));
    let (lines, bands) = report("report-status-v2 side-band-64k quiet");
    assert!(lines && bands.ends_with(&[&b"005c\x01"[..], plain, b"0000"].concat()), "{bands:?}");
    assert!(bands[4..].starts_with(b"\x02Refused: this push has a file larger than 5 bytes"), "{bands:?}");
}

#[test]
fn the_report_of_many_refs_fits_the_packets() {
    let mut measure = Measure::new(Limits { push_max_refs: 1_000, refs_max: 2_000, ..limits() }, 0);
    let bytes = list(&vec![(NONE, "refs/heads/a"); 1_001], "report-status side-band-64k");
    let excess = measure.see(&bytes).expect_err("one too many");
    let report = measure.report(excess);
    let mut at = 0;
    while at < report.len() {
        let length = packet::length(&report[at..at + 4]).expect("a packet");
        assert!(length <= 1_000);
        at += length.max(4);
    }
    assert_eq!(at, report.len());
}
