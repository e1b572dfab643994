//! Whether an answer is compressed on its way to a client, and how.
//!
//! Pure, from the policy, what the client takes, and the answer's head; the lane asks once for each answer of an environment
//! that compresses. What is said of an answer does not depend on its method: HEAD is told what GET would be.

use std::str::from_utf8;

use dormouse_link::policy::{Coding, Compression};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::fields::Fields;
use crate::decide::response::is_event_stream;
use crate::front::head::{Kind, Version};

/// The begin of the media types of calls.
const GRPC: &[u8] = b"application/grpc";

/// The weight of a coding that is liked best, in thousandths.
const WHOLE: u16 = 1000;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is nobody's to compress.
    Untouched,
    /// Others would get it compressed, and caches have to know.
    Plain,
    Compressed(Coding),
}

/// The fields of a request that matter, as its client said them: what a rule makes of them is for the instance.
const OF_REQUESTS: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::CACHE_CONTROL, header::IF_NONE_MATCH];

/// Those fields; taken where a policy compresses.
pub(crate) fn accepts(fields: Fields<'_>) -> HeaderMap {
    let mut accepts = HeaderMap::new();
    for name in OF_REQUESTS {
        for value in fields.all(name.as_str()).filter_map(|value| HeaderValue::from_bytes(value).ok()) {
            accepts.append(&name, value);
        }
    }
    accepts
}

/// What matters of a request.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) version: Version,
    pub(crate) kind: Kind,
    /// By [`accepts`].
    pub(crate) headers: &'a HeaderMap,
}

/// Decides.
pub(crate) fn verdict(policy: &Compression, asked: &Asked<'_>, status: StatusCode, headers: &HeaderMap) -> Verdict {
    if asked.kind == Kind::Grpc || !may_be(policy, status, headers) {
        return Verdict::Untouched;
    }
    // HTTP/1.0 knows no chunks: the end of a connection would be the only one that a body has.
    if asked.version == Version::Http10 || has_token(asked.headers, &header::CACHE_CONTROL, "no-transform") {
        return Verdict::Plain;
    }
    taken(&policy.codings, asked.headers).map_or(Verdict::Plain, Verdict::Compressed)
}

/// Whether anybody would get it compressed.
fn may_be(policy: &Compression, status: StatusCode, headers: &HeaderMap) -> bool {
    let is_whole = !status.is_informational() && !matches!(status.as_u16(), 204 | 205 | 206 | 304);
    let is_encoded = members(headers, &header::CONTENT_ENCODING).any(|coding| !coding.eq_ignore_ascii_case("identity"));
    // Without content there is nothing to begin with.
    let least = u64::from(policy.least_bytes).max(1);
    let is_short = length(headers).is_some_and(|length| length < least);
    is_whole
        && !is_encoded
        && !is_short
        && !headers.contains_key(header::CONTENT_RANGE)
        && !has_token(headers, &header::CACHE_CONTROL, "no-transform")
        && has_type(policy, headers)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Events and calls go out one by one, each with its own end, which is theirs to find.
fn has_type(policy: &Compression, headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    policy.types.iter().any(|types| types.has(media_type))
        && !is_event_stream(headers)
        && !media_type.get(..GRPC.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(GRPC))
}

/// The coding that a client likes best, by the policy's order where it likes several alike; none where it takes the answer as
/// it is rather than in any of them (RFC 9110 section 12.5.3).
fn taken(codings: &[Coding], request: &HeaderMap) -> Option<Coding> {
    let (mut any, mut identity, mut weights) = (None, None, [None; 3]);
    for member in members(request, &header::ACCEPT_ENCODING) {
        let (name, weight) = weighed(member);
        let is = |coding: &Coding| {
            name.eq_ignore_ascii_case(coding.as_str())
                || (*coding == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip"))
        };
        if name == "*" {
            any = any.or(Some(weight));
        } else if name.eq_ignore_ascii_case("identity") {
            identity = identity.or(Some(weight));
        } else if let Some(at) = codings.iter().position(is) {
            weights[at] = weights[at].or(Some(weight));
        }
    }
    let weight = |at: usize| weights[at].or(any).unwrap_or(0);
    let mut best = None;
    for (at, coding) in codings.iter().enumerate().take(weights.len()) {
        if weight(at) > best.map_or(0, |(_, weight)| weight) {
            best = Some((coding, weight(at)));
        }
    }
    best.filter(|(_, weight)| identity.is_none_or(|identity| identity <= *weight)).map(|(coding, _)| *coding)
}

/// A member of a list with weights, and its weight in thousandths; 0 if nobody can tell.
fn weighed(member: &str) -> (&str, u16) {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(WHOLE, |weight| thousandths(weight).unwrap_or(0)))
}

fn thousandths(weight: &str) -> Option<u16> {
    let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let rest: u16 = format!("{rest:0<3}").parse().ok()?;
    match (whole, rest) {
        ("0", rest) => Some(rest),
        ("1", 0) => Some(WHOLE),
        _ => None,
    }
}

/// The members of a list, in all fields of that name.
pub(crate) fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers.get_all(name).into_iter().map(|value| from_utf8(value.as_bytes()).unwrap_or_default());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// Whether a list has that member.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(token))
}

