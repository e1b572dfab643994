//! What is to become of a request: pure, from its head, its connection and the table.

pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod refuse;

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
    if head.path().starts_with(RESERVED_PREFIX) {
        return Decision::Answer(Reason::Reserved);
    }
    if matches!(head.framing, Framing::Length(length) if length > body_max) {
        return Decision::Answer(Reason::BodyTooLarge);
    }
    Decision::Route(cell)
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
        let large = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\n";
        assert_eq!(decided(large), Some(Reason::BodyTooLarge));
    }
}
