use proptest::prelude::*;

use super::*;

fn policy(text: &str) -> Policy {
    serde_json::from_str(text).expect(text)
}

fn next(text: &str, before: Option<&Arc<Checks>>) -> Option<Arc<Checks>> {
    Checks::next(&policy(text), before)
}

#[test]
fn a_policy_that_asks_for_nothing_has_no_checks() {
    for text in ["{}", r#"{"pause": {}}"#] {
        assert!(next(text, None).is_none(), "{text}");
        assert!(next(text, next(r#"{"limits": {}}"#, None).as_ref()).is_none(), "{text}");
    }
}

#[test]
fn what_is_counted_outlives_what_does_not_change_it() {
    let one = r#"{"limits": {"rate": {"requests": 5}, "concurrency": 5}}"#;
    let before = next(one, None).expect("checks");
    assert!(Arc::ptr_eq(&before, &next(one, Some(&before)).expect("checks")), "the same policy is the same checks");
    let after = next(r#"{"limits": {"rate": {"requests": 5}, "concurrency": 6}, "maintenance": {}}"#, Some(&before));
    let after = after.expect("checks");
    assert!(Arc::ptr_eq(&before.rates, &after.rates) && Arc::ptr_eq(&before.running, &after.running));
    let other = next(r#"{"limits": {"rate": {"requests": 6}}}"#, Some(&after)).expect("checks");
    assert!(!Arc::ptr_eq(&after.rates, &other.rates), "another rate is counted anew");
    assert!(Arc::ptr_eq(&after.running, &other.running), "who runs, runs");
}

#[test]
fn denied_networks_go_before_allowed_ones_and_none_allowed_are_all() {
    let denies = |text: &str, client: &str| next(text, None).expect("checks").networks(client.parse().ok()).is_err();
    let both = r#"{"access": {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}}"#;
    assert!(!denies(both, "10.2.3.4") && denies(both, "10.1.2.3") && denies(both, "192.0.2.1"));
    let deny = r#"{"access": {"deny": ["10.1.0.0/16", "unix"]}}"#;
    assert!(!denies(deny, "192.0.2.1") && denies(deny, "::ffff:10.1.2.3") && denies(deny, "no address"));
}

#[test]
fn times_are_the_policys_and_else_the_edges() {
    let limits = crate::config::Limits::default();
    let of = |text: &str| times(None, next(text, None).as_deref(), &limits);
    let none = of(r#"{"limits": {}}"#);
    assert_eq!(none, Times::new([None, None], &limits));
    assert_eq!((none.connect, none.connect_total), (Duration::from_secs(5), Duration::from_secs(15)));
    assert_eq!((none.send, none.answer, none.total), (Duration::from_secs(10), Duration::from_secs(30), None));
    let said = of(r#"{"limits": {"connect_ms": 9000, "answer_ms": 1, "total_ms": 2}}"#);
    assert_eq!(said.connect, limits.connect, "not longer than the lane tries");
    assert_eq!((said.answer, said.total), (Duration::from_millis(1), Some(Duration::from_millis(2))));
    let rule = RuleLimits::next(&serde_json::from_str(r#"{"answer_ms": 3, "gap_ms": 3}"#).expect("limits"), None);
    let policy = next(r#"{"limits": {"answer_ms": 1, "total_ms": 2}}"#, None);
    let both = times(Some(&rule), policy.as_deref(), &limits);
    assert_eq!((both.answer, both.total), (Duration::from_millis(3), Some(Duration::from_millis(2))));
    assert_eq!(both.gap, None, "a gap that the other limit has in any case is not watched");
    assert_eq!(of(r#"{"limits": {"gap_ms": 30000}}"#).gap, None);
    assert_eq!(of(r#"{"limits": {"gap_ms": 29999}}"#).gap, Some(Duration::from_millis(29999)));
}

proptest! {
    /// Nobody is let in from a denied network, and with a list of allowed ones nobody from outside of it.
    #[test]
    fn the_networks_are_what_they_say(
        allow in proptest::collection::vec((0u32..8, 29u8..=32), 0..4),
        deny in proptest::collection::vec((0u32..8, 29u8..=32), 0..4),
        client in 0u32..8,
    ) {
        let base = u32::from(std::net::Ipv4Addr::new(192, 0, 2, 0));
        let mask = |prefix: u8| u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
        let text = |all: &[(u32, u8)]| -> Vec<String> {
            let one = |(low, prefix): &(u32, u8)| {
                format!("{}/{prefix}", std::net::Ipv4Addr::from_bits((base | low) & mask(*prefix)))
            };
            all.iter().map(one).collect()
        };
        let policy = serde_json::json!({"access": {"allow": text(&allow), "deny": text(&deny)}});
        let checks = next(&policy.to_string(), None).expect("checks");
        let is_in = |all: &[(u32, u8)]| {
            all.iter().any(|(low, prefix)| (base | low) & mask(*prefix) == (base | client) & mask(*prefix))
        };
        let expected = !is_in(&deny) && (allow.is_empty() || is_in(&allow));
        let address = std::net::Ipv4Addr::from_bits(base | client);
        prop_assert_eq!(checks.networks(Some(address.into())).is_ok(), expected);
    }
}
