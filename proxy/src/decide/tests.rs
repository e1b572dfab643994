use std::collections::HashMap;

use dormouse_link::{EnvironmentId, Route};
use proptest::prelude::*;

use super::fields::Fields;
use super::*;

/// Sites of these routes, as JSON.
fn sites(routes: &[&str]) -> Sites {
    let sites = Sites::new();
    let route = |json: &&str| {
        let route: Route = serde_json::from_str(json).expect(json);
        let site = Site::next(&route, None, |id| Arc::new(Cell::new(EnvironmentId::new(id.as_str()))));
        (route.host, Some(site))
    };
    sites.set_all(&routes.iter().map(route).collect::<HashMap<_, _>>());
    sites
}

fn one() -> Sites {
    sites(&[r#"{"host":"a.example","environment":"one"}"#])
}

/// What was decided, in short.
fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Route(Routed { cell, rewritten: None, .. }) => cell.id.to_string(),
        Outcome::Route(Routed { cell, rewritten: Some(rewritten), .. }) => {
            let host = rewritten.host.as_ref().map(|host| host.to_str().expect("a host")).unwrap_or_default();
            format!("{} {} {host}", cell.id, rewritten.target.as_deref().unwrap_or_default()).trim_end().to_owned()
        }
        Outcome::Redirect(reason, location) => format!("{} {location}", reason.refusal().status),
        Outcome::Answer(reason) => reason.refusal().label.to_owned(),
    }
}

fn facts(scheme: Scheme) -> Facts {
    Facts { client: None, port: None, scheme }
}

fn decision(sites: &Sites, scheme: Scheme, proof: Option<&Proof<'_>>, text: &str) -> Decision {
    let head = Head::parse(text.as_bytes(), usize::MAX).expect(text);
    let field = |name: &str| Fields::Lines(text.as_bytes()).found(name);
    decide(&Request { head: &head, facts: &facts(scheme), proof, body_max: 10, field: &field }, sites)
}

fn decided(sites: &Sites, host: &str, target: &str) -> String {
    let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    said(&decision(sites, Scheme::Http, None, &text).outcome)
}

