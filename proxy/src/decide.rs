//! What is to become of a request: pure, from its head, its connection and the table.

pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod refuse;
pub(crate) mod response;

use std::sync::Arc;

use crate::front::fence::Framing;
use crate::front::head::Head;
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

/// Decides; whatever is refused here neither wakes nor reaches anybody.
pub(crate) fn decide(head: &Head, body_max: u64, route: impl FnOnce(&str) -> Option<Arc<Cell>>) -> Decision {
    let Some(cell) = route(head.name.as_str()) else { return Decision::Answer(Reason::UnknownHost) };
    if is_reserved(head.path()) {
        return Decision::Answer(Reason::Reserved);
    }
    if matches!(head.framing, Framing::Length(length) if length > body_max) {
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
        match decide(&head, 10, |host| (host == "a.example").then_some(cell)) {
            Decision::Route(_) => None,
            Decision::Answer(reason) => Some(reason),
        }
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
