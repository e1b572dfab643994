//! TLS by server name.

use std::net::SocketAddr;
use std::sync::Arc;

use dormouse_link::{Body, Certificate};
use dormouse_proxy::Listener;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::World;
use crate::world::client::Client;
use crate::world::origin::Origin;

struct Authority(Vec<CertificateDer<'static>>);

impl Authority {
    fn new() -> Self {
        Self(Vec::new())
    }

    /// A certificate for `host` that its clients trust from now on.
    fn issue(&mut self, host: &str) -> Body {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
        self.0.push(made.cert.der().clone());
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Body::Certificate(Certificate { host: host.parse().expect("a host"), chain, key })
    }

    async fn connect(&self, world: &World, host: &str) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone()).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let address = world.proxy.as_ref().expect("running").address("https").expect("an HTTPS listener");
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        Ok(Client::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }
}

async fn world() -> (World, Origin, Authority) {
    let world =
        World::with(|config| config.listeners.push(Listener::https(SocketAddr::from(([127, 0, 0, 1], 0))))).await;
    (world, Origin::start("one").await, Authority::new())
}

#[tokio::test]
async fn each_host_gets_its_own_certificate_and_https_reaches_the_origin() {
    let (mut world, origin, mut authority) = world().await;
    world.serve("a.example", &[&origin]).await;
    world.serve("b.example", &[&origin]).await;
    world.publish([authority.issue("a.example"), authority.issue("b.example")]).await;
    for host in ["a.example", "b.example"] {
        let mut client = authority.connect(&world, host).await.expect("a handshake");
        assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        assert_eq!(client.get(host, "/").await.text(), "one");
        assert_eq!(client.get(host, "/").await.text(), "one");
    }
    assert_eq!(origin.requests()[0].field("x-forwarded-proto"), ["https"]);
    let body = "x".repeat(1 << 20);
    let mut client = authority.connect(&world, "a.example").await.expect("a handshake");
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert!(client.response().await.text() == body);
    world.stop().await;
}

#[tokio::test]
async fn p51_an_unknown_name_gets_an_alert_and_no_certificate() {
    let (mut world, _origin, mut authority) = world().await;
    world.publish([authority.issue("a.example")]).await;
    let error = authority.connect(&world, "other.example").await.err().expect("no handshake");
    let inner = error.into_inner().expect("a cause").downcast::<rustls::Error>().expect("of TLS");
    assert_eq!(*inner, rustls::Error::AlertReceived(AlertDescription::UnrecognisedName));
    world.stop().await;
}

#[tokio::test]
async fn p52_a_new_certificate_is_used_from_the_ack_on() {
    let (mut world, origin, mut authority) = world().await;
    world.serve("a.example", &[&origin]).await;
    world.publish([authority.issue("a.example")]).await;
    let mut before = authority.connect(&world, "a.example").await.expect("a handshake");
    // Its clients trust the new one only.
    let mut newer = Authority::new();
    world.publish([newer.issue("a.example")]).await;
    newer.connect(&world, "a.example").await.expect("a handshake");
    assert!(authority.connect(&world, "a.example").await.is_err());
    assert_eq!(before.get("a.example", "/").await.text(), "one", "a change touches no connection");
    world.stop().await;
}