#[test]
fn p23_a_connection_serves_the_hosts_of_its_certificate_and_no_others() {
    let id = |host: &str| CertificateId::of_chain(&crate::front::tls::tests::chain(host));
    let (one, other) = (id("one").expect("an id"), id("other").expect("an id"));
    let hosts = ["a.example", "same.example", "other.example", "none.example"];
    let routes = hosts.map(|host| format!(r#"{{"host":"{host}","environment":"e"}}"#));
    let sites = sites(&routes.each_ref().map(|route| route.as_str()));
    let decided = |host: &str| {
        let instead = |host: &str| match host {
            // Renewed since the handshake.
            "a.example" | "other.example" => Some(other),
            "same.example" => Some(one),
            _ => None,
        };
        let proof = Proof { name: "a.example", certificate: one, instead: &instead };
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        said(&decision(&sites, Scheme::Https, Some(&proof), &text).outcome)
    };
    assert_eq!(decided("A.example:443"), "e", "its own name, whatever is offered now");
    assert_eq!(decided("same.example"), "e");
    assert_eq!(decided("other.example"), "misdirected");
    assert_eq!(decided("none.example"), "misdirected");
    assert_eq!(decided("unknown.example"), "unknown_host");
}

#[test]
fn p24_a_known_host_is_routed_and_everything_else_answered() {
    let sites = one();
    let text = |text: &str| said(&decision(&sites, Scheme::Http, None, text).outcome);
    assert_eq!(decided(&sites, "A.example.:80", "/"), "one");
    assert_eq!(decided(&sites, "b.example", "/"), "unknown_host");
    assert_eq!(text("GET / HTTP/1.0\r\n\r\n"), "unknown_host");
    for bad in [
        "/.dormouse/x",
        "/.dormouse/../x",
        "/x/../.dormouse/y",
        "//.dormouse/",
        "/./.dormouse/x",
        "/%2edormouse/x",
        "/x/%2e%2E/.dormouse/x",
        "/.dormouse%2fx",
        "/x/..%5c.dormouse\\x",
        "/.Dormouse/x",
        "/;a/.dormouse;b/x",
        "/.dormouse",
        "/.dormouse%00/x",
        "/.dormouse%2fx/../y",
        "/x/..;/.d%4frmouse/y",
    ] {
        assert_eq!(decided(&sites, "a.example", bad), "reserved", "{bad}");
    }
    for good in [
        "/x/.dormouse/",
        "/.dormouses/",
        "/%252edormouse/",
        "/..%2f",
        "/%2e%2e/",
        "//",
        "/a;b",
        "/%00",
        "/%",
        "/%2",
        "/.well-known/acme-challenge/x",
        "/x?/.dormouse/",
    ] {
        assert_eq!(decided(&sites, "a.example", good), "one", "{good}");
    }
    assert_eq!(text("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\n"), "body_too_large");
}

#[test]
fn a_request_without_a_host_is_nobodys_even_where_there_is_a_default() {
    let sites = sites(&[r#"{"host":"*","environment":"rest"}"#]);
    assert_eq!(decided(&sites, "b.example", "/"), "rest");
    assert_eq!(decided(&sites, "[::1]:80", "/"), "rest");
    assert_eq!(said(&decision(&sites, Scheme::Http, None, "GET / HTTP/1.0\r\n\r\n").outcome), "unknown_host");
}

#[test]
fn what_the_most_specific_host_does_not_have_nobody_has() {
    let sites = sites(&[
        r#"{"host":"a.example","rules":[{"path":"/x","environment":"exact"}]}"#,
        r#"{"host":"*.example","environment":"below"}"#,
        r#"{"host":"*","environment":"rest"}"#,
    ]);
    for (host, path, what) in [
        ("a.example", "/x/y", "exact"),
        ("a.example", "/y", "no_route"),
        ("b.example", "/y", "below"),
        ("c.b.example", "/y", "rest"),
        ("example", "/", "rest"),
    ] {
        assert_eq!(decided(&sites, host, path), what, "{host}{path}");
    }
}

/// A host with a part for some only.
const PARTS: &str = r#"{"host":"a","rules":[
    {"environment":"rest"},
    {"path":"/api","environment":"api","replace_prefix":"/","rewrite_host":"api.internal"},
    {"path":"/admin","environment":"admin"},
    {"path":"/beta","headers":[{"name":"x-beta","value":"1"}],"environment":"beta"},
    {"path":"/form","method":"POST","environment":"form"},
    {"path":"/old","redirect":{"replace_prefix":"/new"}},
    {"path":"/home","match":"exact","redirect":{"status":301,"host":"b","path":"/"}},
    {"path":"/loop","headers":[{"name":"x-beta"}],"redirect":{"host":"a","port":80}}]}"#;

#[test]
fn p24_a_path_that_leads_to_two_places_is_refused_and_any_other_forwarded_as_it_is() {
    let sites = sites(&[PARTS]);
    for (target, what) in [
        ("/", "rest"),
        ("/apix", "rest"),
        ("/API", "rest"),
        ("/admin", "admin"),
        ("/%61dmin/x", "admin"),
        ("/x/../admin", "admin"),
        ("/admin/..", "rest"),
        ("/x/%2e%2e/admin?a/../b", "admin"),
        ("/a%2Fb;c\\d//e", "rest"),
        ("/admin/a%2Fb", "admin"),
        ("/%2561dmin", "rest"),
        ("/admin%2f..%2fx", "rest"),
        // Somebody behind would read another place than somebody else.
        ("//admin", "ambiguous_path"),
        ("/x//../admin", "ambiguous_path"),
        ("/x/..%2fadmin", "ambiguous_path"),
        ("/x%2f../admin", "ambiguous_path"),
        ("/x/..\\admin", "ambiguous_path"),
        ("/admin/..%5c..\\x", "ambiguous_path"),
        ("/x/..;/admin", "ambiguous_path"),
        ("/admin;x", "ambiguous_path"),
        ("/admin%3bx/y", "ambiguous_path"),
        ("/admin%00.png", "ambiguous_path"),
    ] {
        assert_eq!(decided(&sites, "a", target), what, "{target}");
    }
}

#[test]
fn a_rule_rewrites_what_its_instances_get() {
    let sites = sites(&[PARTS]);
    for (target, what) in [
        ("/api", "api / api.internal"),
        ("/api?x=/api", "api /?x=/api api.internal"),
        ("/api/v1/%7ex?q", "api /v1/%7ex?q api.internal"),
        ("/%61pi/v1", "api /v1 api.internal"),
        ("/api/a%2Fb", "api /a%2Fb api.internal"),
        ("/x/../api/v1", "api /v1 api.internal"),
        ("/api/..%2fapi/x", "ambiguous_path"),
    ] {
        assert_eq!(decided(&sites, "a", target), what, "{target}");
    }
    let options = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(said(&decision(&sites, Scheme::Http, None, options).outcome), "rest");
}

#[test]
fn a_rule_asks_for_a_method_or_a_header_field() {
    let sites = sites(&[PARTS]);
    let of = |line: &str, field: &str| {
        said(&decision(&sites, Scheme::Http, None, &format!("{line} HTTP/1.1\r\nHost: a\r\n{field}\r\n")).outcome)
    };
    assert_eq!(of("GET /beta", ""), "rest");
    assert_eq!(of("GET /beta", "X-Beta: 1\r\n"), "beta");
    assert_eq!(of("GET /beta", "x-BETA:\t1 \r\n"), "beta");
    assert_eq!(of("GET /beta", "X-Beta: 2\r\n"), "rest");
    assert_eq!(of("GET /beta", "X_Beta: 1\r\n"), "rest");
    assert_eq!(of("GET /beta", "X-Beta: 1\r\nX-Beta: 2\r\n"), "rest", "two values are none");
    assert_eq!(of("GET /beta", "X-Betas: 1\r\nY: X-Beta: 1\r\n"), "rest");
    assert_eq!(of("GET /form", ""), "rest");
    assert_eq!(of("POST /form", ""), "form");
}

#[test]
fn a_redirect_keeps_path_and_query_and_never_leads_to_itself() {
    let sites = sites(&[PARTS, r#"{"host":"*.b","rules":[{"redirect":{"status":308,"host":"www.b"}}]}"#]);
    for (host, target, what) in [
        ("a", "/old/x?y=/old", "302 http://a/new/x?y=/old"),
        ("a", "/old", "302 http://a/new"),
        ("a", "/home?a=b", "301 http://b/?a=b"),
        ("a", "/home/", "rest"),
        ("A.B:80", "/x%2f/../y?z", "308 http://www.b/x%2f/../y?z"),
        ("www.b", "/", "redirect_circle"),
        ("www.b", "/x?y", "redirect_circle"),
    ] {
        assert_eq!(decided(&sites, host, target), what, "{host}{target}");
    }
    let large = "POST /old HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n";
    assert_eq!(said(&decision(&sites, Scheme::Http, None, large).outcome), "302 http://a/new", "nobody reads the body");
}

#[test]
fn a_host_of_https_sends_plain_requests_there_and_is_remembered_over_https_only() {
    let sites = sites(&[
        r#"{"host":"a","environment":"e","https":{"redirect":{},"hsts":{"max_age":31536000,"include_subdomains":true,"preload":true}}}"#,
        r#"{"host":"b","rules":[{"path":"/x","environment":"e"}],"https":{"redirect":{"status":308,"port":8443}}}"#,
    ]);
    let of = |scheme, host: &str, target: &str| {
        let decision = decision(&sites, scheme, None, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        (said(&decision.outcome), decision.hsts)
    };
    assert_eq!(of(Scheme::Http, "a:8080", "/x?y"), ("302 https://a/x?y".to_owned(), None));
    let hsts = HeaderValue::from_static("max-age=31536000; includeSubDomains; preload");
    assert_eq!(of(Scheme::Https, "a", "/x?y"), ("e".to_owned(), Some(hsts.clone())));
    assert_eq!(of(Scheme::Https, "a", "/.dormouse/"), ("reserved".to_owned(), Some(hsts)));
    assert_eq!(of(Scheme::Http, "b", "/").0, "308 https://b:8443/");
    assert_eq!(of(Scheme::Http, "b", "/.dormouse/").0, "reserved");
    assert_eq!(of(Scheme::Https, "b", "/"), ("no_route".to_owned(), None));
}

#[test]
fn no_rule_asks_for_a_field_that_its_instances_would_not_get() {
    for name in [
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "proxy",
        "cf-ray",
        "x-forwarded-for",
        "x-dormouse-x",
    ] {
        assert!(dormouse_link::is_reserved_for_proxies(name.as_bytes()), "{name}");
        let json = format!(r#"{{"host":"a","rules":[{{"headers":[{{"name":"{name}"}}],"environment":"e"}}]}}"#);
        assert!(serde_json::from_str::<Route>(&json).is_err(), "{name}");
    }
}

/// How servers resolve a path: what they decode, what separates segments, what they leave away.
#[derive(Clone, Copy, Debug)]
struct Server {
    splits_first: bool,
    backslash: bool,
    parameters: bool,
    merges: bool,
    ends_at_zero: bool,
}

impl Server {
    fn resolve(self, path: &str) -> Vec<String> {
        let decode = |text: &str| {
            let mut bytes = text.as_bytes();
            let mut decoded = Vec::new();
            while let [byte, rest @ ..] = bytes {
                let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                match hex.filter(|hex| *byte == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
                    Some(hex) => {
                        decoded.push(u8::from_str_radix(hex, 16).expect("hex"));
                        bytes = &rest[2..];
                    }
                    None => {
                        decoded.push(*byte);
                        bytes = rest;
                    }
                }
            }
            String::from_utf8_lossy(&decoded).into_owned()
        };
        let mut whole = if self.splits_first { path.to_owned() } else { decode(path) };
        if self.backslash {
            whole = whole.replace('\\', "/");
        }
        let mut segments = Vec::new();
        for segment in whole.split('/').skip(1) {
            let mut segment = segment.to_owned();
            if self.parameters {
                segment.truncate(segment.find(';').unwrap_or(segment.len()));
            }
            if self.splits_first {
                segment = decode(&segment);
            }
            match segment.as_str() {
                "" if self.merges => {}
                "." => {}
                ".." => drop(segments.pop()),
                _ => segments.push(segment),
            }
        }
        if self.ends_at_zero
            && let Some((at, end)) =
                segments.iter().enumerate().find_map(|(at, segment)| Some((at, segment.find('\0')?)))
        {
            segments.truncate(at + 1);
            segments[at].truncate(end);
        }
        segments
    }
}

fn any_server() -> impl Strategy<Value = Server> {
    any::<[bool; 5]>().prop_map(|[splits_first, backslash, parameters, merges, ends_at_zero]| Server {
        splits_first,
        backslash,
        parameters,
        merges,
        ends_at_zero,
    })
}

/// Whatever server is behind: what it makes of the path that is forwarded belongs to the rule that was decided by.
#[test]
fn p24_an_origin_that_resolves_the_raw_path_reaches_what_was_decided() {
    let sites = sites(&[r#"{"host":"a","rules":[{"environment":"rest"},{"path":"/admin","environment":"admin"},
        {"path":"/api/x","environment":"x"}]}"#]);
    let path =
        "/((%2f|\\\\)?(admin|%61dmin|api|x|\\.|\\.\\.|%2e%2e|;y|%2f|%5c|\\\\|%00|\\.dormouse|%|z|/){0,3}/?){1,4}";
    proptest!(ProptestConfig::with_cases(3000), |(path in path, server in any_server())| {
        let what = decided(&sites, "a", &path);
        let segments = server.resolve(&path);
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        let naive = match &segments[..] {
            [".dormouse", ..] => "reserved",
            ["admin", ..] => "admin",
            ["api", "x", ..] => "x",
            _ => "rest",
        };
        let is_refused = matches!(what.as_str(), "ambiguous_path" | "reserved");
        prop_assert!(what == naive || is_refused, "{} but {:?}", what, segments);
    });
}

/// Whatever a client makes up is decided, and nothing is in doubt where all of a host goes to one place.
#[test]
fn any_path_is_decided() {
    let sites = sites(&[PARTS, r#"{"host":"b","environment":"one"}"#]);
    proptest!(|(path in "/[!-~&&[^#\"<>`]]{0,30}", host in "a|b")| {
        let what = decided(&sites, &host, &path);
        prop_assert!(host == "a" || matches!(what.as_str(), "one" | "reserved"), "{}", what);
    });
}
