//! Whether an instance's answer can be read in one way only; if not, its client gets a bad gateway and never a guess.
//!
//! Pure; the lanes ask for each head before anything of it is passed on. Pingora joins folded lines, collapses equal lengths
//! and takes any last coding `chunked`; what is left to see of that is refused here.

use http::{HeaderMap, HeaderValue, Version, header};

/// Whether head and framing are clear.
pub(crate) fn is_clear(version: Version, headers: &HeaderMap) -> bool {
    headers.values().all(is_one_line) && length_is_clear(headers) && coding_is_clear(version, headers)
}

/// A folded or split value would be further fields to whoever reads it next (RFC 9110 section 5.5).
fn is_one_line(value: &HeaderValue) -> bool {
    !value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
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
            // A folded value comes from Pingora unchecked; a safe value cannot be made of it, so those stand in edge tests.
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("a value"));
        }
        is_clear(Version::HTTP_11, &headers)
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
