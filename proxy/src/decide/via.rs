//! `Via`: by which proxies a request came (RFC 9110 section 7.6.3). This one says so to instances, and knows by it that a request
//! goes round in a circle.
//!
//! Pure. Answers do not say it: their clients know whom they asked.

use crate::front::head::Version;

/// What this edge calls itself.
const PSEUDONYM: &[u8] = b"dormouse";
/// Edges that a request may have come by; one more is a circle.
pub(crate) const HOPS_MAX: usize = 8;

/// What is said of a request that came in that version.
pub(crate) fn said(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0 dormouse",
        Version::Http11 => "1.1 dormouse",
        Version::Http2 => "2 dormouse",
    }
}

/// How many edges say in that value that the request came by them.
pub(crate) fn hops(value: &[u8]) -> usize {
    let elements = value.split(|&byte| byte == b',');
    let is_ours = |element: &&[u8]| {
        let mut words = element.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM))
    };
    elements.filter(is_ours).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_hops_count() {
        for (value, count) in [
            ("", 0),
            ("dormouse", 0),
            ("1.1 dormouse", 1),
            ("1.0 fred, 1.1 p.example.net", 0),
            ("1.1 dormouses, 1.1 a-dormouse, 1.1 fred (1.1 dormouse)", 0),
            ("1.1 dormouse (comment) ,HTTP/1.1\tDORMOUSE,, 2 dormouse", 3),
        ] {
            assert_eq!(hops(value.as_bytes()), count, "{value}");
        }
        for version in [Version::Http10, Version::Http11, Version::Http2] {
            assert_eq!(hops(said(version).as_bytes()), 1);
        }
    }
}
