//! TLS with certificates from the live table, by server name.
//!
//! A certificate is bytes until its host is first asked for; a new version is a new slot, so nothing stale is ever offered.
//! A name without a certificate gets the listener's own one, or else the alert `unrecognized_name`; never another tenant's.

use std::io;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use dormouse_link::{Certificate, HOST_MAX_BYTES, normalise_authority};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use super::stream::Stream;
use crate::config::Http2;
use crate::live::{Hosts, Live};

/// A fatal alert `unrecognized_name` as it goes over the wire before any key is agreed (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A chain with its key, parsed and found to belong together.
#[derive(Clone, Debug)]
pub struct KeyPair(Arc<CertifiedKey>);

/// Why a chain and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    /// There is no certificate in it, or something that is none.
    #[error("read the certificate chain as PEM")]
    Chain(#[source] pem::Error),
    /// There is no private key in it.
    #[error("read the private key as PEM")]
    Key(#[source] pem::Error),
    /// The key is of an unknown kind, or another certificate's.
    #[error("use the key with the certificate")]
    Unfit(#[source] rustls::Error),
}

impl KeyPair {
    /// Parses a chain, leaf first, and its key, both PEM.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, KeyPairError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(KeyPairError::Chain)?;
        if chain.is_empty() {
            return Err(KeyPairError::Chain(pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(KeyPairError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(KeyPairError::Unfit)?;
        Ok(Self(Arc::new(certified)))
    }
}

/// What a listener offers for names that no certificate was published for.
pub(crate) type Fallback = ArcSwapOption<CertifiedKey>;

/// Sets what a listener offers for other names.
pub(crate) fn fall_back(to: &Fallback, pair: KeyPair) {
    to.store(Some(pair.0));
}

/// Certificates by host.
pub(crate) struct Certificates(Hosts<Arc<Slot>>);

struct Slot {
    certificate: Certificate,
    parsed: OnceLock<Option<KeyPair>>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self(Hosts::new())
    }

    /// Sets or removes a host's certificate.
    pub(crate) fn set(&self, host: &str, certificate: Option<Certificate>) {
        let slot = certificate.map(|certificate| Arc::new(Slot { certificate, parsed: OnceLock::new() }));
        self.0.set(host, slot);
    }

    fn get(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        let mut buffer = [0; HOST_MAX_BYTES];
        let host = normalise_authority(server_name.as_bytes(), &mut buffer).ok()?;
        let slot = self.0.get(host)?;
        slot.parsed.get_or_init(|| slot.parse()).as_ref().map(|pair| Arc::clone(&pair.0))
    }
}

impl Slot {
    fn parse(&self) -> Option<KeyPair> {
        let Certificate { host, chain, key } = &self.certificate;
        KeyPair::parse(chain.as_bytes(), key.as_bytes())
            .inspect_err(|error| {
                warn!(%host, error = error as &dyn std::error::Error, "a certificate cannot be used");
            })
            .ok()
    }
}

/// Whose certificate is offered to whom.
pub(crate) struct BySni {
    live: Arc<Live>,
    fallback: Arc<Fallback>,
}

impl BySni {
    fn offer(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        server_name.and_then(|name| self.live.certificates.get(name)).or_else(|| self.fallback.load_full())
    }
}

impl std::fmt::Debug for BySni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BySni")
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.offer(hello.server_name())
    }
}

/// What the TLS of one listener is spoken with.
pub(crate) struct Tls {
    names: Arc<BySni>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// The one configuration of all workers: tickets resume on each of them.
    pub(crate) fn new(live: &Arc<Live>, fallback: &Arc<Fallback>, http2: Http2) -> Result<Self, rustls::Error> {
        let names = Arc::new(BySni { live: Arc::clone(live), fallback: Arc::clone(fallback) });
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&names) as Arc<dyn ResolvesServerCert>);
        let protocols: &[&[u8]] = match http2 {
            Http2::On => &[b"h2", b"http/1.1"],
            Http2::Off => &[b"http/1.1"],
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self { names, config: Arc::new(config) })
    }

    /// Shakes hands; the caller sets the deadline.
    pub(crate) async fn accept(&self, stream: Stream) -> io::Result<TlsStream<Stream>> {
        let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        if self.names.offer(start.client_hello().server_name()).is_none() {
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            start.io.shutdown().await?;
            return Err(io::Error::other("no certificate for this server name"));
        }
        start.into_stream(Arc::clone(&self.config)).await
    }
}
