use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + days(20_000)
}

fn host(text: &str) -> Host {
    text.parse().expect("a host")
}

fn authority(folder: &Path) -> Authority {
    Authority::open_or_create(folder, now()).expect("an authority")
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o777
}

/// The clock of a client.
#[derive(Debug)]
struct Clock(SystemTime);

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// A handshake of a client that trusts `ca` with a server that shows `certificate`.
async fn handshake(ca: &str, certificate: &Certificate, name: &str, now: SystemTime) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(certificate.chain.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
    let server =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("versions");
    let server = server.with_no_client_auth().with_single_cert(chain, key).expect("the key belongs to the certificate");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("an authority");
    let client = ClientConfig::builder_with_details(provider, Arc::new(Clock(now)));
    let client = client.with_safe_default_protocol_versions().expect("versions");
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let (near, far) = tokio::io::duplex(16 << 10);
    let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let (client, _) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    client.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_trusts_exactly_the_named_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority(folder.path());
    for (name, as_host) in [("hello.localhost", "hello.localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let certificate = authority.issue(&host(as_host), now()).expect("a certificate");
        assert_eq!(certificate.host.host(), Some(host(as_host)));
        handshake(authority.certificate(), &certificate, name, now()).await.expect(name);
        let other = handshake(authority.certificate(), &certificate, "other.localhost", now()).await;
        assert!(other.expect_err("another name").contains("not valid for name"));
    }
    let stranger = tempfile::tempdir().expect("a folder");
    let stranger = self::authority(stranger.path());
    let certificate = stranger.issue(&host("hello.localhost"), now()).expect("a certificate");
    assert!(handshake(authority.certificate(), &certificate, "hello.localhost", now()).await.is_err());
}

#[tokio::test]
async fn a_certificate_is_good_for_397_days_at_most() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority(folder.path());
    let certificate = authority.issue(&host("hello.localhost"), now()).expect("a certificate");
    let at = async |now| handshake(authority.certificate(), &certificate, "hello.localhost", now).await;
    at(now() - days(1) + Duration::from_secs(1)).await.expect("a clock that is late");
    at(now() + days(395)).await.expect("nearly at its end");
    assert!(at(now() + days(397)).await.expect_err("too old").contains("expired"));
    assert!(at(now() - days(2)).await.expect_err("too young").contains("not valid yet"));
}

#[tokio::test]
async fn the_second_start_finds_the_same_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = authority(folder.path());
    let second = Authority::open_or_create(folder.path(), now() + days(100)).expect("an authority");
    assert_eq!(first.certificate(), second.certificate());
    let certificate = second.issue(&host("a.localhost"), now()).expect("a certificate");
    handshake(first.certificate(), &certificate, "a.localhost", now()).await.expect("one and the same authority");
    assert_eq!(fs::read_to_string(folder.path().join(CA_FILE)).expect("a file"), first.certificate());
    assert_eq!(mode(folder.path().join(CA_FILE)), 0o644);
    assert_eq!(mode(folder.path().join(KEY_FILE)), 0o600);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing else is left");
}

#[test]
fn the_authority_signs_hosts_and_no_further_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = CertificateDer::from_pem_slice(authority(folder.path()).certificate().as_bytes()).expect("PEM");
    // Basic constraints as DER: CA true, path length 0.
    let constraints = [0x30, 6, 1, 1, 0xff, 2, 1, 0];
    assert!(certificate.windows(constraints.len()).any(|window| window == constraints));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    authority(folder.path());
    let key = folder.path().join(KEY_FILE);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("change the mode");
    let refused = Authority::open_or_create(folder.path(), now()).expect_err("others can read it").to_string();
    assert!(refused.contains(&format!("chmod 600 {}", key.display())) && refused.contains("640"), "{refused}");
}

#[test]
fn a_start_that_was_cut_off_is_begun_anew_and_a_lost_key_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ca.new"), "half").expect("write");
    let first = authority(folder.path());
    fs::remove_file(folder.path().join(CA_FILE)).expect("remove");
    let second = authority(folder.path());
    assert_ne!(first.certificate(), second.certificate());
    fs::remove_file(folder.path().join(KEY_FILE)).expect("remove");
    let lost = Authority::open_or_create(folder.path(), now()).expect_err("the key is gone").to_string();
    assert!(lost.contains("ca.key"), "{lost}");
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    authority(folder.path());
    authority(other.path());
    fs::copy(other.path().join(CA_FILE), folder.path().join(CA_FILE)).expect("copy");
    assert!(matches!(Authority::open_or_create(folder.path(), now()), Err(AuthorityError::Content { .. })));
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\0"] {
        fs::write(folder.path().join(CA_FILE), broken).expect("write");
        assert!(
            matches!(Authority::open_or_create(folder.path(), now()), Err(AuthorityError::Content { .. })),
            "{broken:?}"
        );
    }
}
