//! What an instance's answer is: whether it can be read in one way only (if not, its client gets a bad gateway and never a guess),
//! and whether it is an event stream.
//!
//! Pure; the lanes ask for each head before anything of it is passed on. Pingora has refused what is no head, and put folded
//! values into one line; but it takes equal lengths for one, and any codings that end in `chunked`.

use http::{HeaderMap, HeaderValue, Version, header};

/// The begin of an event stream's media type.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Whether there is one way to find the end of the body.
pub(crate) fn is_clear(version: Version, headers: &HeaderMap) -> bool {
    length_is_clear(headers) && coding_is_clear(version, headers)
}

/// Whether the answer goes on as long as something happens, and may be silent in between.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii_start());
    let begin = media_type.and_then(|media_type| media_type.get(..EVENT_STREAM.len()));
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(EVENT_STREAM))
}

fn length_is_clear(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    all.next().is_none_or(is_number) && all.next().is_none()
}

/// A coding in HTTP/1.0 is faulty framing (RFC 9112 section 6.1), and others than `chunked` are not understood here.
fn coding_is_clear(version: Version, headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    all.next().is_none_or(|coding| version == Version::HTTP_11 && is_chunked(coding)) && all.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn clear(fields: &[(&'static str, &'static [u8])]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("a value"));
        }
        is_clear(Version::HTTP_11, &headers)
    }

    #[test]
    fn event_streams_are_known_by_the_begin_of_their_media_type() {
        let is = |value: &str| {
            let value = HeaderValue::try_from(value).expect("a value");
            is_event_stream(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        assert!(is("text/event-stream") && is("Text/Event-Stream;charset=utf-8") && is(" text/event-stream"));
        assert!(!is("") && !is("text/event") && !is("text/html, text/event-stream"));
        assert!(!is_event_stream(&HeaderMap::new()));
    }

    #[test]
    fn p16_one_length_or_one_chunked_is_clear_and_nothing_else() {
        assert!(clear(&[("etag", b"x")]));
        assert!(clear(&[("content-length", b"5")]));
        assert!(clear(&[("transfer-encoding", b"Chunked")]));
        for bad in [
            [("content-length", b"5".as_slice()), ("content-length", b"5")],
            [("content-length", b"5, 5"), ("etag", b"x")],
            [("content-length", b""), ("etag", b"x")],
            [("content-length", b"+5"), ("etag", b"x")],
            [("transfer-encoding", b"gzip, chunked"), ("etag", b"x")],
            [("transfer-encoding", b"identity"), ("etag", b"x")],
            [("transfer-encoding", b"chunked"), ("transfer-encoding", b"chunked")],
        ] {
            assert!(!clear(&bad), "{bad:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        assert!(!is_clear(Version::HTTP_10, &headers));
    }
}
