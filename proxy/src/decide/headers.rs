//! Header fields on their way through: ours are rebuilt, the client's versions of them dropped, hop-by-hop ones removed.
//!
//! Pure; the lanes apply what is decided here. Application servers map `_` and `-` to one name, so a field's twin with
//! underscores counts as the field itself.

use std::net::IpAddr;

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
        self.client.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
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

/// The fields that are set in a request; what is not known is left away. No value is copied twice.
pub(crate) fn set_in_request(
    facts: &Facts,
    host: &str,
    request_id: &str,
) -> impl Iterator<Item = (&'static str, HeaderValue)> + use<> {
    let scheme = facts.scheme.as_str();
    let address = facts.client.map(|address| address.to_string());
    let node = match (facts.client, &address) {
        (Some(IpAddr::V6(_)), Some(address)) => ["for=\"[", address, "]\""],
        (_, Some(address)) => ["for=", address, ""],
        (_, None) => ["for=", "unknown", ""],
    };
    let host_pair = if host.is_empty() { [""; 3] } else { [";host=\"", host, "\""] };
    let mut forwarded = String::with_capacity(FORWARDED_BYTES + host.len());
    for part in node.into_iter().chain(host_pair).chain([";proto=", scheme]) {
        forwarded.push_str(part);
    }
    let address = address.map(value);
    let fields = [
        ("X-Forwarded-For", address.clone()),
        ("X-Forwarded-Proto", Some(HeaderValue::from_static(scheme))),
        ("X-Forwarded-Host", Some(value(host.to_owned()))),
        ("X-Forwarded-Port", facts.port.map(HeaderValue::from)),
        ("Forwarded", Some(value(forwarded))),
        ("X-Real-IP", address),
        ("X-Request-Id", Some(value(request_id.to_owned()))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
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
        let set = |facts: &Facts, host: &str| set_in_request(facts, host, "id").collect::<Vec<_>>();
        let field = |name: &'static str, value: &'static str| (name, HeaderValue::from_static(value));
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
        let fields: Vec<_> = set_in_request(&facts, "a", "id").collect();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Request-Id"]);
        let forwarded = HeaderValue::from_static("for=unknown;host=\"a\";proto=http");
        assert!(fields.contains(&("Forwarded", forwarded)));
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
