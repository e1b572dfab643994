//! Header fields on their way through: ours are rebuilt, the client's versions of them dropped, hop-by-hop ones removed.
//!
//! Pure; the lanes apply what is decided here. Application servers map `_` and `-` to one name, so a field's twin with
//! underscores counts as the field itself.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields that only proxies set, beside those with a prefix of [`RESERVED_PREFIXES`].
const RESERVED: [&str; 8] = [
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
const RESERVED_PREFIXES: [&str; 3] = ["x-forwarded-", "cf-", "x-dormouse-"];

/// Room for `Forwarded` beside the host.
const FORWARDED_BYTES: usize = 80;

/// Fields of one connection, in responses. `Connection` and `Transfer-Encoding` of a body are the lane's own business.
const HOP_BY_HOP: [&str; 5] = ["keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer"];

/// What the front knows of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) client: SocketAddr,
    /// The port that the client connected to.
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
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

/// Whether a client's field of that name is dropped.
pub(crate) fn is_reserved_for_proxies(name: &[u8]) -> bool {
    let prefixed = |prefix: &&str| name.get(..prefix.len()).is_some_and(|begin| canonical_eq(begin, prefix));
    RESERVED.iter().any(|reserved| canonical_eq(name, reserved)) || RESERVED_PREFIXES.iter().any(prefixed)
}

/// Whether an application may take `name` for the (lower-case) field `field`.
pub(crate) fn canonical_eq(name: &[u8], field: &str) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == field.len() && name.iter().map(fold).eq(field.bytes())
}

/// The names that are removed from a request.
pub(crate) fn dropped_from_request(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.keys().filter(|name| is_reserved_for_proxies(name.as_str().as_bytes())).cloned().collect()
}

/// The fields that are set in a request. No value is copied twice.
pub(crate) fn set_in_request(facts: &Facts, host: &str, request_id: &str) -> [(&'static str, HeaderValue); 7] {
    let address = facts.client.ip().to_canonical();
    let scheme = facts.scheme.as_str();
    let (is_v6, address) = (address.is_ipv6(), address.to_string());
    let mut forwarded = String::with_capacity(FORWARDED_BYTES + host.len());
    let node = if is_v6 { ["for=\"[", &address, "]\""] } else { ["for=", &address, ""] };
    let host_pair = if host.is_empty() { [""; 3] } else { [";host=\"", host, "\""] };
    for part in node.into_iter().chain(host_pair).chain([";proto=", scheme]) {
        forwarded.push_str(part);
    }
    let address = value(address);
    [
        ("X-Forwarded-For", address.clone()),
        ("X-Forwarded-Proto", HeaderValue::from_static(scheme)),
        ("X-Forwarded-Host", value(host.to_owned())),
        ("X-Forwarded-Port", HeaderValue::from(facts.port)),
        ("Forwarded", value(forwarded)),
        ("X-Real-IP", address),
        ("X-Request-Id", value(request_id.to_owned())),
    ]
}

/// Without a copy. Nothing that comes here cannot be a value; it would be left empty.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
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
    use super::*;

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
        let client = "[::ffff:192.0.2.7]:1234".parse().expect("an address");
        let facts = Facts { client, port: 8443, scheme: Scheme::Https };
        let set = set_in_request(&facts, "a.example:8443", "id");
        assert!(set.contains(&("X-Forwarded-For", HeaderValue::from_static("192.0.2.7"))));
        assert!(
            set.contains(&("Forwarded", HeaderValue::from_static("for=192.0.2.7;host=\"a.example:8443\";proto=https")))
        );
        let client = "[2001:db8::1]:1234".parse().expect("an address");
        let set = set_in_request(&Facts { client, ..facts }, "a", "id");
        assert!(set.contains(&("Forwarded", HeaderValue::from_static("for=\"[2001:db8::1]\";host=\"a\";proto=https"))));
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
