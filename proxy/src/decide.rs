//! What is to become of a request: pure, from its head, its connection and the table.

pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod refuse;
pub(crate) mod response;

use std::sync::Arc;

use crate::front::fence::Framing;
use crate::front::head::Head;
use crate::front::tls::CertificateId;
use crate::live::cell::Cell;
use refuse::Reason;

/// Paths under it are ours on every host.
const RESERVED_PREFIX: &str = "/.dormouse/";

/// What is to become of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It goes to an environment.
    Route(Arc<Cell>),
    /// It is answered here.
    Answer(Reason),
}

/// Who a TLS client was told that it speaks to, and who would have been named to it for another host.
pub(crate) struct Proof<'a> {
    pub(crate) name: &'a str,
    pub(crate) certificate: CertificateId,
    pub(crate) instead: &'a dyn Fn(&str) -> Option<CertificateId>,
}

impl Proof<'_> {
    /// Whether `host` would have proved itself otherwise: browsers use a connection for every host that its certificate names
    /// (RFC 9113 section 9.1.1), and one tenant's must not carry another's requests. A connection's own name is never
    /// misdirected: its certificate may have been renewed since.
    fn is_anothers(&self, host: &str) -> bool {
        host != self.name && (self.instead)(host) != Some(self.certificate)
    }
}

/// Decides; whatever is refused here neither wakes nor reaches anybody.
pub(crate) fn decide(
    head: &Head,
    proof: Option<&Proof<'_>>,
    body_max: u64,
    route: impl FnOnce(&str) -> Option<Arc<Cell>>,
) -> Decision {
    let Some(cell) = route(head.name.as_str()) else { return Decision::Answer(Reason::UnknownHost) };
    if proof.is_some_and(|proof| proof.is_anothers(head.name.as_str())) {
        return Decision::Answer(Reason::Misdirected);
    }
    if is_reserved(head.path()) {
        return Decision::Answer(Reason::Reserved);
    }
    if matches!(head.framing, Framing::Length(length) if length > cell.body_max(body_max)) {
        return Decision::Answer(Reason::BodyTooLarge);
    }
    Decision::Route(cell)
}

/// Whether a path is ours, as it is written or as an application would resolve it: nobody gets around the prefix by another
/// spelling of it, and what goes on to an application is always the path as it was sent.
fn is_reserved(path: &str) -> bool {
    let resolves = |pair: &[u8]| matches!(pair, b"//" | b"/.");
    let bytes = path.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\')) && !bytes.windows(2).any(resolves) {
        return false;
    }
    let decoded = decoded(bytes);
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        // What follows a semicolon are parameters of the segment (RFC 3986 section 3.3).
        match segment.split(|&byte| byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let is_ours = |segment: &&[u8]| segment.eq_ignore_ascii_case(RESERVED_PREFIX.trim_matches('/').as_bytes());
    path.starts_with(RESERVED_PREFIX) || segments.first().is_some_and(is_ours)
}

/// Percent-decoded once, as applications do; what is no escape stays.
fn decoded(mut bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        let escape = match rest {
            [high, low, after @ ..] if *first == b'%' => digit(*high).zip(digit(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        let (byte, after) = escape.map_or((*first, rest), |((high, low), after)| (high << 4 | low, after));
        decoded.push(byte);
        bytes = after;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use dormouse_link::EnvironmentId;

    use super::*;

    fn decided(head: &str) -> Option<Reason> {
        let head = Head::parse(head.as_bytes(), 100).expect("a head");
        let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
        match decide(&head, None, 10, |host| (host == "a.example").then_some(cell)) {
            Decision::Route(_) => None,
            Decision::Answer(reason) => Some(reason),
        }
    }

    #[test]
    fn p23_a_connection_serves_the_hosts_of_its_certificate_and_no_others() {
        let id = |host: &str| CertificateId::of_chain(&crate::front::tls::tests::chain(host));
        let (one, other) = (id("one").expect("an id"), id("other").expect("an id"));
        let decided = |host: &str| {
            let head = Head::parse(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 100).expect("a head");
            let cell = Arc::new(Cell::new(EnvironmentId::new("e")));
            let instead = |host: &str| match host {
                // Renewed since the handshake.
                "a.example" | "other.example" => Some(other),
                "same.example" => Some(one),
                _ => None,
            };
            let proof = Proof { name: "a.example", certificate: one, instead: &instead };
            match decide(&head, Some(&proof), 10, |host| (host != "unknown.example").then_some(cell)) {
                Decision::Route(_) => None,
                Decision::Answer(reason) => Some(reason),
            }
        };
        assert_eq!(decided("A.example:443"), None, "its own name, whatever is offered now");
        assert_eq!(decided("same.example"), None);
        assert_eq!(decided("other.example"), Some(Reason::Misdirected));
        assert_eq!(decided("none.example"), Some(Reason::Misdirected));
        assert_eq!(decided("unknown.example"), Some(Reason::UnknownHost));
    }

    #[test]
    fn a_known_host_is_routed_and_everything_else_answered() {
        assert_eq!(decided("GET / HTTP/1.1\r\nHost: A.example:80\r\n\r\n"), None);
        assert_eq!(decided("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"), Some(Reason::UnknownHost));
        assert_eq!(decided("GET / HTTP/1.0\r\n\r\n"), Some(Reason::UnknownHost));
        assert_eq!(decided("GET /.dormouse/x HTTP/1.1\r\nHost: a.example\r\n\r\n"), Some(Reason::Reserved));
        for bad in [
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
        ] {
            let head = format!("GET {bad} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            assert_eq!(decided(&head), Some(Reason::Reserved), "p24 {bad}");
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
        ] {
            let head = format!("GET {good} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            assert_eq!(decided(&head), None, "p24 {good}");
        }
        let large = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\n";
        assert_eq!(decided(large), Some(Reason::BodyTooLarge));
    }
}
