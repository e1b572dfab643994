use std::net::SocketAddr;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority over TLS that lets everybody in: where it is, and who certified it for a name.
async fn certified(name: &str, serving: &mut JoinSet<()>) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust it leaves in between.
            if let Ok(stream) = acceptor.accept(stream).await {
                let_in(stream).await;
            }
        }
    });
    (address, made.cert.pem())
}

async fn let_in(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = stream.read(&mut [0; 4096]).await;
    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    let _ = stream.shutdown().await;
}

/// One without TLS.
async fn plain(serving: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let_in(stream).await;
        }
    });
    address
}

/// What an authority at `url` says, or what is logged in its place.
async fn asked(url: &str, ca: Option<&str>) -> Result<StatusCode, String> {
    let mut policy = json!({"url": url, "copy": []});
    if let Some(ca) = ca {
        policy["ca"] = ca.into();
    }
    let authority = Authority::new(serde_json::from_value(policy).expect("a policy"));
    let answered = timeout(Duration::from_secs(20), authority.ask(&Asker::new(), HeaderMap::new())).await;
    answered.expect("an answer, or none").map(|(status, ..)| status).map_err(|error| chain(&error))
}

#[tokio::test]
async fn an_authority_over_tls_proves_who_it_is_or_it_is_said_why_it_is_not_asked() {
    let mut serving = JoinSet::new();
    let (right, ca) = certified("127.0.0.1", &mut serving).await;
    let (_, others) = certified("127.0.0.1", &mut serving).await;
    let (named, of_name) = certified("localhost", &mut serving).await;
    let plain = plain(&mut serving).await;
    let url = format!("https://{right}/");
    assert_eq!(asked(&url, Some(&ca)).await, Ok(StatusCode::NO_CONTENT));
    assert_eq!(
        asked(&format!("https://localhost:{}/", named.port()), Some(&of_name)).await,
        Ok(StatusCode::NO_CONTENT)
    );
    assert_eq!(asked(&format!("http://{plain}/"), None).await, Ok(StatusCode::NO_CONTENT));
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let without_end = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (what, url, ca, words) in [
        ("another authority's", &url, Some(others.as_str()), "invalid peer certificate: BadSignature"),
        (
            "of another name",
            &format!("https://{named}/"),
            Some(&of_name),
            "invalid peer certificate: certificate not valid for name \"127.0.0.1\"",
        ),
        ("no TLS at all", &format!("https://{plain}/"), Some(&ca), "corrupt message"),
        (
            "TLS where none was asked for",
            &format!("http://{right}/"),
            None,
            "it cannot be asked: client error (SendRequest): ",
        ),
        ("a certificate that is none", &url, Some(none), "a certificate that its policy names cannot be trusted: "),
        ("a text without its end", &url, Some(without_end), "the certificates that its policy names cannot be read: "),
    ] {
        let said = asked(url, ca).await.expect_err(what);
        assert!(said.contains(words), "{what}: {said}");
    }
}
