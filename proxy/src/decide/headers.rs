//! Header fields on their way through: ours are rebuilt, the client's versions of them dropped, hop-by-hop ones removed.
//!
//! Pure; the lanes apply what is decided here.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Range;

use bytes::{BufMut, BytesMut};
use dormouse_link::is_reserved_for_proxies;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Rewritten;
use super::edits::Edits as RuleEdits;
use super::granted::Granted;
use super::trace::{PARENT_FIELD, Part};
use super::via;
use crate::front::head::{Connection, Edits, Form, Head, Kind};

/// Room for our fields beside the host, which is in two of them.
const FIELDS_BYTES: usize = 430;
/// The longest address.
const ADDRESS_BYTES: usize = 45;

/// Fields of one connection, in responses. `Connection` and `Transfer-Encoding` of a body are the lane's own business.
const HOP_BY_HOP: [&str; 5] = ["keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer"];

/// Who speaks, and how: decided once, of a connection by its listener, of a request behind a trusted proxy by
/// [`super::forwarded`]. Everything after uses these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// In its canonical form; none where the client came through a Unix socket.
    pub(crate) client: Option<IpAddr>,
    /// The port that the client connected to, where that is known.
    pub(crate) port: Option<u16>,
    pub(crate) scheme: Scheme,
}

impl Facts {
    /// For people and records.
    pub(crate) fn client_name(&self) -> String {
        self.client.map_or_else(|| "unknown".to_owned(), name_of)
    }
}

/// How a client speaks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The names that are removed from a request.
pub(crate) fn dropped_from_request(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.keys().filter(|name| is_reserved_for_proxies(name.as_str().as_bytes())).cloned().collect()
}

/// The fields that are set in a request, each with the parts of its value; what is not known is left away.
pub(crate) fn set_in_request(facts: &Facts, host: &str, request_id: &str, mut set: impl FnMut(&'static str, &[&str])) {
    let scheme = facts.scheme.as_str();
    let address = facts.client.map(name_of);
    let (open, node, close) = match (facts.client, &address) {
        (Some(IpAddr::V6(_)), Some(address)) => ("for=\"[", address.as_str(), "]\""),
        (_, Some(address)) => ("for=", address.as_str(), ""),
        (_, None) => ("for=", "unknown", ""),
    };
    let host_pair = if host.is_empty() { [""; 3] } else { [";host=\"", host, "\""] };
    let [begin, name, end] = host_pair;
    if let Some(address) = &address {
        set("X-Forwarded-For", &[address]);
        set("X-Real-IP", &[address]);
    }
    set("X-Forwarded-Proto", &[scheme]);
    set("X-Forwarded-Host", &[host]);
    if let Some(port) = facts.port {
        set("X-Forwarded-Port", &[&port.to_string()]);
    }
    set("Forwarded", &[open, node, close, begin, name, end, ";proto=", scheme]);
    set("X-Request-Id", &[request_id]);
}

/// What was decided of a request and changes its head, beside what changes of each.
pub(crate) struct Changes<'a> {
    pub(crate) rewritten: Option<&'a Rewritten>,
    pub(crate) part: &'a Part,
    pub(crate) granted: Option<&'a Granted>,
    /// Comes last: it is the operator's word.
    pub(crate) edits: Option<&'a RuleEdits>,
}

