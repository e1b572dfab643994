//! A chain with its key: parsed, found to belong together, and what its leaf says of itself.
//!
//! Made from what operators and applications bring; whatever is wrong with it is told in words for them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use dormouse_link::{CertificateName, HOST_MAX_BYTES};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// A chain with its key, parsed and found to belong together.
#[derive(Clone, Debug)]
pub struct KeyPair {
    certified: Arc<CertifiedKey>,
    id: CertificateId,
    /// Seconds of Unix time.
    since: i64,
    until: i64,
}

/// By what two certificates are told to be one: the digest of the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertificateId([u8; 32]);

/// Why a chain and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    /// There is no certificate in it, or something that is none.
    #[error("read the certificate chain as PEM")]
    Chain(#[source] pem::Error),
    /// There is no private key in it.
    #[error("read the private key as PEM")]
    Key(#[source] pem::Error),
    /// The first of the chain is no certificate.
    #[error("read the first certificate of the chain")]
    Leaf(#[source] X509Error),
    /// The key is of an unknown kind, or another certificate's.
    #[error("use the key with the certificate")]
    Unfit(#[source] rustls::Error),
    /// Browsers refuse it from now on.
    #[error("use a certificate that expired at {}", shown(*.0))]
    Expired(
        /// When, in seconds of Unix time.
        i64,
    ),
    /// Browsers refuse it until then.
    #[error("use a certificate that is not valid before {}", shown(*.0))]
    NotYet(
        /// When, in seconds of Unix time.
        i64,
    ),
}

impl KeyPair {
    /// Parses a chain, leaf first, and its key, both PEM; its leaf must be valid at `now`.
    pub fn parse(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Self, KeyPairError> {
        let pair = Self::read(chain, key)?;
        pair.in_date(now)?;
        Ok(pair)
    }

    /// The same of one that may be out of date.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, KeyPairError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(KeyPairError::Chain)?;
        let leaf = chain.first().ok_or(KeyPairError::Chain(pem::Error::NoItemsFound))?;
        let id = CertificateId::of(leaf);
        let validity = parsed(leaf).map_err(KeyPairError::Leaf)?.tbs_certificate.validity;
        let (since, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(KeyPairError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(KeyPairError::Unfit)?;
        Ok(Self { certified: Arc::new(certified), id, since, until })
    }

    /// Whether its leaf is valid at `now`.
    pub fn in_date(&self, now: SystemTime) -> Result<(), KeyPairError> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        if now > self.until {
            return Err(KeyPairError::Expired(self.until));
        }
        if now < self.since { Err(KeyPairError::NotYet(self.since)) } else { Ok(()) }
    }

    /// Whether its leaf names a host, or all hosts that a wildcard stands for (RFC 9525 section 6.3).
    pub fn covers(&self, name: &CertificateName) -> bool {
        let Some(Ok(leaf)) = self.certified.cert.first().map(parsed) else { return false };
        let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
        let mut buffer = [0; HOST_MAX_BYTES];
        let wildcard = name.host().and_then(|host| CertificateName::wildcard_of(host.as_str(), &mut buffer));
        let address = name.as_str().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        names.value.general_names.iter().any(|other| match (other, address) {
            (GeneralName::IPAddress(bytes), Some(IpAddr::V4(address))) => *bytes == address.octets(),
            (GeneralName::IPAddress(bytes), Some(IpAddr::V6(address))) => *bytes == address.octets(),
            (GeneralName::DNSName(other), None) => {
                other.eq_ignore_ascii_case(name.as_str())
                    || wildcard.is_some_and(|name| other.eq_ignore_ascii_case(name))
            }
            _ => false,
        })
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    pub(crate) fn id(&self) -> CertificateId {
        self.id
    }
}

impl CertificateId {
    fn of(leaf: &CertificateDer<'_>) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, leaf).as_ref());
        Self(id)
    }

    /// Of the first certificate of a chain that may be no good otherwise.
    pub(crate) fn of_chain(chain: &str) -> Option<Self> {
        CertificateDer::from_pem_slice(chain.as_bytes()).ok().map(|leaf| Self::of(&leaf))
    }
}

fn parsed<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, X509Error> {
    match X509Certificate::from_der(leaf) {
        Ok((_, parsed)) => Ok(parsed),
        Err(x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error)) => Err(error),
        Err(x509_parser::nom::Err::Incomplete(_)) => Err(X509Error::InvalidCertificate),
    }
}

fn shown(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair as Key};

    use super::*;

    /// A chain and a key that are valid from 1000 to 2000 seconds of Unix time.
    pub(crate) fn made(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
        (params.not_before, params.not_after) = (at(1000), at(2000));
        let key = Key::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    /// The chain of some certificate.
    pub(crate) fn chain(name: &str) -> String {
        made(&[name]).0
    }

    pub(crate) fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_out_of_date_is_told_with_its_time() {
        let (chain, key) = made(&["a.example"]);
        let parse = |now| KeyPair::parse(chain.as_bytes(), key.as_bytes(), at(now)).map_err(|error| error.to_string());
        assert!(parse(1000).is_ok() && parse(2000).is_ok());
        assert_eq!(parse(2001).expect_err("late"), "use a certificate that expired at 1970-01-01T00:33:20Z");
        assert_eq!(parse(999).expect_err("early"), "use a certificate that is not valid before 1970-01-01T00:16:40Z");
    }

    #[test]
    fn a_certificate_covers_what_it_names_and_one_label_of_its_wildcards() {
        let (chain, key) = made(&["a.example", "*.B.example", "127.0.0.1", "::1"]);
        let pair = KeyPair::read(chain.as_bytes(), key.as_bytes()).expect("a pair");
        let covers = |name: &str| pair.covers(&name.parse().expect(name));
        for good in ["a.example", "x.b.example", "*.b.example", "127.0.0.1", "[::1]"] {
            assert!(covers(good), "{good}");
        }
        for bad in ["b.example", "x.y.b.example", "*.example", "*.a.example", "127.0.0.2", "x.example"] {
            assert!(!covers(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_no_pair_is_an_error_and_no_panic() {
        let (chain, key) = made(&["a.example"]);
        let (_, other) = made(&["a.example"]);
        let read = |chain: &str, key: &str| KeyPair::read(chain.as_bytes(), key.as_bytes());
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read("", &key), Err(KeyPairError::Chain(_))));
        assert!(matches!(read(not_der, &key), Err(KeyPairError::Leaf(_))));
        assert!(matches!(read(&chain, &chain), Err(KeyPairError::Key(_))));
        assert!(matches!(read(&chain, &other), Err(KeyPairError::Unfit(_))));
    }
}
