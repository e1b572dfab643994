//! Where a listener is: an address with a port, or the path of a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path that the system has room for.
const UNIX_PATH_MAX_BYTES: usize = 107;

/// Where a listener is. As text: `127.0.0.1:80`, `[::1]:80` or `unix:/run/edge.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IPv4 or IPv6 address with a port; port 0 takes a free one. `[::]` takes no IPv4.
    Ip(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither form.
    #[error("an address is IP:PORT, [IP]:PORT or unix:/PATH")]
    Form,
    /// A relative path would mean another place after a change of folder.
    #[error("the path of a Unix socket begins with /")]
    Relative,
    /// The ready line has words with spaces between them.
    #[error("the path of a Unix socket has no spaces and no control characters")]
    Characters,
    /// Longer than what the system has room for.
    #[error("the path of a Unix socket has at most {UNIX_PATH_MAX_BYTES} bytes")]
    TooLong,
}

impl Address {
    /// The address with a port, of a listener that has one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path, of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether it names one place; port 0 does not.
    pub fn is_fixed(&self) -> bool {
        self.ip().is_none_or(|address| address.port() != 0)
    }

    /// Whether a listener that is at `bound` is what was asked for here.
    pub fn is_met_by(&self, bound: &Self) -> bool {
        match (self, bound) {
            (Self::Ip(asked), Self::Ip(bound)) if asked.port() == 0 => asked.ip() == bound.ip(),
            _ => self == bound,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Ip).map_err(|_| AddressError::Form);
        };
        if !path.starts_with('/') || path == "/" {
            return Err(AddressError::Relative);
        }
        if path.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(AddressError::Characters);
        }
        if path.len() > UNIX_PATH_MAX_BYTES {
            return Err(AddressError::TooLong);
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_is_read() {
        for text in ["127.0.0.1:80", "[::]:443", "[2001:db8::1]:0", "unix:/run/edge.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        let long = format!("unix:/{}", "a".repeat(107));
        for (text, error) in [
            ("", AddressError::Form),
            ("80", AddressError::Form),
            ("localhost:80", AddressError::Form),
            ("127.0.0.1", AddressError::Form),
            ("::1:80", AddressError::Form),
            ("127.0.0.1:65536", AddressError::Form),
            ("Unix:/x", AddressError::Form),
            ("unix:", AddressError::Relative),
            ("unix:/", AddressError::Relative),
            ("unix:x", AddressError::Relative),
            ("unix:@x", AddressError::Relative),
            ("unix:/a b", AddressError::Characters),
            ("unix:/a\u{1b}b", AddressError::Characters),
            (&long, AddressError::TooLong),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_free_port_is_met_by_any_port_of_its_address() {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        assert!(address("127.0.0.1:0").is_met_by(&address("127.0.0.1:5")));
        assert!(!address("127.0.0.1:0").is_met_by(&address("127.0.0.2:5")));
        assert!(!address("127.0.0.1:4").is_met_by(&address("127.0.0.1:5")));
        assert!(address("unix:/a").is_met_by(&address("unix:/a")));
    }
}
