use std::time::UNIX_EPOCH;

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A moment, in hours.
fn at(hours: u32) -> SystemTime {
    UNIX_EPOCH + 500_000 * HOUR + hours * HOUR
}

fn keys(begins: &[(u8, SystemTime)]) -> TicketKeys {
    TicketKeys::new(begins.iter().map(|(byte, begins)| TicketKey::new([*byte; 32], *begins)).collect()).expect("keys")
}

/// The tickets of a listener on some edge that was given keys at a time.
fn tickets(listener: &str, policy: u8, given: &[(u8, SystemTime)], now: SystemTime) -> Tickets {
    let tickets = Tickets::new(listener, &[policy; 32], now).expect("randomness");
    if !given.is_empty() {
        tickets.give(&keys(given), now);
    }
    tickets
}

#[test]
fn p53_edges_that_share_keys_open_each_others_tickets_and_others_do_not() {
    let shared = [(1, at(0))];
    let (one, two) = (tickets("https", 0, &shared, at(1)), tickets("https", 0, &shared, at(1)));
    let ticket = one.seal(b"session", at(1)).expect("a ticket");
    assert_eq!(two.open(&ticket, at(2)).as_deref(), Some(b"session".as_slice()));
    for (what, other) in [
        ("another listener", tickets("https2", 0, &shared, at(1))),
        ("another policy", tickets("https", 1, &shared, at(1))),
        ("another secret", tickets("https", 0, &[(2, at(0))], at(1))),
        ("keys of its own", tickets("https", 0, &[], at(1))),
    ] {
        assert_eq!(other.open(&ticket, at(2)), None, "{what}");
    }
}

#[test]
fn p53_a_key_is_used_for_a_day_and_no_longer_whatever_outside_says() {
    let edge = tickets("https", 0, &[(1, at(0))], at(23));
    let ticket = edge.seal(b"session", at(23)).expect("a ticket");
    assert!(edge.open(&ticket, at(24) - Duration::from_secs(1)).is_some());
    assert!(edge.open(&ticket, at(24)).is_none(), "not even before it was looked at");
    edge.turn(at(24));
    edge.give(&keys(&[(1, at(24))]), at(24));
    assert!(edge.open(&ticket, at(24)).is_none(), "naming a later begin makes nothing younger");
    let after = edge.seal(b"session", at(24)).expect("its own key seals on");
    assert!(after[..NAME_BYTES] != ticket[..NAME_BYTES]);
    let old = tickets("https", 0, &[(1, at(0))], at(25));
    assert!(old.open(&ticket, at(25)).is_none());
}

#[test]
fn the_newest_that_has_begun_seals_and_the_next_one_only_opens() {
    let begins = [(1, at(0)), (2, at(6)), (3, at(12))];
    let edge = tickets("https", 0, &begins, at(5));
    let sealed_by =
        |tickets: &Tickets, now| -> Vec<u8> { tickets.seal(b"session", now).expect("a ticket")[..NAME_BYTES].to_vec() };
    let only = |at_one: usize, now| sealed_by(&tickets("https", 0, &begins[at_one..=at_one], now), now);
    assert_eq!(sealed_by(&edge, at(5)), only(0, at(5)));
    assert_eq!(sealed_by(&edge, at(6)), only(1, at(6)), "nobody has to say so");
    let ahead = tickets("https", 0, &begins[2..], at(12)).seal(b"session", at(12)).expect("a ticket");
    assert!(edge.open(&ahead, at(12) - SKEW).is_some(), "of an edge whose clock is ahead");
    assert!(edge.open(&ahead, at(12) - SKEW - Duration::from_secs(1)).is_none());
}

#[test]
fn a_proxy_without_keys_makes_its_own_again_and_again() {
    let edge = tickets("https", 0, &[], at(0));
    let first = edge.seal(b"session", at(0)).expect("a ticket");
    edge.turn(at(5));
    assert_eq!(edge.seal(b"session", at(5)).expect("a ticket")[..NAME_BYTES], first[..NAME_BYTES]);
    for hours in [6, 12, 18] {
        edge.turn(at(hours));
        assert_ne!(edge.seal(b"session", at(hours)).expect("a ticket")[..NAME_BYTES], first[..NAME_BYTES]);
        assert!(edge.open(&first, at(hours)).is_some(), "{hours}");
    }
    edge.turn(at(24));
    assert!(edge.open(&first, at(24)).is_none());
    assert_eq!(edge.seals.load().len(), 4, "what is too old is forgotten");
    edge.give(&keys(&[(1, at(24))]), at(24));
    let shared = edge.seal(b"session", at(24)).expect("a ticket");
    assert!(tickets("https", 0, &[(1, at(24))], at(24)).open(&shared, at(24)).is_some(), "given ones come first");
}

