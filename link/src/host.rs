//! Host names: how a request's authority becomes the key that routes are found by.
//!
//! Case is folded, a port and one trailing dot are dropped; what is no host name is an error and never a lookup
//! (RFC 9110 section 7.2, RFC 9112 section 3.2; checks P20 and P22).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest authority that is looked at, in bytes (RFC 1035 section 2.3.4).
pub const HOST_MAX_BYTES: usize = 255;

/// A host name in its one spelling: lower case, no port, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(Box<str>);

/// Why a text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing before the port.
    #[error("a host name may not be empty")]
    Empty,
    /// More than [`HOST_MAX_BYTES`].
    #[error("a host name has at most {HOST_MAX_BYTES} characters")]
    TooLong,
    /// A character no host name has: user information, a path, white space, a comma, `%`, a letter outside ASCII.
    #[error("a host name has only letters, digits, '-', '_' and '.'; names in other scripts go as their xn-- form")]
    Character,
    /// The port is no number from 0 to 65535.
    #[error("the port after a host name is a number up to 65535")]
    Port,
}

impl Host {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let mut buffer = [0; HOST_MAX_BYTES];
        normalise_authority(text.as_bytes(), &mut buffer).map(|host| Self(host.into()))
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.into()
    }
}

impl std::borrow::Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a certificate is offered for: a host, or every host one label below a domain (`*.example.com`; RFC 9525 section 6.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateName(Box<str>);

/// Before the domain of a name that covers all hosts below it.
const WILDCARD: &str = "*.";

impl CertificateName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, unless it is a wildcard.
    pub fn host(&self) -> Option<Host> {
        (!self.0.starts_with(WILDCARD)).then(|| Host(self.0.clone()))
    }

    /// The name of the wildcard that covers a normalised host, in `buffer`.
    pub fn wildcard_of<'b>(host: &str, buffer: &'b mut [u8; HOST_MAX_BYTES]) -> Option<&'b str> {
        let dot = host.find('.')?;
        if dot == 0 || host.starts_with('[') || host.len() > HOST_MAX_BYTES || host.parse::<Ipv4Addr>().is_ok() {
            return None;
        }
        let rest = &host.as_bytes()[dot..];
        buffer[0] = b'*';
        buffer[1..=rest.len()].copy_from_slice(rest);
        std::str::from_utf8(&buffer[..=rest.len()]).ok()
    }
}

impl From<Host> for CertificateName {
    fn from(host: Host) -> Self {
        Self(host.0)
    }
}

impl FromStr for CertificateName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let Some(domain) = text.strip_prefix(WILDCARD) else { return Ok(text.parse::<Host>()?.into()) };
        let domain: Host = domain.parse()?;
        if domain.0.starts_with('[') || domain.0.parse::<Ipv4Addr>().is_ok() {
            return Err(HostError::Character);
        }
        if WILDCARD.len() + domain.0.len() > HOST_MAX_BYTES {
            return Err(HostError::TooLong);
        }
        Ok(Self(format!("{WILDCARD}{domain}").into()))
    }
}

