//! Connections to authorities. A worker has its own for plain HTTP; those over TLS are an authority's own, made when it is first
//! asked, and shared by workers.
//!
//! An authority over TLS proves who it is to one of the authorities that its policy names, or else to one that the system
//! trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where those are, if they are elsewhere). Nothing is followed, and
//! nobody is gone through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Idle connections to one authority that are kept.
const POOLED: usize = 16;
/// How long each is kept; shorter than what servers keep (Node: 5 s).
const POOLED_IDLE: Duration = Duration::from_secs(4);

type Client<C> = legacy::Client<C, Empty<Bytes>>;
type Answer = Response<hyper::body::Incoming>;

/// A worker's connections without TLS.
#[derive(Clone, Debug)]
pub(crate) struct Asker(Client<HttpConnector>);

/// An authority's connections over TLS.
#[derive(Debug)]
pub(super) struct Secure(Client<HttpsConnector<HttpConnector>>);

/// Why an authority cannot be asked over TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSecure {
    /// The policy's.
    #[error("the certificates that its policy names cannot be read")]
    Ca(#[source] rustls::pki_types::pem::Error),
    /// The policy's.
    #[error("a certificate that its policy names cannot be trusted")]
    Root(#[source] rustls::Error),
    /// The system's.
    #[error("this system trusts no authority: install ca-certificates, or name a file in SSL_CERT_FILE")]
    NoRoots,
    /// The library's.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl Asker {
    pub(crate) fn new() -> Self {
        Self(client(HttpConnector::new()))
    }

    pub(super) async fn ask(&self, request: Request<Empty<Bytes>>) -> Result<Answer, legacy::Error> {
        self.0.request(request).await
    }
}

impl Secure {
    /// Trusts the authorities of `ca`, or those of the system. Reads files: not for a worker's thread.
    pub(super) fn trusting(ca: Option<&str>) -> Result<Self, NotSecure> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(NotSecure::Tls)?.with_root_certificates(roots(ca)?).with_no_client_auth();
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        Ok(Self(client(connector.wrap_connector(plain))))
    }

    pub(super) async fn ask(&self, request: Request<Empty<Bytes>>) -> Result<Answer, legacy::Error> {
        self.0.request(request).await
    }
}

/// Whether there is somebody to trust by these certificates.
pub(super) fn can_trust(ca: &str) -> Result<(), NotSecure> {
    roots(Some(ca)).map(drop)
}

fn client<C: Connect + Clone>(connector: C) -> Client<C> {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(POOLED)
        .pool_idle_timeout(POOLED_IDLE)
        .build(connector)
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, NotSecure> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        // A certificate that cannot be read is no reason to trust nobody.
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        return if roots.is_empty() { Err(NotSecure::NoRoots) } else { Ok(roots) };
    };
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.map_err(NotSecure::Ca)?).map_err(NotSecure::Root)?;
    }
    if roots.is_empty() { Err(NotSecure::Ca(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(roots) }
}
