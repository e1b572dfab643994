//! Header fields that are not the client's to say, or not the application's: one list for whoever drops, asks for, or copies
//! fields.
//!
//! Application servers map `_` and `-` to one name, so a field's twin with underscores counts as the field itself.

/// Fields that only proxies say, beside those with a prefix of [`PROXIES_PREFIXES`].
const PROXIES: [&str; 8] = [
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "proxy",
    "x-original-forwarded-for",
];
/// Forwarding, a content delivery network's, and our own.
const PROXIES_PREFIXES: [&str; 3] = ["x-forwarded-", "cf-", OURS_PREFIX];
/// What edges and the control plane tell each other.
const OURS_PREFIX: &str = "x-dormouse-";

/// What an edge says to an instance in any case.
const SAID_BY_EDGES: [&str; 9] = [
    "forwarded",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// How a message is to be read, where it goes, and what becomes of its connection (RFC 9110 section 7.6.1, RFC 9112 section 6).
const OF_MESSAGES: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How the bytes of an answer's body are to be read, and what only the next hop is asked.
const OF_ANSWERS: [&str; 2] = ["content-encoding", "proxy-authenticate"];

/// A `tchar` (RFC 9110 section 5.6.2), of which names of fields are.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The name that application servers take it for.
pub fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Whether an application may take `name` for the (lower-case) field `field`.
pub fn canonical_eq(name: &[u8], field: &str) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == field.len() && name.iter().map(fold).eq(field.bytes())
}

/// Whether only proxies say a field of that name: a client's is dropped.
pub fn is_reserved_for_proxies(name: &[u8]) -> bool {
    is_proxies_own(name) || PROXIES_PREFIXES.iter().any(|prefix| begins_with(name, prefix))
}

fn is_proxies_own(name: &[u8]) -> bool {
    PROXIES.iter().any(|field| canonical_eq(name, field))
}

fn begins_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| canonical_eq(begin, prefix))
}

/// Whether a name is almost one that frames a body, so that somebody behind may take it for that; or is one.
pub fn is_disguise(name: &[u8]) -> bool {
    let letters = || name.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase);
    name.len() >= 13 && (letters().eq(*b"contentlength") || letters().eq(*b"transferencoding"))
}

/// Whether a field of that name says how its message is to be read, or is its connection's.
pub(crate) fn is_of_messages(name: &[u8]) -> bool {
    OF_MESSAGES.iter().any(|field| canonical_eq(name, field))
}

/// Whether instances get the edge's own field of that name.
pub(crate) fn is_said_by_edges(name: &[u8]) -> bool {
    SAID_BY_EDGES.iter().any(|field| canonical_eq(name, field))
}

/// Whether a route may change that field of requests: not what frames them, and not who asked for what.
pub(crate) fn is_editable_in_requests(name: &[u8]) -> bool {
    let is_ours = is_said_by_edges(name) || is_proxies_own(name) || begins_with(name, OURS_PREFIX);
    !(is_of_messages(name) || is_disguise(name) || is_ours)
}

/// Whether a route may change that field of answers: nothing by which their end, or their body's form, is known.
pub(crate) fn is_editable_in_answers(name: &[u8]) -> bool {
    let is_of_body = OF_ANSWERS.iter().any(|field| canonical_eq(name, field));
    !(is_of_messages(name) || is_disguise(name) || is_of_body)
}
