//! What the operator of an edge says of TLS: tickets that several edges share, whose clients are served, and certificates that
//! are out of date.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::files::{issue, over_tls};
use crate::program::{Edge, Origin, folder, origin, refused, replace, soon};

const CANARY: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// A folder that serves `a.example` over TLS, with a certificate from elsewhere.
fn like(first: &Path, origin: &Origin) -> TempDir {
    let folder = folder(&[("a.example", origin)]);
    for name in ["own.pem", "own.key"] {
        fs::copy(first.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// The words that serve TLS by the files of a folder, and more.
fn words(folder: &Path, more: &[&str]) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let tls = ["--https", "127.0.0.1:0", "--cert", &path("own.pem"), "--key", &path("own.key")].map(str::to_owned);
    let more = more.iter().map(|word| if word.starts_with("--") { (*word).to_owned() } else { path(word) });
    tls.into_iter().chain(more).collect()
}

async fn start(folder: TempDir, more: &[&str]) -> Edge {
    let words = words(folder.path(), more);
    Edge::with(folder, &words.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn not_started(folder: &Path, more: &[&str]) -> (i32, String) {
    let words = words(folder, more);
    refused(folder, &words.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn write_keys(path: &Path, age: Duration, secret: &str) {
    let begins = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - age;
    replace(path, &format!("{} {secret}\n", begins.as_secs()));
    // Not seen half done: a file that others may read is refused.
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn client(trusted: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn visit(edge: &Edge, client: &Arc<ClientConfig>) -> HandshakeKind {
    let stream = TcpStream::connect(edge.address("https")).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("one"), "{answer}");
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn p53_edges_with_one_file_of_ticket_keys_resume_each_others_sessions() {
    let one = origin("one").await;
    let first = folder(&[("a.example", &one)]);
    issue(first.path(), "own", &["a.example"]);
    let second = like(first.path(), &one);
    for folder in [&first, &second] {
        write_keys(&folder.path().join("tickets"), Duration::from_secs(60), CANARY);
    }
    let trusted = first.path().join("own.pem");
    let first = start(first, &["--ticket-keys", "tickets"]).await;
    let mut second = start(second, &["--ticket-keys", "tickets"]).await;
    let known = client(&trusted);
    assert_eq!(visit(&first, &known).await, HandshakeKind::Full);
    assert_eq!(visit(&second, &known).await, HandshakeKind::Resumed);
    // The file is taken again, and what is wrong with it is told without a word of it.
    fs::set_permissions(second.path("tickets"), Permissions::from_mode(0o644)).unwrap();
    second.says("others than its owner may read").await;
    replace(&second.path("tickets"), &format!("0 {CANARY}0"));
    fs::set_permissions(second.path("tickets"), Permissions::from_mode(0o600)).unwrap();
    let line = second.says("line 1 is no ticket key").await;
    assert!(!line.contains("c0ffee"), "{line}");
    assert_eq!(visit(&second, &known).await, HandshakeKind::Resumed, "what was taken stays");
    write_keys(&second.path("tickets"), Duration::from_secs(60), &CANARY.replace("c0", "d1"));
    second.says("table file taken").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let known = client(&trusted);
        visit(&first, &known).await;
        if visit(&second, &known).await == HandshakeKind::Full {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "other keys are never used");
    }
}

#[tokio::test]
async fn it_does_not_start_with_keys_or_authorities_that_are_none() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    write_keys(&folder.path().join("tickets"), Duration::ZERO, CANARY);
    fs::set_permissions(folder.path().join("tickets"), Permissions::from_mode(0o640)).unwrap();
    fs::write(folder.path().join("text"), "this is no PEM").unwrap();
    for (more, said) in [
        (["--ticket-keys", "tickets"], "others than its owner may read"),
        (["--ticket-keys", "missing"], "cannot read"),
        (["--cookie-key", "tickets"], "others than its owner may read"),
        (["--cookie-key", "missing"], "cannot read"),
        (["--client-ca", "text"], "read the certificates of the clients' authority as PEM"),
        (["--client-ca", "missing"], "cannot read"),
    ] {
        let (code, text) = not_started(folder.path(), &more).await;
        assert!(code == 78 && text.contains(said) && text.contains("hint: "), "{more:?} ended with {code}: {text}");
    }
    let (code, text) = refused(folder.path(), &["--http", "127.0.0.1:0", "--client-ca", "x"]).await;
    assert!(code == 78 && text.contains("not served"), "{text}");
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_authority_is_turned_away() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let edge = start(folder, &["--client-ca", "own.pem"]).await;
    let stream = TcpStream::connect(edge.address("https")).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let client = client(&edge.path("own.pem"));
    let answer = async {
        let mut stream = TlsConnector::from(client).connect(name, stream).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await?;
        stream.read_u8().await
    };
    assert!(soon("its end", answer).await.is_err());
}

#[tokio::test]
async fn a_certificate_out_of_date_replaces_none_that_is_not() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let mut edge = start(folder, &[]).await;
    let good = fs::read_to_string(edge.path("own.pem")).unwrap();
    let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(edge.path("own.key")).unwrap()).unwrap();
    replace(&edge.path("own.pem"), &params.self_signed(&key).unwrap().pem());
    let line = edge.says("expired at 2002-01-01T00:00:00Z").await;
    assert!(line.contains("the files are not taken"), "{line}");
    replace(&edge.path("good.pem"), &good);
    assert_eq!(over_tls(&edge, "good.pem", "a.example").await, Ok("one".to_owned()));
    // Where there is no better one, an edge starts all the same, and says so.
    let late = like(edge.folder(), &one);
    let mut late = start(late, &[]).await;
    late.says("is out of date, and offered all the same").await;
}

/// The words of an edge that can be replaced.
fn replaceable(folder: &Path, more: &[&str]) -> Vec<String> {
    let run =
        ["--run".to_owned(), folder.join("run").to_str().unwrap().to_owned(), "--drain".to_owned(), "2s".to_owned()];
    words(folder, more).into_iter().chain(run).collect()
}

async fn another(edge: &Edge, more: &[&str]) -> Edge {
    let words = replaceable(edge.folder(), more);
    let words = words.iter().map(String::as_str).chain(["--upgrade"]);
    edge.another(&words.collect::<Vec<_>>()).await
}

#[tokio::test]
async fn p53_a_session_resumes_after_an_upgrade_and_after_the_next() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let (trusted, first) = (folder.path().join("own.pem"), replaceable(folder.path(), &[]));
    let mut old = Edge::with(folder, &first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // One visitor for each version of TLS: what resumes in one way may not in the other.
    let visitors = [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| speaks(version, &trusted));
    for visitor in &visitors {
        assert_eq!(visit(&old, visitor).await, HandshakeKind::Full);
    }
    for _ in 0..2 {
        let new = another(&old, &[]).await;
        assert!(old.ended().await.success());
        for visitor in &visitors {
            assert_eq!(visit(&new, visitor).await, HandshakeKind::Resumed);
        }
        old = new;
    }
}

fn speaks(version: &'static rustls::SupportedProtocolVersion, trusted: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn p53_a_ticket_from_before_an_upgrade_does_not_get_around_a_stricter_policy() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let (trusted, first) = (folder.path().join("own.pem"), replaceable(folder.path(), &[]));
    let mut old = Edge::with(folder, &first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let visitors = [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| speaks(version, &trusted));
    for visitor in &visitors {
        assert_eq!(visit(&old, visitor).await, HandshakeKind::Full);
    }
    let new = another(&old, &["--client-ca", "own.pem"]).await;
    assert!(old.ended().await.success());
    for visitor in visitors {
        let stream = TcpStream::connect(new.address("https")).await.unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let answer = async {
            let mut stream = TlsConnector::from(visitor).connect(name, stream).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await?;
            stream.read_u8().await
        };
        assert!(soon("its end", answer).await.is_err(), "it has no certificate");
    }
}

#[tokio::test]
async fn p53_the_ticket_keys_that_are_handed_over_are_in_no_log() {
    let one = origin("one").await;
    let folder = folder(&[("a.example", &one)]);
    issue(folder.path(), "own", &["a.example"]);
    let first = replaceable(folder.path(), &[]);
    let mut start = crate::program::command(folder.path(), &first.iter().map(String::as_str).collect::<Vec<_>>());
    start.env("DORMOUSE_LOG", "trace");
    let run = folder.path().join("run").to_str().unwrap().to_owned();
    let mut edge = Edge::spawn(folder.into(), start).await;
    let secrets = tokio::task::spawn_blocking(move || {
        let mut line = crate::upgrade_fails::double::Line::knock(&run);
        line.say(r#"{"message":"hello","version":1}"#);
        let offer = line.hear();
        assert_eq!(line.hear()["message"], "sockets");
        line.say(r#"{"message":"failed","why":"of a whim"}"#);
        offer["secrets"].clone()
    });
    let secrets = soon("the offer", secrets).await.unwrap();
    let one = &secrets.as_array().unwrap()[0];
    assert_eq!(one["name"], "ticket-key/https");
    let bytes: Vec<u8> = serde_json::from_value(one["value"].clone()).unwrap();
    let secret = &bytes[9..];
    assert_eq!((bytes[0], secret.len()), (1, 32));
    edge.says("of a whim").await;
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    let (decimal, hex) = (format!("{secret:?}"), secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let log = edge.all().await;
    assert!(log.len() > 5, "{log:?}");
    for line in log {
        let plain = line.to_lowercase();
        assert!(!plain.contains(decimal.trim_matches(['[', ']'])) && !plain.contains(&hex), "{line}");
    }
}
