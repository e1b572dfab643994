//! TLS: whose certificate is offered to whom, what is agreed on, and what resumes.
//!
//! A name without a certificate gets the listener's own one, or else the alert `unrecognized_name`; never another tenant's.
//! TLS 1.2 and 1.3, without renegotiation, compression and early data. The crypto provider is named wherever one is needed:
//! the process may have another one as its default.

mod agreed;
pub(crate) mod certificates;
mod clients;
mod keys;
mod pair;
pub(crate) mod tickets;

pub(crate) use agreed::Agreed;
pub use clients::{ClientAuthority, ClientAuthorityError};
pub use keys::{OwnTicketKey, TicketKey, TicketKeys, TicketKeysError};
pub(crate) use pair::CertificateId;
pub use pair::{KeyPair, KeyPairError};

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use dormouse_link::{HOST_MAX_BYTES, normalise_authority};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use super::stream::Stream;
use crate::config::{Http2, Listener};
use crate::live::Live;
use tickets::Tickets;

/// A fatal alert `unrecognized_name` as it goes over the wire before any key is agreed (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What a listener proves itself with, and to whom.
pub(crate) struct Names {
    live: Arc<Live>,
    /// For names that no certificate was published for.
    fallback: ArcSwapOption<KeyPair>,
}

/// What a client that named its server was offered; no client that names none has coalesced anything.
pub(crate) struct Offered {
    /// What it named, normalised.
    pub(crate) name: Box<str>,
    pub(crate) certificate: CertificateId,
    names: Arc<Names>,
}

impl Offered {
    /// Which certificate another host would have been offered.
    pub(crate) fn instead(&self, host: &str) -> Option<CertificateId> {
        let published = self.names.live.certificates.id(host);
        published.or_else(|| self.names.fallback.load().as_ref().map(|pair| pair.id()))
    }
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Names {
    fn offer(&self, server_name: Option<&str>) -> Option<KeyPair> {
        let mut buffer = [0; HOST_MAX_BYTES];
        let host = server_name.and_then(|name| normalise_authority(name.as_bytes(), &mut buffer).ok());
        let published = host.and_then(|host| self.live.certificates.get(host, SystemTime::now()));
        published.or_else(|| self.fallback.load().as_deref().cloned())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.offer(hello.server_name()).map(|pair| pair.certified())
    }
}

/// What the TLS of one listener is spoken with. All workers share it.
pub(crate) struct Tls {
    names: Arc<Names>,
    tickets: Arc<Tickets>,
    config: Arc<ServerConfig>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Config(#[from] rustls::Error),
    #[error(transparent)]
    Clients(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Tickets(#[from] tickets::NoRandomness),
}

/// The exchange that a quantum computer cannot undo comes first, where a client has it.
fn provider() -> CryptoProvider {
    let provider = default_provider();
    let others = provider.kx_groups.iter().copied().filter(|group| group.name() != kx_group::X25519MLKEM768.name());
    CryptoProvider { kx_groups: std::iter::once(kx_group::X25519MLKEM768).chain(others).collect(), ..provider }
}

/// What is offered by ALPN, the best first; clients that speak HTTP/1.0 may offer nothing else (`curl --http1.0`). Certificates by `acme-tls/1` (RFC 8737) would be one more, with a resolver of its own.
fn protocols(http2: Http2) -> Vec<Vec<u8>> {
    let protocols: &[&[u8]] = match http2 {
        Http2::On => &[b"h2", b"http/1.1", b"http/1.0"],
        Http2::Off => &[b"http/1.1", b"http/1.0"],
    };
    protocols.iter().map(|name| name.to_vec()).collect()
}

impl Tls {
    pub(crate) fn new(live: &Arc<Live>, listener: &Listener) -> Result<Self, TlsError> {
        let names = Arc::new(Names { live: Arc::clone(live), fallback: ArcSwapOption::empty() });
        let provider = Arc::new(provider());
        let policy = listener.clients.as_ref();
        let tickets = Arc::new(Tickets::new(&listener.name, &clients::digest_of(policy), SystemTime::now())?);
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match policy {
            Some(authority) => builder.with_client_cert_verifier(authority.verifier(provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&names) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols(listener.http2);
        config.ticketer = Arc::clone(&tickets) as _;
        // Sessions that are kept here would resume past the tickets' rules, and on this edge alone.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { names, tickets, config: Arc::new(config) })
    }

    /// Sets what is offered, from now on, to names that no certificate was published for.
    pub(crate) fn fall_back(&self, pair: KeyPair) {
        if let Err(error) = pair.in_date(SystemTime::now()) {
            warn!(%error, "a listener's own certificate is out of date, and offered all the same");
        }
        self.names.fallback.store(Some(Arc::new(pair)));
    }

    pub(crate) fn tickets(&self) -> &Arc<Tickets> {
        &self.tickets
    }

    /// Shakes hands; the caller sets the deadline.
    pub(crate) async fn accept(&self, stream: Stream) -> io::Result<(TlsStream<Stream>, Option<Arc<Offered>>)> {
        let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let hello = start.client_hello();
        let server_name = hello.server_name().map(Box::<str>::from);
        let Some(pair) = self.names.offer(server_name.as_deref()) else {
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            start.io.shutdown().await?;
            return Err(io::Error::other("no certificate for this server name"));
        };
        let stream = start.into_stream(Arc::clone(&self.config)).await?;
        let mut buffer = [0; HOST_MAX_BYTES];
        let name = server_name.and_then(|name| Some(normalise_authority(name.as_bytes(), &mut buffer).ok()?.into()));
        let offered = |name| Arc::new(Offered { name, certificate: pair.id(), names: Arc::clone(&self.names) });
        Ok((stream, name.map(offered)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::pair::tests::chain;
}
