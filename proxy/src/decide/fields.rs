//! The fields of a request's head, wherever they are, for those who look for one by its name.
//!
//! Pure. Of HTTP/1 they are the bytes that the gate let pass, of a stream what its codec made of it.

use dormouse_link::Found;
use http::HeaderMap;

/// See the module.
#[derive(Clone, Copy)]
pub(crate) enum Fields<'a> {
    /// A head as it was sent: lines end with CR LF, and names with their colon.
    Lines(&'a [u8]),
    /// Fields that were taken apart.
    Map(&'a HeaderMap),
}

impl<'a> Fields<'a> {
    /// The values of every field of that name, in their order.
    pub(crate) fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let (lines, map) = match self {
            Self::Lines(head) => (Some(head), None),
            Self::Map(map) => (None, Some(map)),
        };
        let line = move |line: &'a [u8]| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
        };
        let lines = lines.into_iter().flat_map(|head| head.split(|&byte| byte == b'\n').skip(1)).filter_map(line);
        lines.chain(map.into_iter().flat_map(move |map| map.get_all(name)).map(|value| value.as_bytes()))
    }

    /// What there is of a field of that name, for a route.
    pub(crate) fn found(self, name: &str) -> Found<'a> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Found::No,
            (Some(value), None) => Found::Once(value),
            (Some(_), Some(_)) => Found::Often,
        }
    }

    /// The value of the first cookie of that name.
    pub(crate) fn cookie(self, name: &str) -> Option<&'a [u8]> {
        let mut pairs = self.all("cookie").flat_map(|value| value.split(|&byte| byte == b';'));
        pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_cookies_are_found_alike_wherever_they_are() {
        let head = b"GET /a:b HTTP/1.1\r\nHost: a\r\nX-One:  1 \r\nCookie: aa=1; a=2;b=3=4\r\nx-one: 2\r\ncookie: c=5; a=9\r\n\r\n";
        let mut map = HeaderMap::new();
        for (name, value) in [("x-one", "1"), ("cookie", "aa=1; a=2;b=3=4"), ("x-one", "2"), ("cookie", "c=5; a=9")] {
            map.append(name, value.parse().expect("a value"));
        }
        for fields in [Fields::Lines(head), Fields::Map(&map)] {
            assert_eq!(fields.all("X-One").collect::<Vec<_>>(), [b"1", b"2"]);
            assert_eq!(fields.all("x-on").count(), 0);
            assert_eq!(fields.cookie("a"), Some(&b"2"[..]));
            assert_eq!(fields.cookie("b"), Some(&b"3=4"[..]));
            assert_eq!(fields.cookie("c"), Some(&b"5"[..]));
            assert_eq!(fields.cookie("d"), None);
        }
    }
}