/// The head of a request as its instance gets it, from the bytes that the gate let pass: in origin form, without what only
/// proxies say, and with what this one says.
///
/// It is written before the lane reads it: fields that are added to a map that was read are several times as dear.
pub(crate) fn for_instance(
    bytes: &[u8],
    head: &Head,
    &Changes { rewritten, part, granted, edits }: &Changes<'_>,
    facts: &Facts,
    request_id: &str,
) -> BytesMut {
    let target = rewritten.and_then(|rewritten| rewritten.target.as_deref());
    let host = rewritten.and_then(|rewritten| rewritten.host.as_ref());
    let length = bytes.len() + target.unwrap_or(&head.target).len() + 3 * head.host.len() + FIELDS_BYTES;
    let mut text = BytesMut::with_capacity(length);
    let is_absolute = head.form == Form::Absolute;
    let mut at = 0;
    if is_absolute || rewritten.is_some() {
        let target = target.unwrap_or(&head.target);
        for part in [head.method.as_str(), " ", target, " ", head.version.as_str(), "\r\n"] {
            text.put_slice(part.as_bytes());
        }
        at = head.edits.line;
    }
    if is_absolute || host.is_some() {
        // An absolute target says the same as the field, which a client of HTTP/1.0 may leave away.
        for part in [&b"Host: "[..], host.map_or(head.host.as_bytes(), HeaderValue::as_bytes), b"\r\n"] {
            text.put_slice(part);
        }
    }
    let is_edited = |name: &[u8]| edits.is_some_and(|edits| edits.removes(name));
    let is_removed = |name: &[u8]| granted.is_some_and(|granted| granted.removes(name)) || is_edited(name);
    let reads = granted.is_some() || edits.is_some();
    let removed = reads.then(|| lines(bytes)).into_iter().flatten().filter(|(name, _)| is_removed(name));
    for dropped in dropped(&head.edits, host.is_some(), part, removed.map(|(_, line)| line)).iter() {
        text.put_slice(&bytes[at..dropped.start]);
        at = dropped.end;
    }
    text.put_slice(&bytes[at..bytes.len() - b"\r\n".len()]);
    if head.edits.connection {
        text.put_slice(match (head.kind, head.connection) {
            (Kind::WebSocket, _) => b"Connection: upgrade\r\n",
            (_, Connection::Close) => b"Connection: close\r\n",
            (_, Connection::KeepAlive) => b"",
        });
    }
    if let Some(value) = part.said_here() {
        for part in [PARENT_FIELD.as_bytes(), b": ", &value, b"\r\n"] {
            text.put_slice(part);
        }
    }
    set_in_request(facts, &head.host, request_id, |name, parts| {
        text.put_slice(name.as_bytes());
        text.put_slice(b": ");
        for part in parts {
            text.put_slice(part.as_bytes());
        }
        text.put_slice(b"\r\n");
    });
    if !is_edited(b"via") {
        for part in ["Via: ", via::said(head.version), "\r\n"] {
            text.put_slice(part.as_bytes());
        }
    }
    let granted = granted.into_iter().flat_map(Granted::set).filter(|(name, _)| !is_edited(name.as_str().as_bytes()));
    for (name, value) in granted.chain(edits.into_iter().flat_map(RuleEdits::written)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.put_slice(part);
        }
    }
    text.put_slice(b"\r\n");
    text
}

/// The names of a head's fields, each with where its line is.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Range<usize>)> {
    let mut at = 0;
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').map(move |line| {
        let begin = at;
        at += line.len();
        (line, begin..at)
    });
    lines.skip(1).filter_map(|(line, range)| Some((&line[..line.iter().position(|&byte| byte == b':')?], range)))
}

/// The fields that are not passed on, in their order. Of most heads there are none beside those that never are.
fn dropped<'h>(
    edits: &'h Edits,
    host: bool,
    part: &Part,
    removed: impl Iterator<Item = Range<usize>>,
) -> Cow<'h, [Range<usize>]> {
    let host = edits.host.iter().filter(|_| host);
    let parents = edits.trace_parents.iter().filter(|_| !part.keeps_parent());
    let states = edits.trace_states.iter().filter(|_| !part.keeps_state());
    let mut more = host.chain(parents).chain(states).cloned().chain(removed).peekable();
    let mut dropped = Cow::Borrowed(&edits.dropped[..]);
    if more.peek().is_some() {
        dropped.to_mut().extend(more);
        dropped.to_mut().sort_unstable_by_key(|range| range.start);
        // For two reasons is once.
        dropped.to_mut().dedup();
    }
    dropped
}

/// An address as text. Each request needs it: the usual ones are written by hand, at a tenth of the cost.
fn name_of(address: IpAddr) -> String {
    let mut text = String::with_capacity(ADDRESS_BYTES);
    match address {
        IpAddr::V4(address) => {
            for (at, byte) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    text.push('.');
                }
                for unit in [100, 10, 1] {
                    if byte >= unit || unit == 1 {
                        text.push(char::from(b'0' + byte / unit % 10));
                    }
                }
            }
        }
        // Writing to a string cannot fail.
        IpAddr::V6(address) => drop(write!(text, "{address}")),
    }
    text
}