impl TryFrom<String> for CertificateName {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<CertificateName> for String {
    fn from(name: CertificateName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pattern of every host that no other one covers.
const ANY: &str = "*";

/// Which hosts a route is for: one, every host one label below a domain (`*.example.com`), or whatever has no other (`*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(Box<str>);

/// What a [`HostPattern`] covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Covers {
    /// What nothing else covers.
    Any,
    /// Hosts one label below a domain.
    Below,
    /// One host.
    One,
}

impl HostPattern {
    /// The pattern of every host that no other one covers.
    pub fn any() -> Self {
        Self(ANY.into())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it covers.
    pub fn covers(&self) -> Covers {
        match &*self.0 {
            ANY => Covers::Any,
            name if name.starts_with(WILDCARD) => Covers::Below,
            _ => Covers::One,
        }
    }

    /// The host, if it covers one only.
    pub fn host(&self) -> Option<Host> {
        (self.covers() == Covers::One).then(|| Host(self.0.clone()))
    }
}

impl From<Host> for HostPattern {
    fn from(host: Host) -> Self {
        Self(host.0)
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text == ANY { Ok(Self::any()) } else { Ok(Self(text.parse::<CertificateName>()?.0)) }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0.into()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes the one spelling of `authority` (`host[:port]`, `1.2.3.4[:port]` or `[v6][:port]`) into `buffer`, without
/// allocating, and returns it.
pub fn normalise_authority<'b>(authority: &[u8], buffer: &'b mut [u8; HOST_MAX_BYTES]) -> Result<&'b str, HostError> {
    if authority.len() > HOST_MAX_BYTES {
        return Err(HostError::TooLong);
    }
    let (name, port) = split_port(authority)?;
    if !port.is_empty() && (!port.iter().all(u8::is_ascii_digit) || !fits_u16(port)) {
        return Err(HostError::Port);
    }
    let name = if name.first() == Some(&b'[') { name } else { name.strip_suffix(b".").unwrap_or(name) };
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    for (to, &byte) in buffer.iter_mut().zip(name) {
        *to = byte.to_ascii_lowercase();
    }
    std::str::from_utf8(&buffer[..name.len()]).map_err(|_| HostError::Character)
}

fn fits_u16(digits: &[u8]) -> bool {
    std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
}

/// `name` and what follows its colon (empty where there is none), with the characters of the name checked.
fn split_port(authority: &[u8]) -> Result<(&[u8], &[u8]), HostError> {
    if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|&byte| byte == b']').ok_or(HostError::Character)?;
        let (name, rest) = authority.split_at(end + 1);
        let literal = std::str::from_utf8(&name[1..end]).map_err(|_| HostError::Character)?;
        if literal.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(HostError::Character);
        }
        return match rest.split_first() {
            None => Ok((name, rest)),
            Some((b':', port)) => Ok((name, port)),
            Some(_) => Err(HostError::Character),
        };
    }
    let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
    let (name, rest) = authority.split_at(end);
    let allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.iter().all(allowed) || name.windows(2).any(|pair| pair == b"..") || name.first() == Some(&b'.') {
        return Err(HostError::Character);
    }
    Ok((name, rest.get(1..).unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wildcard_covers_one_label_and_no_address() {
        let mut buffer = [0; HOST_MAX_BYTES];
        let mut of = |host: &str| CertificateName::wildcard_of(host, &mut buffer).map(str::to_owned);
        assert_eq!(of("a.example.com").as_deref(), Some("*.example.com"));
        assert_eq!(of("b.a.example.com").as_deref(), Some("*.a.example.com"));
        for none in ["localhost", "127.0.0.1", "[::1]", ""] {
            assert_eq!(of(none), None, "{none}");
        }
        let name: CertificateName = "*.Example.com.".parse().expect("a wildcard");
        assert_eq!((name.as_str(), name.host()), ("*.example.com", None));
        assert_eq!("A.example".parse::<CertificateName>().expect("a host").host(), "a.example".parse().ok());
        for bad in ["*", "*.", "*.*.a", "a.*.b", "**.a", "*.1.2.3.4", "*.[::1]", "*a.b"] {
            assert!(bad.parse::<CertificateName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_covers_one_host_those_below_a_domain_or_the_rest() {
        for (text, shown, covers) in [
            ("A.example.", "a.example", Covers::One),
            ("*.A.example", "*.a.example", Covers::Below),
            ("*", "*", Covers::Any),
        ] {
            let pattern: HostPattern = text.parse().expect(text);
            assert_eq!((pattern.as_str(), pattern.covers()), (shown, covers));
            assert_eq!(pattern.host().is_some(), covers == Covers::One);
        }
        for bad in ["**", "*.*", "a.*.b", "*a", ""] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn p22_case_port_and_one_trailing_dot_do_not_matter() {
        for same in
            ["hello.localhost", "HELLO.localhost", "hello.localhost.", "hello.localhost:8080", "Hello.Localhost.:80"]
        {
            assert_eq!(same.parse::<Host>().expect(same).as_str(), "hello.localhost");
        }
        assert_eq!("[::1]:80".parse::<Host>().expect("an IPv6 literal").as_str(), "[::1]");
        assert_eq!("127.0.0.1".parse::<Host>().expect("an IPv4 address").as_str(), "127.0.0.1");
    }

    #[test]
    fn p20_what_is_no_host_name_is_an_error() {
        for bad in
            ["user@host", "a/b", "a b", "a,b", ".", "a%2eb", "a..b", ".a", "é.example", "a\0", "[::1", "[x]", "[::1]x"]
        {
            assert_eq!(bad.parse::<Host>(), Err(HostError::Character), "{bad:?}");
        }
        for bad in ["", ":80"] {
            assert_eq!(bad.parse::<Host>(), Err(HostError::Empty), "{bad:?}");
        }
        for bad in ["a:x", "a:65536", "a:-1", "a:80:80"] {
            assert_eq!(bad.parse::<Host>(), Err(HostError::Port), "{bad:?}");
        }
        assert_eq!("x".repeat(256).parse::<Host>(), Err(HostError::TooLong));
    }

    proptest! {
        #[test]
        fn a_parsed_host_parses_to_itself(text in "\\PC{0,40}") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert_eq!(host.as_str().parse::<Host>().ok(), Some(host));
            }
        }
    }
}
