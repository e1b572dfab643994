//! Which clients may speak to a listener: everybody, or those with a certificate of an authority that its operator named.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};

/// Who certifies the clients of a listener; others are turned away in the handshake.
#[derive(Clone)]
pub struct ClientAuthority {
    roots: Arc<RootCertStore>,
    digest: [u8; 32],
}

/// Why nobody can be certified by that.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthorityError {
    /// There is no certificate in it, or something that is none.
    #[error("read the certificates of the clients' authority as PEM")]
    Pem(#[source] pem::Error),
    /// One is no certificate of an authority.
    #[error("use the certificates of the clients' authority")]
    Unfit(#[source] rustls::Error),
}

impl ClientAuthority {
    /// Parses its certificates, PEM, one or more.
    pub fn parse(text: &[u8]) -> Result<Self, ClientAuthorityError> {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(ClientAuthorityError::Pem)?;
        if certificates.is_empty() {
            return Err(ClientAuthorityError::Pem(pem::Error::NoItemsFound));
        }
        let mut digests: Vec<_> = certificates.iter().map(|one| aws_lc_rs::digest::digest(&SHA256, one)).collect();
        digests.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(ClientAuthorityError::Unfit)?;
        }
        Ok(Self { roots: Arc::new(roots), digest: digest(digests.iter().map(AsRef::as_ref)) })
    }

    pub(super) fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider).build()
    }
}

/// What tells one policy from another, whatever the order of its certificates.
pub(super) fn digest_of(policy: Option<&ClientAuthority>) -> [u8; 32] {
    policy.map_or_else(|| digest(std::iter::empty()), |authority| authority.digest)
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.for_each(|part| context.update(part));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthority").field("certificates", &self.roots.len()).finish()
    }
}
