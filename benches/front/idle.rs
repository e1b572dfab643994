//! What an idle connection holds of its proxy's own memory, after one request; what the kernel holds for it is not counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::rivals::{Rival, Stage, Who};
use crate::{HOST, Result, gauge};

/// Connections that are held, unless fewer descriptors can be had.
const HELD: usize = 4000;
/// Connections that come first and leave: what is taken once is not counted.
const BEFORE: usize = 400;
/// Connections that are opened at a time.
const AT_A_TIME: usize = 16;
/// After this, connections to the origin are closed and what was done for requests is let go.
const REST: Duration = Duration::from_secs(6);
/// A connection that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(20);

/// How a connection comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speech {
    Plain,
    Tls,
    Http2,
    /// A tunnel that nothing goes through: both sides of it count.
    WebSocket,
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Measures and tells.
#[expect(clippy::print_stdout, reason = "figures are the result")]
pub(crate) async fn run(stage: &Stage) -> Result<()> {
    let held = HELD.min(gauge::descriptors()?.saturating_sub(200) / 2);
    println!("\n{:58} {:>9}", format!("memory of an idle connection, KiB ({held} of them)"), "each");
    for (name, speech) in [
        ("plain", Speech::Plain),
        ("TLS", Speech::Tls),
        ("HTTP/2 over TLS", Speech::Http2),
        ("WebSocket", Speech::WebSocket),
    ] {
        for who in [Who::Bare, Who::Dormouse] {
            let rival = stage.rival(who).await?;
            let each = held_by(&rival, speech, held).await?;
            println!("{:58} {each:9.1}", format!("{name}: {}", who.name()));
        }
    }
    Ok(())
}

/// KiB for each connection.
async fn held_by(rival: &Rival, speech: Speech, count: usize) -> Result<f64> {
    drop(open(rival, speech, BEFORE).await?);
    sleep(REST).await;
    let before = gauge::own_kib(rival.pid)?;
    let connections = open(rival, speech, count).await?;
    sleep(REST).await;
    let after = gauge::own_kib(rival.pid)?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let each = (after - before) / connections.len() as f64;
    Ok(each)
}

async fn open(rival: &Rival, speech: Speech, count: usize) -> Result<Vec<Box<dyn Io>>> {
    let config = config(speech)?;
    let mut all: Vec<Box<dyn Io>> = Vec::with_capacity(count);
    while all.len() < count {
        let some = (0..AT_A_TIME.min(count - all.len())).map(|_| one(rival, speech, &config));
        let opened = timeout(WITHIN, futures_util::future::try_join_all(some)).await;
        all.extend(opened.map_err(|_| "a connection hangs")??);
    }
    Ok(all)
}

async fn one(rival: &Rival, speech: Speech, config: &Arc<ClientConfig>) -> Result<Box<dyn Io>> {
    match speech {
        Speech::Plain => http1(TcpStream::connect(rival.http).await?).await,
        Speech::Tls => http1(tls(rival.https, config).await?).await,
        Speech::Http2 => http2(tls(rival.https, config).await?).await,
        Speech::WebSocket => websocket(TcpStream::connect(rival.http).await?).await,
    }
}

pub(crate) async fn tls(at: SocketAddr, config: &Arc<ClientConfig>) -> Result<impl Io + use<>> {
    let stream = TcpStream::connect(at).await?;
    Ok(TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(HOST)?, stream).await?)
}

async fn http1(mut stream: impl Io + 'static) -> Result<Box<dyn Io>> {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"Hello, world!") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("a connection ended".into());
        }
    }
    Ok(Box::new(stream))
}

async fn websocket(mut stream: impl Io + 'static) -> Result<Box<dyn Io>> {
    let fields = "Connection: Upgrade\r\nUpgrade: websocket";
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err("a connection ended".into());
        }
    }
    if head.starts_with(b"HTTP/1.1 101") { Ok(Box::new(stream)) } else { Err("no tunnel".into()) }
}

/// One stream, in frames made by hand (RFC 9113 section 4.1, RFC 7541 appendix A).
async fn http2(mut stream: impl Io + 'static) -> Result<Box<dyn Io>> {
    let mut head = vec![0x82, 0x87, 0x84, 0x01, u8::try_from(HOST.len())?];
    head.extend_from_slice(HOST.as_bytes());
    let settings = frame(4, 0, 0, &[]);
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &frame(1, 5, 1, &head)].concat();
    stream.write_all(&begin).await?;
    loop {
        let mut prefix = [0; 9];
        stream.read_exact(&mut prefix).await?;
        let mut payload = vec![0; usize::from(prefix[1]) << 8 | usize::from(prefix[2])];
        stream.read_exact(&mut payload).await?;
        match (prefix[3], prefix[4] & 1) {
            (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).await?,
            (0 | 1, 1) => return Ok(Box::new(stream)),
            (3 | 7, _) => return Err("a stream was refused".into()),
            _ => {}
        }
    }
}

/// A short one.
pub(crate) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap_or_default(), kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A client that trusts everybody and remembers nothing.
pub(crate) fn config(speech: Speech) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let trusting = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    let mut config = trusting.with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let protocol: &[u8] = if matches!(speech, Speech::Http2) { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
