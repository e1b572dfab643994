//! An authority that is asked over TLS: it proves who it is, or nobody passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dormouse_link::{EnvironmentId, ObjectId, Report};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::policy_limits::{HOST, of, world};
use crate::world::{ready, route, under};

/// An authority of certificates, and one of requests that it certified for a name.
struct Certified {
    ca: String,
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// It lets everybody in, and answers several requests on a connection.
async fn certified(name: &str) -> Certified {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("an authority").pem();
    let issuer = rcgen::Issuer::new(params, key);
    let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
    let key = rcgen::KeyPair::generate().expect("a key");
    let chain = vec![params.signed_by(&key, &issuer).expect("a certificate").der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            connections.spawn(async move {
                // Who does not trust it leaves here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    if line == "\r\n" {
                        count.fetch_add(1, Ordering::SeqCst);
                        let answer = b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n";
                        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    Certified { ca, address, asked, _serving: serving }
}

fn policy(authority: &Certified, ca: &str) -> String {
    let (url, ca) = (format!("https://{}/check", authority.address), serde_json::to_string(ca).expect("text"));
    format!(r#"{{"access": {{"forward_auth": {{"url": "{url}", "copy": ["X-User"], "ca": {ca}}}}}}}"#)
}

#[tokio::test]
async fn whom_a_certified_authority_lets_in_is_served_with_its_words() {
    let authority = certified("127.0.0.1").await;
    // Another one stands before it: several may be named.
    let both = certified("127.0.0.1").await.ca + &authority.ca;
    for ca in [&authority.ca, &both] {
        let before = authority.asked.load(Ordering::SeqCst);
        let (world, origin) = world(&policy(&authority, ca)).await;
        for _ in 0..3 {
            assert_eq!(of(&world, "192.0.2.7").await, 200);
        }
        assert_eq!(authority.asked.load(Ordering::SeqCst) - before, 3, "each request is asked about");
        assert!(origin.requests().iter().all(|request| request.field("x-user") == ["ann"]));
        world.stop().await;
    }
}

/// Why not is told by the tests of `checks::forward_auth`.
#[tokio::test]
async fn nobody_passes_by_the_word_of_an_authority_that_proves_nothing() {
    let (right, other) = (certified("127.0.0.1").await, certified("127.0.0.1").await);
    let wrong_name = certified("auth.example").await;
    for (what, authority, ca) in
        [("another authority's", &right, &other.ca), ("of another name", &wrong_name, &wrong_name.ca)]
    {
        let (world, origin) = world(&policy(authority, ca)).await;
        for _ in 0..2 {
            assert_eq!(of(&world, "192.0.2.7").await, 503, "{what}");
        }
        assert!(origin.requests().is_empty(), "{what}");
        assert_eq!(authority.asked.load(Ordering::SeqCst), 0, "{what}");
        world.stop().await;
    }
}

/// PEM of what has the form of a certificate, of a version that there is not.
fn nearly_a_certificate() -> String {
    let part = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).expect("short")], content].concat();
    let empty = part(0x30, b"");
    let signed = [part(0xa0, &part(0x02, &[5])), part(0x02, &[1]), empty.repeat(5)].concat();
    let whole = part(0x30, &[part(0x30, &signed), empty, part(0x03, &[0])].concat());
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(whole))
}

#[tokio::test]
async fn a_policy_whose_authority_nobody_can_trust_is_refused_alone_and_the_one_before_serves() {
    let authority = certified("127.0.0.1").await;
    let (mut world, origin) = world(&policy(&authority, &authority.ca)).await;
    assert_eq!(of(&world, "192.0.2.7").await, 200);
    for (ca, why) in [
        (
            nearly_a_certificate(),
            "policy.access: forward_auth.ca: a certificate that its policy names cannot be trusted",
        ),
        (format!("{}{}", authority.ca, nearly_a_certificate()), "policy.access: forward_auth.ca: a certificate that"),
        (format!("{}-----BEGIN X-----\n", authority.ca), "policy.access: forward_auth.ca: the certificates that"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "policy.access: forward_auth.ca is whole certificates"),
    ] {
        let from = world.reports.count();
        let bad = under(&policy(&authority, &ca), ready(HOST, 2, &[&origin]));
        world.publish([bad, route("b.example"), ready("b.example", 1, &[&origin])]).await;
        let refused = |report: &Report| matches!(report, Report::Acked { rejected, .. } if !rejected.is_empty());
        let Report::Acked { rejected, .. } = world.reports.find("a refusal", from, refused).await else { panic!() };
        assert_eq!(rejected.len(), 1, "{rejected:?}");
        assert!(rejected[0].reason.starts_with(why), "{}", rejected[0].reason);
        assert_eq!(rejected[0].id, ObjectId::Environment(EnvironmentId::new(HOST)));
        // What was refused is not there to be compared with.
        world.table.objects.remove(&rejected[0].id);
        assert_eq!((of(&world, "192.0.2.7").await, world.get("b.example", "/").await.status), (200, 200));
    }
    assert_eq!(authority.asked.load(Ordering::SeqCst), 5, "who is served was let in");
    world.stop().await;
}