/// The names that are removed from a response. A 101 keeps what makes it one.
pub(crate) fn dropped_from_response(headers: &HeaderMap, status: u16) -> Vec<HeaderName> {
    let nominations =
        headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let nominations: Vec<_> = nominations.map(<[u8]>::trim_ascii).collect();
    let is_dropped = |name: &&HeaderName| {
        let name = name.as_str();
        let nominated = || nominations.iter().any(|nominated| nominated.eq_ignore_ascii_case(name.as_bytes()));
        match name {
            "connection" => false,
            // Neither belongs to an answer that has no body by definition (RFC 9110 section 8.6, RFC 9112 section 6.1).
            "content-length" => status < 200 || status == 204,
            "transfer-encoding" => status < 200 || matches!(status, 204 | 304),
            "upgrade" => status != 101,
            _ => HOP_BY_HOP.contains(&name) || nominated(),
        }
    };
    headers.keys().filter(is_dropped).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::trace::Trace;
    use super::*;

    fn set(facts: &Facts, host: &str) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        set_in_request(facts, host, "id", |name, parts| fields.push((name, parts.concat())));
        fields
    }

    #[test]
    fn p25_p26_a_clients_proxy_fields_and_their_twins_are_dropped() {
        let mut headers = HeaderMap::new();
        let dropped = [
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded-proto",
            "x_forwarded-host",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "x-request-id",
            "cf-connecting-ip",
            "cf_ray",
            "x-dormouse-wake",
            "x_dormouse_wake",
            "proxy",
        ];
        for name in dropped.into_iter().chain(["x-forward", "accept", "cookie", "x_mine"]) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        let mut names: Vec<_> = dropped_from_request(&headers).iter().map(ToString::to_string).collect();
        names.sort_unstable();
        let mut expected = dropped.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn the_fields_say_who_asked_and_how() {
        let field = |name: &'static str, value: &str| (name, value.to_owned());
        let facts = Facts { client: "192.0.2.7".parse().ok(), port: Some(8443), scheme: Scheme::Https };
        let fields = set(&facts, "a.example:8443");
        assert!(fields.contains(&field("X-Forwarded-For", "192.0.2.7")));
        assert!(fields.contains(&field("X-Forwarded-Port", "8443")));
        assert!(fields.contains(&field("Forwarded", "for=192.0.2.7;host=\"a.example:8443\";proto=https")));
        let fields = set(&Facts { client: "2001:db8::1".parse().ok(), ..facts }, "a");
        assert!(fields.contains(&field("Forwarded", "for=\"[2001:db8::1]\";host=\"a\";proto=https")));
    }

    #[test]
    fn of_a_client_without_an_address_no_address_is_told() {
        let facts = Facts { client: None, port: None, scheme: Scheme::Http };
        let fields = set(&facts, "a");
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Request-Id"]);
        assert!(fields.contains(&("Forwarded", "for=unknown;host=\"a\";proto=http".to_owned())));
    }

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for text in ["0.0.0.0", "1.20.103.255", "10.0.100.9", "255.255.255.255", "::", "2001:db8::1"] {
            assert_eq!(name_of(text.parse().expect("an address")), text);
        }
    }

    fn written(text: &str) -> String {
        rewritten(text, None)
    }

    fn rewritten(text: &str, rewritten: Option<&Rewritten>) -> String {
        changed(text, &Changes { rewritten, part: &Part::Nothing, granted: None, edits: None })
    }

    fn changed(text: &str, changes: &Changes<'_>) -> String {
        let head = Head::parse(text.as_bytes(), 100).expect("a head");
        let facts = Facts { client: "192.0.2.7".parse().ok(), port: Some(80), scheme: Scheme::Http };
        String::from_utf8(for_instance(text.as_bytes(), &head, changes, &facts, "id").to_vec()).expect("text")
    }

    const OURS: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
        X-Forwarded-Host: a.example\r\nX-Forwarded-Port: 80\r\n\
        Forwarded: for=192.0.2.7;host=\"a.example\";proto=http\r\nX-Request-Id: id\r\nVia: 1.1 dormouse\r\n\r\n";

    #[test]
    fn p25_a_head_is_passed_on_as_it_is_but_for_what_proxies_say() {
        let text = written(
            "GET /x?y HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nhOST: a.example\r\nX_Real_IP:1\r\nA:  b \r\nA: c\r\nforwarded:\r\n\r\n",
        );
        assert_eq!(text, format!("GET /x?y HTTP/1.1\r\nhOST: a.example\r\nA:  b \r\nA: c\r\n{OURS}"));
        let text = written("GET / HTTP/1.1\r\nForwarded: a\r\nX-Request-Id: b\r\nHost: a.example\r\n\r\n");
        assert_eq!(text, format!("GET / HTTP/1.1\r\nHost: a.example\r\n{OURS}"));
    }

    #[test]
    fn a_target_in_absolute_form_is_passed_on_in_origin_form() {
        for (line, fields) in [
            ("GET http://a.example/x HTTP/1.1", "Accept: b\r\nHost: a.example\r\n"),
            ("GET http://a.example/x HTTP/1.0", "Accept: b\r\n"),
        ] {
            let version = &line[line.len() - 8..];
            let text = written(&format!("{line}\r\n{fields}\r\n"));
            let ours = OURS.replace("1.1 dormouse", &format!("{} dormouse", &version[5..]));
            assert_eq!(text, format!("GET /x {version}\r\nHost: a.example\r\nAccept: b\r\n{ours}"));
        }
        let text = written("OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(text.starts_with("OPTIONS * HTTP/1.1\r\nHost: a.example\r\nX-F"), "{text}");
    }

    #[test]
    fn what_a_route_rewrites_is_written_and_the_rest_stays() {
        let target = Some("/new?q".to_owned());
        let host = Some(HeaderValue::from_static("inner:81"));
        for fields in [
            "Host: a.example\r\nForwarded: x\r\nA: b\r\n",
            "Forwarded: x\r\nA: b\r\nhost: a.example\r\n",
            "A: b\r\nHost:a.example\r\nX-Real-IP: x\r\n",
        ] {
            for line in ["GET /old?q HTTP/1.1", "GET http://a.example/old?q HTTP/1.1"] {
                let text = format!("{line}\r\n{fields}\r\n");
                let both = Rewritten { target: target.clone(), host: host.clone() };
                let both = rewritten(&text, Some(&both));
                assert_eq!(both, format!("GET /new?q HTTP/1.1\r\nHost: inner:81\r\nA: b\r\n{OURS}"), "{text}");
                let one = rewritten(&text, Some(&Rewritten { target: None, host: host.clone() }));
                assert_eq!(one, format!("GET /old?q HTTP/1.1\r\nHost: inner:81\r\nA: b\r\n{OURS}"), "{text}");
            }
        }
        let text = "GET /old HTTP/1.1\r\nA: b\r\nHost: a.example\r\n\r\n";
        let one = rewritten(text, Some(&Rewritten { target, host: None }));
        assert_eq!(one, format!("GET /new?q HTTP/1.1\r\nA: b\r\nHost: a.example\r\n{OURS}"));
    }

    #[test]
    fn who_lets_in_sets_its_fields_alone_and_takes_the_password() {
        let granted = Granted {
            drops_authorization: true,
            copied: vec![
                (HeaderName::from_static("x-forwarded-user"), Some(HeaderValue::from_static("ann"))),
                (HeaderName::from_static("x-groups"), None),
            ],
        };
        let part = Part::New(Trace::begin((1, 2), 3));
        for host in [None, Some(HeaderValue::from_static("inner"))] {
            for (line, begin) in [("GET /x", 3), ("GET http://a.example/x", 0)] {
                let fields = [
                    "AUTHORIZATION: Basic x\r\n",
                    "x-Groups: admin\r\n",
                    "X_Forwarded_User: eve\r\n",
                    "Host: a.example\r\n",
                    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
                    "X_groups:admin\r\n",
                    "X-Groupsy: b\r\n",
                    "Forwarded: x\r\n",
                    "X-Forwarded-User: eve\r\n",
                    "Authorization: Basic y\r\n",
                ];
                // Whichever is first and last.
                for turn in [begin, 4, 8] {
                    let mut fields = fields;
                    fields.rotate_left(turn);
                    let text = format!("{line} HTTP/1.1\r\n{}\r\n", fields.concat());
                    let rewritten = host.clone().map(|host| Rewritten { target: None, host: Some(host) });
                    let changes =
                        Changes { rewritten: rewritten.as_ref(), part: &part, granted: Some(&granted), edits: None };
                    let changed = changed(&text, &changes);
                    let mut lines: Vec<_> = changed.split("\r\n").collect();
                    assert_eq!(lines.remove(0), "GET /x HTTP/1.1");
                    let ours: Vec<_> = OURS.trim_end().split("\r\n").collect();
                    let host = host.as_ref().map_or("a.example", |host| host.to_str().expect("text"));
                    let parent = String::from_utf8(part.said_here().expect("a trace").to_vec()).expect("text");
                    let (host, parent) = (format!("Host: {host}"), format!("traceparent: {parent}"));
                    let mut expected = vec![&*host, &*parent, "X-Groupsy: b", "x-forwarded-user: ann", "", ""];
                    expected.extend(ours);
                    expected.sort_unstable();
                    lines.sort_unstable();
                    assert_eq!(lines, expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn an_edit_comes_last_and_p25_p26_frees_no_name_that_is_not_the_clients() {
        let said = r#"{"set": {"X-User": "op", "X-Forwarded-Prefix": "/api", "X_Set": "1"}, "add": {"A": "2"},
            "remove": ["Via", "cookie", "X-Gone"]}"#;
        let edits = RuleEdits::new(&serde_json::from_str(said).expect(said));
        let granted = Granted {
            drops_authorization: false,
            copied: vec![
                (HeaderName::from_static("x-user"), Some(HeaderValue::from_static("ann"))),
                (HeaderName::from_static("x-gone"), Some(HeaderValue::from_static("1"))),
                (HeaderName::from_static("x-groups"), Some(HeaderValue::from_static("b"))),
            ],
        };
        let text = "GET / HTTP/1.1\r\nX_User: eve\r\nVIA: 1.0 x\r\nA: 1\r\nX-Forwarded-Prefix: /evil\r\nx-set: 0\r\n\
            Host: a.example\r\nCookie: c\r\nx_forwarded_prefix: /evil\r\nX-User: eve\r\nx_gone: 1\r\n\r\n";
        let changes = Changes { rewritten: None, part: &Part::Nothing, granted: Some(&granted), edits: Some(&edits) };
        let ours = OURS.strip_suffix("Via: 1.1 dormouse\r\n\r\n").expect("it is the last");
        let written = "x-groups: b\r\nx-forwarded-prefix: /api\r\nx-user: op\r\nx_set: 1\r\na: 2\r\n\r\n";
        assert_eq!(changed(text, &changes), format!("GET / HTTP/1.1\r\nA: 1\r\nHost: a.example\r\n{ours}{written}"));
    }

    /// RFC 9110 section 10.1.1: there is nothing to wait with, or nobody who understands that it is waited for.
    #[test]
    fn an_expectation_is_passed_on_with_a_body_and_to_clients_that_know_it_only() {
        let with = |rest: &str| written(&format!("POST / {rest}\r\nHost: a.example\r\n\r\n")).contains("Expect");
        assert!(with("HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue"));
        assert!(!with("HTTP/1.1\r\nExpect: 100-continue"));
        assert!(!with("HTTP/1.0\r\nContent-Length: 5\r\nexpect: 100-continue"));
    }

    #[test]
    fn hop_by_hop_fields_leave_a_response_but_not_its_framing() {
        let mut headers = HeaderMap::new();
        for name in ["keep-alive", "x-nominated", "upgrade", "trailer", "content-length", "etag"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        headers.insert("connection", HeaderValue::from_static("close, X-Nominated, content-length"));
        let mut names: Vec<_> = dropped_from_response(&headers, 200).iter().map(ToString::to_string).collect();
        names.sort_unstable();
        assert_eq!(names, ["keep-alive", "trailer", "upgrade", "x-nominated"]);
        assert!(!dropped_from_response(&headers, 101).iter().any(|name| name == "upgrade"));
    }
}
