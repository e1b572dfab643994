//! A range of addresses: proxies whose word is taken, clients that are let in or not.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of addresses. As text: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.1`, or `unix` for whoever comes through a Unix
/// socket that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4 {
        /// Its first address.
        first: Ipv4Addr,
        /// How many bits of it count; at most 32.
        prefix: u8,
    },
    /// IPv6.
    V6 {
        /// Its first address.
        first: Ipv6Addr,
        /// How many bits of it count; at most 128.
        prefix: u8,
    },
    /// Whoever may open a Unix socket that is listened on.
    Unix,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not one of the forms.
    #[error("a network is IP/BITS, an IP, or unix")]
    Form,
    /// More than the address has.
    #[error("a network's bits are at most 32, or 128 with IPv6")]
    Bits,
    /// Bits beyond the prefix are set; maybe another network was meant.
    #[error("the network with this address begins at {0}")]
    Inside(IpAddr),
    /// Clients with IPv4 addresses are known by these.
    #[error("give an IPv4 network in IPv4's form")]
    Mapped,
}

impl Network {
    /// Whether an address is in it; `None` is whoever comes through a Unix socket of ours.
    pub fn contains(&self, address: Option<IpAddr>) -> bool {
        match (self, address.map(|address| address.to_canonical())) {
            (Self::V4 { first, prefix }, Some(IpAddr::V4(address))) => masked_v4(address, *prefix) == *first,
            (Self::V6 { first, prefix }, Some(IpAddr::V6(address))) => masked_v6(address, *prefix) == *first,
            (Self::Unix, None) => true,
            _ => false,
        }
    }
}

/// An address of which only the first `prefix` bits are kept.
pub fn masked_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0))
}

fn masked_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match bits {
            None => most,
            Some(bits) if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(NetworkError::Form);
            }
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(NetworkError::Bits)?,
        };
        let (network, first) = match address {
            IpAddr::V4(address) => {
                let first = masked_v4(address, prefix);
                (Self::V4 { first, prefix }, IpAddr::V4(first))
            }
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => return Err(NetworkError::Mapped),
            IpAddr::V6(address) => {
                let first = masked_v6(address, prefix);
                (Self::V6 { first, prefix }, IpAddr::V6(first))
            }
        };
        if first == address { Ok(network) } else { Err(NetworkError::Inside(first)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4 { first, prefix } => write!(f, "{first}/{prefix}"),
            Self::V6 { first, prefix } => write!(f, "{first}/{prefix}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// As text.
impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect(network);
        network.contains(Some(address.parse().expect(address)))
    }

    #[test]
    fn a_network_has_the_addresses_that_share_its_first_bits() {
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("0.0.0.0/0", "203.0.113.9") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "192.0.2.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"), "one address in two forms");
        assert!(Network::Unix.contains(None) && !contains("unix", "127.0.0.1"));
        assert!(!"0.0.0.0/0".parse::<Network>().expect("a network").contains(None));
    }

    #[test]
    fn what_is_no_network_is_told_why() {
        for bad in ["", "x", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0/8", "10.0.0.0/8/8", " 10.0.0.0/8", "/8"]
        {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError::Form), "{bad:?}");
        }
        for bad in ["10.0.0.0/33", "::/129", "10.0.0.0/256", "10.0.0.0/99999999999"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError::Bits), "{bad:?}");
        }
        assert_eq!("::ffff:10.0.0.0/104".parse::<Network>(), Err(NetworkError::Mapped));
        let error = "10.1.2.3/8".parse::<Network>().expect_err("inside of one");
        assert_eq!(error.to_string(), "the network with this address begins at 10.0.0.0");
        for text in ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32", "unix"] {
            assert_eq!(text.parse::<Network>().expect(text).to_string(), text);
        }
    }
}