/// The tag of an answer whose bytes are not the instance's any more (RFC 9110 section 8.8.1); none of what is no tag.
pub(crate) fn weak(tag: &str) -> Option<String> {
    if tag.starts_with("W/\"") { Some(tag.to_owned()) } else { tag.starts_with('"').then(|| format!("W/{tag}")) }
}

/// Whether a client has an answer with that tag only in a form of which this edge made it weak: then the word that it is
/// still good is for that form, too (RFC 9111 section 4.3.4).
pub(crate) fn is_had_as_weak(tag: &str, request: &HeaderMap) -> bool {
    let has = |tag: &str| has_token(request, &header::IF_NONE_MATCH, tag);
    tag.starts_with('"') && has(&format!("W/{tag}")) && !has(tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        headers
    }

    fn of(accepts: &[&str]) -> Option<Coding> {
        let fields: Vec<_> = accepts.iter().map(|value| ("accept-encoding", *value)).collect();
        taken(&Compression::default().codings, &map(&fields))
    }

    #[test]
    fn a_client_gets_what_it_likes_best_and_of_equals_the_policys_first() {
        use Coding::{Br, Gzip, Zstd};
        for (accepts, coding) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Br)),
            ("deflate,gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP;Q=1", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", Some(Gzip)),
            ("gzip ; q=0.001", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*, zstd;q=0", Some(Br)),
            ("*;q=0.5, gzip;q=0.6", Some(Gzip)),
            ("gzip, identity;q=0", Some(Gzip)),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("", None),
            ("identity", None),
            ("deflate", None),
            ("identity;q=0", None),
            ("*;q=0", None),
            ("gzip;q=0, *;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=", None),
            ("gzip;q=-1", None),
            ("gzip;q=x", None),
            ("gzipped", None),
            ("gzip;q=0, gzip", None),
        ] {
            assert_eq!(of(&[accepts]), coding, "{accepts:?}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["gzip;q=0", "br"]), Some(Br));
        assert_eq!(taken(&[Gzip], &map(&[("accept-encoding", "*")])), Some(Gzip));
        assert_eq!(taken(&[Gzip, Zstd], &map(&[("accept-encoding", "zstd, gzip")])), Some(Gzip));
    }

    proptest! {
        #[test]
        fn nobody_gets_what_it_did_not_name(accepts in "[a-z*;=,0-9. ]{0,40}") {
            if let Some(coding) = of(&[&accepts]) {
                prop_assert!(accepts.contains(coding.as_str()) || accepts.contains('*'));
            }
        }
    }

    fn verdict_of(status: u16, fields: &[(&'static str, &str)]) -> Verdict {
        let request = map(&[("accept-encoding", "gzip")]);
        let asked = Asked { version: Version::Http11, kind: Kind::Plain, headers: &request };
        let status = StatusCode::from_u16(status).expect("a status");
        verdict(&Compression::default(), &asked, status, &map(fields))
    }

    #[test]
    fn only_whole_answers_of_listed_types_that_nobody_encoded_are_compressed() {
        let html = ("content-type", "text/html; charset=utf-8");
        let gzip = Verdict::Compressed(Coding::Gzip);
        for (status, more, verdict) in [
            (200, &[][..], gzip),
            (404, &[], gzip),
            (200, &[("content-length", "1024")], gzip),
            (200, &[("content-encoding", "identity")], gzip),
            (200, &[("cache-control", "private, max-age=1")], gzip),
            (200, &[("content-length", "1023")], Verdict::Untouched),
            (200, &[("content-length", "0")], Verdict::Untouched),
            (200, &[("content-encoding", "br")], Verdict::Untouched),
            (200, &[("content-encoding", "identity, gzip")], Verdict::Untouched),
            (200, &[("content-range", "bytes 0-1/2")], Verdict::Untouched),
            (200, &[("cache-control", "private"), ("cache-control", "max-age=1, No-Transform")], Verdict::Untouched),
            (101, &[], Verdict::Untouched),
            (103, &[], Verdict::Untouched),
            (204, &[], Verdict::Untouched),
            (205, &[], Verdict::Untouched),
            (206, &[], Verdict::Untouched),
            (304, &[], Verdict::Untouched),
        ] {
            let fields: Vec<_> = more.iter().copied().chain([html]).collect();
            assert_eq!(verdict_of(status, &fields), verdict, "{status} {more:?}");
        }
        for (media_type, verdict) in [
            ("TEXT/HTML", gzip),
            (" application/ld+json ;x", gzip),
            ("image/png", Verdict::Untouched),
            ("text/event-stream", Verdict::Untouched),
            ("Text/Event-Stream;charset=utf-8", Verdict::Untouched),
            ("application/grpc+json", Verdict::Untouched),
            ("", Verdict::Untouched),
        ] {
            assert_eq!(verdict_of(200, &[("content-type", media_type)]), verdict, "{media_type}");
        }
        assert_eq!(verdict_of(200, &[]), Verdict::Untouched);
    }

    #[test]
    fn who_does_not_get_it_compressed_is_told_that_others_do() {
        let html = map(&[("content-type", "text/html")]);
        let (takes, not) = (map(&[("accept-encoding", "gzip")]), map(&[]));
        let as_is = map(&[("accept-encoding", "gzip"), ("cache-control", "no-transform")]);
        for (version, kind, headers, expected) in [
            (Version::Http2, Kind::EventStream, &takes, Verdict::Compressed(Coding::Gzip)),
            (Version::Http11, Kind::Plain, &not, Verdict::Plain),
            (Version::Http11, Kind::Plain, &as_is, Verdict::Plain),
            (Version::Http10, Kind::Plain, &takes, Verdict::Plain),
            (Version::Http2, Kind::Grpc, &takes, Verdict::Untouched),
        ] {
            let asked = Asked { version, kind, headers };
            assert_eq!(verdict(&Compression::default(), &asked, StatusCode::OK, &html), expected);
        }
    }

    #[test]
    fn a_tag_is_weak_when_the_bytes_are_others() {
        assert_eq!(weak("\"a\"").as_deref(), Some("W/\"a\""));
        assert_eq!(weak("W/\"a\"").as_deref(), Some("W/\"a\""));
        assert_eq!(weak("a"), None);
        for (said, had) in [
            (&["W/\"a\""][..], true),
            (&["\"b\", W/\"a\""], true),
            (&["\"b\"", "W/\"a\""], true),
            (&["\"a\""], false),
            (&["W/\"a\", \"a\""], false),
            (&["W/\"b\""], false),
            (&["*"], false),
        ] {
            let fields: Vec<_> = said.iter().map(|value| ("if-none-match", *value)).collect();
            assert_eq!(is_had_as_weak("\"a\"", &map(&fields)), had, "{said:?}");
        }
        assert!(!is_had_as_weak("W/\"a\"", &map(&[("if-none-match", "W/W/\"a\"")])));
    }
}
