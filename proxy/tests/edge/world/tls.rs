//! Certificates that sign themselves, and clients that trust them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dormouse_link::{Body, Certificate};
use dormouse_proxy::Listener;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::World;
use super::client::Client;

pub(crate) const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What its clients trust.
#[derive(Default)]
pub(crate) struct Authority(Vec<CertificateDer<'static>>);

/// A client's own certificate.
pub(crate) struct Own(CertificateDer<'static>, Vec<u8>);

impl Authority {
    /// A certificate for `host` that its clients trust from now on.
    pub(crate) fn issue(&mut self, host: &str) -> Body {
        self.issue_for(&[host]).pop().expect("one")
    }

    /// One certificate for several hosts.
    pub(crate) fn issue_for(&mut self, hosts: &[&str]) -> Vec<Body> {
        let names: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        self.0.push(made.cert.der().clone());
        let (chain, key): (Arc<str>, Arc<str>) = (made.cert.pem().into(), made.signing_key.serialize_pem().into());
        let body = |host: &&str| {
            let (chain, key) = (Arc::clone(&chain), Arc::clone(&key));
            Body::Certificate(Certificate { host: host.parse().expect("a host"), chain, key })
        };
        hosts.iter().map(body).collect()
    }

    /// What a client is set up with; its sessions are in it.
    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion], own: Option<&Own>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone()).expect("a root");
        }
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // As browsers do.
        provider.kx_groups.insert(0, rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768);
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).expect("versions");
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(Own(certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.clone()).expect("a key");
                builder.with_client_auth_cert(vec![certificate.clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![HTTP1.to_vec()];
        config
    }

    pub(crate) async fn connect(&self, world: &World, host: &str) -> io::Result<Client<TlsStream<TcpStream>>> {
        let config = Arc::new(self.client(&VERSIONS, None));
        Ok(Client::over(shake(world.tls("https"), &config, host).await?))
    }
}

/// An authority for clients, as PEM, and a client that it certified.
pub(crate) fn certified() -> (String, Own) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("an authority").pem();
    let issuer = rcgen::Issuer::new(params, key);
    let mut params = rcgen::CertificateParams::new(["client.example".to_owned()]).expect("a name");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    (authority, Own(certificate.der().clone(), key.serialize_der()))
}

impl World {
    /// With an HTTPS listener of that kind, too.
    pub(crate) async fn with_tls(change: impl FnOnce(&mut Listener)) -> Self {
        let mut listener = Listener::https(SocketAddr::from(([127, 0, 0, 1], 0)));
        change(&mut listener);
        Self::with(|config| config.listeners.push(listener)).await
    }

    pub(crate) fn tls(&self, listener: &str) -> SocketAddr {
        self.proxy.as_ref().expect("running").address(listener).expect("an HTTPS listener")
    }
}

pub(crate) async fn shake(at: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(at).await?;
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// One request on a new connection; how its hands were shaken. Tickets come with the answer.
pub(crate) async fn visit(at: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> io::Result<HandshakeKind> {
    let mut client = Client::over(shake(at, config, host).await?);
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let answer = client.whole().await.ok_or(io::ErrorKind::UnexpectedEof)?;
    assert_eq!(answer.text(), "one");
    Ok(client.stream.get_ref().1.handshake_kind().expect("hands were shaken"))
}
