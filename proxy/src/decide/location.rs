//! Where a redirect leads, as a whole address that no client can misread: what a client sent is in it, so whatever is not
//! plain is escaped (RFC 3986), and nothing in it can end the field.

use std::fmt::Write as _;

use dormouse_link::{Redirect, ToHttps};

use super::headers::{Facts, Scheme};

/// An address up to its path.
#[derive(Debug)]
pub(crate) struct Location<'a> {
    scheme: Scheme,
    host: &'a str,
    /// None where it is the scheme's own.
    port: Option<u16>,
}

impl<'a> Location<'a> {
    /// The same host over HTTPS.
    pub(crate) fn https(host: &'a str, to: ToHttps) -> Self {
        Self { scheme: Scheme::Https, host, port: to.port }
    }

    /// As the client asked.
    pub(crate) fn own(host: &'a str, facts: &Facts) -> Self {
        Self { scheme: facts.scheme, host, port: facts.port }
    }

    /// What a redirect says; where it says nothing, as the client asked. Another scheme has its own port.
    pub(crate) fn of(redirect: &'a Redirect, host: &'a str, facts: &Facts) -> Self {
        let scheme = redirect.scheme.map(|scheme| match scheme {
            dormouse_link::Scheme::Http => Scheme::Http,
            dormouse_link::Scheme::Https => Scheme::Https,
        });
        Self {
            scheme: scheme.unwrap_or(facts.scheme),
            host: redirect.host.as_ref().map_or(host, |host| host.as_str()),
            port: redirect.port.or(if scheme.is_none() { facts.port } else { None }),
        }
    }

    /// The whole address, with this path and query.
    pub(crate) fn text(&self, target: &str) -> String {
        let target = if target == "*" { "/" } else { target };
        let mut text = String::with_capacity(self.host.len() + target.len() + 16);
        let own = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{}://{}", self.scheme.as_str(), self.host);
        if let Some(port) = self.port.filter(|port| *port != own) {
            let _ = write!(text, ":{port}");
        }
        let bytes = target.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            let is_escape =
                byte == b'%' && matches!(bytes.get(at + 1..at + 3), Some([a, b]) if is_hex(*a) && is_hex(*b));
            if is_escape || is_plain(byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// What paths and queries have as it is (RFC 3986 section 3.3 and 3.4).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(host: &str) -> Location<'_> {
        Location { scheme: Scheme::Https, host, port: None }
    }

    #[test]
    fn a_location_keeps_what_was_asked_for_and_escapes_what_could_be_misread() {
        let text = |target: &str| location("a.example").text(target);
        assert_eq!(text("/x/../y%2f?q=1&r=/?"), "https://a.example/x/../y%2f?q=1&r=/?");
        assert_eq!(text("/a\\b|^{}[]`%zz%"), "https://a.example/a%5Cb%7C%5E%7B%7D%5B%5D%60%25zz%25");
        assert_eq!(text("//evil.example/"), "https://a.example//evil.example/");
        assert_eq!(text("*"), "https://a.example/");
        assert_eq!(Location { port: Some(8443), ..location("[::1]") }.text("/"), "https://[::1]:8443/");
        assert_eq!(Location { port: Some(443), ..location("a") }.text("/"), "https://a/");
    }

    #[test]
    fn a_redirect_keeps_the_port_unless_it_says_a_scheme() {
        let facts = Facts { client: None, port: Some(8080), scheme: Scheme::Http };
        let of = |redirect: Redirect| Location::of(&redirect, "a", &facts).text("/");
        assert_eq!(of(Redirect::default()), "http://a:8080/");
        assert_eq!(of(Redirect { port: Some(80), ..Redirect::default() }), "http://a/");
        let https = Some(dormouse_link::Scheme::Https);
        assert_eq!(of(Redirect { scheme: https, ..Redirect::default() }), "https://a/");
        let host = "b".parse().ok();
        assert_eq!(of(Redirect { scheme: https, host, port: Some(8443), ..Redirect::default() }), "https://b:8443/");
    }

    proptest! {
        #[test]
        fn any_target_makes_a_well_formed_field(target in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let text = location("a.example").text(&target);
            prop_assert!(text.starts_with("https://a.example"));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(text.parse::<http::Uri>().is_ok() || !target.starts_with('/'), "{}", text);
        }
    }
}
