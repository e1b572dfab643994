//! TLS with certificates from the live table, by server name.
//!
//! A certificate is bytes until its host is first asked for; a new version is a new slot, so nothing stale is ever offered.
//! A name without a certificate gets the alert `unrecognized_name`, never another tenant's certificate.

use std::io;
use std::sync::{Arc, OnceLock};

use dormouse_link::{Certificate, HOST_MAX_BYTES, normalise_authority};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use crate::live::{Hosts, Live};

/// A fatal alert `unrecognized_name` as it goes over the wire before any key is agreed (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Certificates by host.
pub(crate) struct Certificates(Hosts<Arc<Slot>>);

struct Slot {
    certificate: Certificate,
    parsed: OnceLock<Option<Arc<CertifiedKey>>>,
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
        slot.parsed.get_or_init(|| parse(&slot.certificate)).clone()
    }
}

fn parse(certificate: &Certificate) -> Option<Arc<CertifiedKey>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes());
    let certified = match (chain, key) {
        (Ok(chain), Ok(key)) if !chain.is_empty() => {
            CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())
        }
        _ => Err("it is not a PEM chain with a PEM key".to_owned()),
    };
    match certified {
        Ok(certified) => Some(Arc::new(certified)),
        Err(reason) => {
            warn!(host = %certificate.host, reason, "a certificate cannot be used");
            None
        }
    }
}

struct BySni(Arc<Live>);

impl std::fmt::Debug for BySni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BySni")
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certificates.get(hello.server_name()?)
    }
}

/// The one configuration of all workers: tickets resume on each of them.
pub(crate) fn config(live: &Arc<Live>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni(Arc::clone(live))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Shakes hands; the caller sets the deadline.
pub(crate) async fn accept(
    stream: TcpStream,
    live: &Live,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let known = start.client_hello().server_name().and_then(|name| live.certificates.get(name)).is_some();
    if !known {
        start.io.write_all(&UNRECOGNIZED_NAME).await?;
        start.io.shutdown().await?;
        return Err(io::Error::other("no certificate for this server name"));
    }
    start.into_stream(config).await
}
