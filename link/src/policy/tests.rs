use super::*;

/// How a policy in a table file is refused.
fn refused(text: &str) -> String {
    match serde_json::from_str::<Policy>(text) {
        Ok(policy) => policy.check().expect_err(text).to_string(),
        Err(error) => error.to_string(),
    }
}

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// By `openssl req -x509`.
const CA: &str = include_str!("ca.pem");

fn with_hash(hash: &str) -> String {
    format!(r#"{{"access": {{"basic": {{"users": [{{"name": "ann", "hash": "{hash}"}}]}}}}}}"#)
}

fn large_page() -> String {
    format!(r#"{{"pages": {{"failed": "{}"}}}}"#, "x".repeat(PAGE_MAX_BYTES + 1))
}

fn networks(section: &str, field: &str, count: usize) -> String {
    let networks: Vec<_> = (0..count).map(|at| format!("\"2001:db8:{at:x}::/48\"")).collect();
    format!(r#"{{"{section}": {{"{field}": [{}]}}}}"#, networks.join(", "))
}

#[test]
fn as_many_networks_as_may_be_are_taken() {
    for (section, field) in [("access", "allow"), ("access", "deny"), ("maintenance", "allow")] {
        let policy: Policy = serde_json::from_str(&networks(section, field, 256)).expect("networks");
        assert_eq!(policy.check(), Ok(()), "{section}.{field}");
    }
}

#[test]
fn a_policy_is_read_as_it_is_written() {
    let ca = serde_json::to_string(CA).expect("a text");
    for text in [
        "{}",
        r#"{"limits":{"rate":{"requests":100,"per_seconds":1,"burst":200},"concurrency":50,"body_bytes":0,"total_ms":1}}"#,
        r#"{"access":{"allow":["10.0.0.0/8"],"deny":["2001:db8::/32","unix"],"indexed":false}}"#,
        &format!(r#"{{"access":{{"forward_auth":{{"url":"https://a/","ca":{ca},"timeout_ms":5000}}}}}}"#),
        r#"{"maintenance":{"retry_after_seconds":60,"allow":["192.0.2.1/32"]}}"#,
        r#"{"pause":{"requests":1000,"wait_ms":60000}}"#,
        r#"{"compression":{}}"#,
        r#"{"pages":{"waking":"<p>{retry_after}","too_many":"x"}}"#,
        r#"{"compression":{"types":["text/html","application/*+json"],"least_bytes":0,"codings":["gzip","zstd"]}}"#,
    ] {
        let policy: Policy = serde_json::from_str(text).expect(text);
        assert_eq!(policy.check(), Ok(()), "{text}");
        assert_eq!(serde_json::to_string(&policy).expect("plain data"), text);
    }
    let short: Policy = serde_json::from_str(r#"{"maintenance": {}, "pause": {}, "access": {}}"#).expect("defaults");
    assert_eq!(short.pause, Some(Pause::default()));
    assert_eq!(short.maintenance.as_deref(), Some(&Maintenance::default()));
    assert!(short.access.expect("it is there").is_indexed());
    assert!(Policy::default().is_default());
}

#[test]
fn hashes_are_of_a_known_kind_and_not_dearer_than_an_edge_can_bear() {
    let takes = |hash: &str| serde_json::from_str::<Policy>(&with_hash(hash)).expect(hash).check().is_ok();
    // By htpasswd 2.4.71 (apache2-utils).
    const BY_HTPASSWD: &str = "$2y$05$.HTqP3KisWiZC1zBv4bxnOGr5k9HAiMDU8kmr4Z2Sifk.kpwUyviy";
    for good in [HASH, BY_HTPASSWD, &BY_HTPASSWD.replace("$2y$", "$2b$"), &BY_HTPASSWD.replace("$2y$", "$2a$")] {
        assert!(takes(good), "{good}");
    }
    assert!(takes(&BY_HTPASSWD.replace("$05$", "$04$")) && takes(&BY_HTPASSWD.replace("$05$", "$12$")));
    for bad in [
        BY_HTPASSWD.replace("$05$", "$03$"),
        BY_HTPASSWD.replace("$05$", "$13$"),
        BY_HTPASSWD.replace("$05$", "$31$"),
        BY_HTPASSWD.replace("$05$", "$5$"),
        BY_HTPASSWD.replace("$05$", "$+5$"),
        BY_HTPASSWD.replace("$2y$", "$2x$"),
        BY_HTPASSWD.replace("$2y$", "$2$"),
        BY_HTPASSWD.replace("kpw", "k+w"),
        BY_HTPASSWD.replace("bxnO", "bxnP"),
        BY_HTPASSWD.replace("viy", "viz"),
        BY_HTPASSWD.replace("viy", "vi"),
        format!("{BY_HTPASSWD}."),
        "$2y$".to_owned(),
        "$apr1$salt$hash".to_owned(),
        "{SHA}x".to_owned(),
    ] {
        assert!(!takes(&bad), "{bad}");
    }
}

#[test]
fn a_policy_that_nobody_can_serve_by_says_what_is_wrong() {
    let forward = |rest: &str| format!(r#"{{"access": {{"forward_auth": {{{rest}}}}}}}"#);
    for (text, words) in [
        (r#"[null, null, {}]"#, "invalid type: sequence"),
        (r#"{"maintenance": [60]}"#, "invalid type: sequence"),
        (r#"{"pause": [10, 10]}"#, "invalid type: sequence"),
        (r#"{"limits": {"rate": [10]}}"#, "invalid type: sequence"),
        (r#"{"access": {"basic": {"users": [["ann", ""]]}}}"#, "invalid type: sequence"),
        (r#"{"limit": {}}"#, "unknown field `limit`"),
        (r#"{"limits": {"rat": 1}}"#, "unknown field `rat`"),
        (r#"{"limits": {"rate": {"requests": 0}}}"#, "expected a nonzero u32"),
        (r#"{"limits": {"rate": {}}}"#, "missing field `requests`"),
        (r#"{"limits": {"rate": {"requests": 1000001}}}"#, "policy.limits: a rate is at most 1000000 requests"),
        (r#"{"limits": {"rate_per_client": {"requests": 1, "per_seconds": 3601}}}"#, "policy.limits: a rate"),
        (r#"{"limits": {"concurrency": 0}}"#, "expected a nonzero u32"),
        (r#"{"limits": {"body_bytes": 9999999999999}}"#, "policy.limits: body_bytes is at most"),
        (r#"{"limits": {"gap_ms": 86400001}}"#, "policy.limits: gap_ms is at most 86400000"),
        (r#"{"limits": {"gap_ms": 11, "answer_ms": 10}}"#, "policy.limits: gap_ms is at most answer_ms"),
        (r#"{"limits": {"send_ms": 86400001}}"#, "policy.limits: send_ms is at most 86400000"),
        (r#"{"access": {"allow": ["10.1.2.3/8"]}}"#, "the network with this address begins at 10.0.0.0"),
        (r#"{"access": {"basic": {"users": []}}}"#, "policy.access: basic.users has from 1 to 100 users"),
        (&with_hash("plain"), "policy.access: basic.users: the hash of \"ann\" is Argon2id"),
        (
            &forward(r#""url": "ftp://auth.example/""#),
            "policy.access: forward_auth.url begins with http:// or https://",
        ),
        (&forward(r#""url": "https:///""#), "forward_auth.url"),
        (
            &forward(r#""url": "https://a/", "ca": "-----BEGIN CERTIFICATE-----""#),
            "policy.access: forward_auth.ca is whole certificates as PEM",
        ),
        (&forward(&format!(r#""url": "http://a/", "ca": {}"#, serde_json::json!(CA))), "forward_auth.ca"),
        (&forward(&format!(r#""url": "https://a/", "ca": {}"#, serde_json::json!(CA.repeat(120)))), "of up to 65536"),
        (&forward(r#""url": "http://u@auth.example/""#), "forward_auth.url"),
        (&forward(r#""url": "http://""#), "forward_auth.url"),
        (&forward(r#""url": "http://a b/""#), "forward_auth.url"),
        (&forward(r#""url": "http://a/", "copy": ["Content-Length"]"#), "\"Content-Length\" is no field that can be"),
        (&forward(r#""url": "http://a/", "copy": ["x_user"]"#), "\"x_user\" is no field that can be"),
        (&forward(r#""url": "http://a/", "timeout_ms": 30001"#), "forward_auth.timeout_ms is at most 30000"),
        (r#"{"maintenance": {"retry_after_seconds": 0}}"#, "expected a nonzero u32"),
        (&networks("access", "allow", 257), "policy.access: allow has at most 256 networks"),
        (&networks("access", "deny", 257), "policy.access: deny has at most 256 networks"),
        (&networks("maintenance", "allow", 257), "policy.maintenance: allow has at most 256 networks"),
        (r#"{"pause": {"requests": 1001}}"#, "policy.pause: requests is at most 1000"),
        (r#"{"compression": {"types": []}}"#, "policy.compression: types has from 1 to 64 media types"),
        (r#"{"compression": {"types": ["html"]}}"#, "\"html\" is no media type: text/html"),
        (r#"{"compression": {"least_bytes": 16777217}}"#, "policy.compression: least_bytes is at most 16777216"),
        (r#"{"compression": {"codings": []}}"#, "policy.compression: codings has from 1 to 3"),
        (r#"{"compression": {"codings": ["gzip", "gzip"]}}"#, "policy.compression: codings has from 1 to 3"),
        (r#"{"compression": {"codings": ["deflate"]}}"#, "unknown variant `deflate`"),
        (r#"{"compression": {"level": 9}}"#, "unknown field `level`"),
        (r#"{"pages": {"wakeing": "x"}}"#, "unknown field `wakeing`"),
        (r#"{"pages": {"waking": ""}}"#, "policy.pages: waking is an empty page"),
        (r#"{"pages": {"waking": 1}}"#, "expected HTML as text, or an object with \"file\""),
        (r#"{"pages": {"denied": {"file": "x.html"}}}"#, "policy.pages: denied is a page as text; only table files"),
        (r#"{"pages": {"denied": {"path": "x.html"}}}"#, "unknown field `path`"),
        (&large_page(), "policy.pages: failed is a page of at most 65536 bytes, not 65537"),
        (r#"{"pause": {"wait_ms": 300001}}"#, "policy.pause: wait_ms is at most 300000"),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{text}\nsaid {said:?}");
    }
}

#[test]
fn a_hash_costs_no_more_than_an_edge_can_bear_and_is_never_shown() {
    let policy: Policy = serde_json::from_str(&with_hash(HASH)).expect("a policy");
    assert_eq!(policy.check(), Ok(()));
    assert!(!format!("{policy:?}").contains("argon2id"));
    for (from, to) in [
        ("argon2id", "argon2i"),
        ("v=19", "v=16"),
        ("m=19456", "m=65537"),
        ("m=19456", "m=7"),
        ("t=2", "t=11"),
        ("t=2", "t=0"),
        ("p=1", "p=5"),
        ("p=1", "p=1,keyid=x"),
        ("m=19456,t=2", "t=2,m=19456"),
        ("c2FsdHNhbHQ", "c2Fs"),
        ("AAAAAAAA", "\\u0000"),
        ("c2FsdHNhbHQ$", "c2FsdHNhbHQ$$"),
    ] {
        assert!(refused(&with_hash(&HASH.replacen(from, to, 1))).contains("Argon2id"), "{to}");
    }
}
