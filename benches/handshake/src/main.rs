//! What a TLS handshake costs a server, with either crypto provider, side by side in one process.
//!
//! Client and server shake hands in memory; only the server's part counts, in processor time of this thread, so that a busy
//! machine does not change what is measured. The cases take turns, round after round; told are the median of the rounds and
//! the middle half of them.
//!
//! `cargo run --release --manifest-path benches/handshake/Cargo.toml`

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, ServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, SupportedProtocolVersion};

/// Rounds in which every case has a turn.
const ROUNDS: usize = 21;
/// Handshakes of a turn.
const TURN: u32 = 40;

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// The hybrid exchange is of TLS 1.3 alone.
const NEWER: &[&SupportedProtocolVersion] = &[&TLS13];

struct Case {
    name: String,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    kind: HandshakeKind,
    costs: Vec<Duration>,
}

/// A provider whose key exchange is one group.
fn provider(of: CryptoProvider, group: &'static dyn SupportedKxGroup) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![group], ..of })
}

struct Offer {
    name: &'static str,
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    versions: &'static [&'static SupportedProtocolVersion],
}

fn offers() -> Vec<Offer> {
    let ring_tickets = || ring::Ticketer::new().expect("randomness");
    let aws_tickets = || aws_lc_rs::Ticketer::new().expect("randomness");
    vec![
        Offer {
            name: "ring, X25519",
            provider: provider(ring::default_provider(), ring::kx_group::X25519),
            ticketer: ring_tickets(),
            versions: BOTH,
        },
        Offer {
            name: "aws-lc-rs, X25519",
            provider: provider(aws_lc_rs::default_provider(), aws_lc_rs::kx_group::X25519),
            ticketer: aws_tickets(),
            versions: BOTH,
        },
        Offer {
            name: "aws-lc-rs, X25519MLKEM768",
            provider: provider(aws_lc_rs::default_provider(), aws_lc_rs::kx_group::X25519MLKEM768),
            ticketer: aws_tickets(),
            versions: NEWER,
        },
    ]
}

fn main() {
    let mut cases = Vec::new();
    for (key_name, key) in [
        ("ECDSA P-256", KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key")),
        ("RSA-2048", KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key")),
    ] {
        let params = CertificateParams::new([String::from("a.example")]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        for offer in offers() {
            for version in offer.versions {
                for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                    cases.push(case(&offer, version, kind, key_name, &certificate, &key));
                }
            }
        }
    }
    for case in &mut cases {
        // Warm, and with a ticket where one is used.
        shake(case, HandshakeKind::Full);
        let kind = case.kind;
        shake(case, kind);
    }
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let kind = case.kind;
            let cost = (0..TURN).map(|_| shake(case, kind)).sum::<Duration>() / TURN;
            case.costs.push(cost);
        }
    }
    let us = |cost: Duration| cost.as_secs_f64() * 1e6;
    println!("{:<62} {:>9} {:>17}", "server's processor time of a handshake", "median", "middle half");
    for case in &mut cases {
        case.costs.sort_unstable();
        let at = |part: usize| us(case.costs[case.costs.len() * part / 4]);
        println!("{:<62} {:>6.1} µs {:>7.1} – {:.1}", case.name, at(2), at(1), at(3));
    }
}

fn case(
    offer: &Offer,
    version: &'static SupportedProtocolVersion,
    kind: HandshakeKind,
    key_name: &str,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Case {
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8");
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&offer.provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .expect("a pair");
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = Arc::clone(&offer.ticketer);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&offer.provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    if kind == HandshakeKind::Full {
        client.resumption = Resumption::disabled();
    }
    let name = format!("{:?}, {key_name}, {}, {kind:?}", version.version, offer.name);
    Case { name, server: Arc::new(server), client: Arc::new(client), kind, costs: Vec::new() }
}

/// One handshake, and what it cost the server.
fn shake(case: &Case, expected: HandshakeKind) -> Duration {
    let name = ServerName::try_from("a.example").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&case.client), name).expect("a client");
    let began = now();
    let mut server = ServerConnection::new(Arc::clone(&case.server)).expect("a server");
    let mut cost = now() - began;
    let mut bytes = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("in memory");
        }
        let began = now();
        let mut unread = &bytes[..];
        while !unread.is_empty() {
            server.read_tls(&mut unread).expect("in memory");
            server.process_new_packets().expect("a working client");
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).expect("in memory");
        }
        cost += now() - began;
        let mut unread = &answer[..];
        while !unread.is_empty() {
            client.read_tls(&mut unread).expect("in memory");
            client.process_new_packets().expect("a working server");
        }
    }
    assert!(
        server.handshake_kind().is_some_and(|kind| kind == expected),
        "{}: {:?}, not {expected:?}",
        case.name,
        server.handshake_kind()
    );
    cost
}

/// Processor time of this thread.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("it counts up"),
        u32::try_from(time.tv_nsec).expect("below a second"),
    )
}