#[test]
fn a_ticket_that_was_touched_does_not_open_and_none_comes_twice() {
    let edge = tickets("https", 0, &[(1, at(0))], at(1));
    let ticket = edge.seal(b"session", at(1)).expect("a ticket");
    for byte in 0..ticket.len() {
        let mut touched = ticket.clone();
        touched[byte] ^= 1;
        assert_eq!(edge.open(&touched, at(1)), None, "byte {byte}");
        assert_eq!(edge.open(&ticket[..byte], at(1)), None, "cut at {byte}");
    }
    assert_ne!(edge.seal(b"session", at(1)).expect("a ticket"), ticket);
    let large = edge.seal(&vec![0; TICKET_MAX_BYTES], at(1)).expect("a ticket");
    assert_eq!(edge.open(&large, at(1)), None);
}

#[test]
fn p53_nothing_of_a_secret_is_shown_or_sent() {
    let edge = tickets("https", 0, &[(0xc0, at(0))], at(1));
    assert_eq!(format!("{edge:?}"), "Tickets");
    let ticket = edge.seal(b"session", at(1)).expect("a ticket");
    assert!(!ticket.windows(4).any(|part| part == [0xc0; 4]) && !ticket.windows(7).any(|part| part == b"session"));
}

#[test]
fn p53_a_successor_opens_what_was_sealed_before_it_and_seals_what_its_predecessor_opens() {
    let old = tickets("https", 0, &[], at(0));
    let first = old.seal(b"first", at(0)).expect("a ticket");
    old.turn(at(7));
    let second = old.seal(b"second", at(7)).expect("a ticket");
    let new = tickets("https", 0, &[], at(8));
    new.inherit(old.own().into_iter(), at(8));
    assert_eq!(new.open(&first, at(8)).as_deref(), Some(&b"first"[..]));
    assert_eq!(new.open(&second, at(8)).as_deref(), Some(&b"second"[..]));
    let third = new.seal(b"third", at(8)).expect("a ticket");
    assert_eq!(
        old.open(&third, at(8)).as_deref(),
        Some(&b"third"[..]),
        "who comes to the old one meanwhile resumes, too"
    );
    // They last no longer than they would have, and there are new ones in time.
    assert_eq!(new.open(&first, at(24)), None);
    new.turn(at(14));
    let fourth = new.seal(b"fourth", at(14)).expect("a ticket");
    assert_eq!(old.open(&fourth, at(14)), None);
    assert_eq!(new.own().len(), 3);
    let same = new.own();
    for (what, other) in
        [("another listener", tickets("http2", 0, &[], at(8))), ("another policy", tickets("https", 1, &[], at(8)))]
    {
        other.inherit(same.clone().into_iter(), at(14));
        assert_eq!(other.open(&fourth, at(14)), None, "{what}");
    }
}

#[test]
fn p53_what_a_predecessor_hands_over_in_vain_changes_nothing() {
    let many = (0..100).map(|byte| TicketKey::new([byte; 32], at(1)));
    let new = tickets("https", 0, &[], at(2));
    let before = new.own();
    new.inherit([TicketKey::new([1; 32], at(3)), TicketKey::new([2; 32], at(0) - 23 * HOUR)].into_iter(), at(2));
    assert_eq!(new.own(), before, "one has not begun, and one is over");
    new.inherit(many, at(2));
    assert_eq!(new.own().len(), HANDED_MAX);
    // What a file gives seals all the same.
    new.give(&keys(&[(200, at(1))]), at(2));
    let ticket = new.seal(b"session", at(2)).expect("a ticket");
    assert_eq!(tickets("https", 0, &[(200, at(1))], at(2)).open(&ticket, at(2)).as_deref(), Some(&b"session"[..]));
    assert!(new.own().iter().all(|key| *key != TicketKey::new([200; 32], at(1))), "and is handed to nobody");
}
