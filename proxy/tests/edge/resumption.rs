//! Session tickets: what resumes where.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use dormouse_link::Body;
use dormouse_proxy::{ClientAuthority, Listener, TicketKey, TicketKeys};
use rustls::HandshakeKind::{Full, Resumed};
use tokio::task::JoinSet;

use crate::world::World;
use crate::world::origin::Origin;
use crate::world::tls::{Authority, VERSIONS, certified, visit};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn keys(secrets: &[(u8, Duration)]) -> TicketKeys {
    let now = SystemTime::now();
    let key = |&(byte, age): &(u8, Duration)| TicketKey::new([byte; 32], now - age);
    TicketKeys::new(secrets.iter().map(key).collect()).expect("keys")
}

/// A proxy with that certificate for `a.example`, and these keys.
async fn world(
    origin: &Origin,
    certificate: &Body,
    given: Option<&TicketKeys>,
    change: impl FnOnce(&mut Listener),
) -> World {
    let mut world = World::with_tls(change).await;
    world.serve("a.example", &[origin]).await;
    world.publish([certificate.clone()]).await;
    if let Some(keys) = given {
        world.proxy.as_ref().expect("running").tickets(keys);
    }
    world
}

#[tokio::test]
async fn p53_a_session_resumes_on_a_proxy_that_shares_keys_and_on_no_other() {
    let (origin, mut authority) = (Origin::start("one").await, Authority::default());
    let certificate = authority.issue("a.example");
    let shared = keys(&[(1, 13 * HOUR), (2, HOUR)]);
    let one = world(&origin, &certificate, Some(&shared), |_| {}).await;
    let two = world(&origin, &certificate, Some(&keys(&[(2, HOUR)])), |_| {}).await;
    let own = world(&origin, &certificate, None, |_| {}).await;
    let old = world(&origin, &certificate, Some(&keys(&[(3, 25 * HOUR)])), |_| {}).await;
    let as_old = world(&origin, &certificate, Some(&keys(&[(3, 25 * HOUR)])), |_| {}).await;
    for version in VERSIONS {
        for (what, first, second, expected) in [
            ("the same proxy", &one, &one, Resumed),
            ("shared keys", &one, &two, Resumed),
            ("its own keys", &own, &own, Resumed),
            ("no shared keys", &one, &own, Full),
            ("no shared keys, the other way", &own, &one, Full),
            ("keys older than a day", &old, &as_old, Full),
            ("its own keys in place of old ones", &old, &old, Resumed),
        ] {
            let client = Arc::new(authority.client(&[version], None));
            assert_eq!(visit(first.tls("https"), &client, "a.example").await.expect("a handshake"), Full);
            let kind = visit(second.tls("https"), &client, "a.example").await.expect("a handshake");
            assert_eq!(kind, expected, "{what}, {:?}", version.version);
        }
    }
    for world in [one, two, own, old, as_old] {
        world.stop().await;
    }
}

#[tokio::test]
async fn p53_a_ticket_of_one_listener_or_policy_does_not_get_around_another() {
    let (origin, mut authority) = (Origin::start("one").await, Authority::default());
    let certificate = authority.issue("a.example");
    let shared = keys(&[(1, HOUR)]);
    let (pem, own) = certified();
    let clients = || ClientAuthority::parse(pem.as_bytes()).ok();
    let open = world(&origin, &certificate, Some(&shared), |_| {}).await;
    let other = world(&origin, &certificate, Some(&shared), |listener| listener.name = "other".to_owned()).await;
    let strict = world(&origin, &certificate, Some(&shared), |listener| listener.clients = clients()).await;
    let as_strict = world(&origin, &certificate, Some(&shared), |listener| listener.clients = clients()).await;
    let (open_at, strict_at) = (open.tls("https"), strict.tls("https"));
    for version in VERSIONS {
        let client = || Arc::new(authority.client(&[version], Some(&own)));
        for (what, first, second, expected) in [
            ("another listener", open_at, other.tls("other"), Full),
            ("a stricter policy", open_at, strict_at, Full),
            ("an opener policy", strict_at, open_at, Full),
            ("the same policy", strict_at, as_strict.tls("https"), Resumed),
        ] {
            let client = client();
            visit(first, &client, "a.example").await.expect("a handshake");
            let kind = visit(second, &client, "a.example").await.expect("a handshake");
            assert_eq!(kind, expected, "{what}, {:?}", version.version);
        }
    }
    for world in [open, other, strict, as_strict] {
        world.stop().await;
    }
}

#[tokio::test]
async fn p53_keys_change_under_load_without_a_failed_handshake() {
    let (origin, mut authority) = (Origin::start("one").await, Authority::default());
    let certificate = authority.issue("a.example");
    let world = world(&origin, &certificate, None, |_| {}).await;
    let (at, resumed) = (world.tls("https"), Arc::new(AtomicUsize::new(0)));
    let mut visitors = JoinSet::new();
    for number in 0..8 {
        let client = Arc::new(authority.client(&[VERSIONS[number % 2]], None));
        let resumed = Arc::clone(&resumed);
        visitors.spawn(async move {
            for _ in 0..40 {
                let kind = visit(at, &client, "a.example").await.expect("a handshake");
                resumed.fetch_add(usize::from(kind == Resumed), Ordering::Relaxed);
            }
        });
    }
    let mut number = 0_u8;
    while let Some(ended) = visitors.join_next().await {
        ended.expect("no handshake failed");
        // The previous key is still there, as operators rotate them; and at times it is not.
        number += 1;
        let previous = if number.is_multiple_of(3) { number + 100 } else { number - 1 };
        world.proxy.as_ref().expect("running").tickets(&keys(&[(number, HOUR), (previous, 2 * HOUR)]));
    }
    assert!(resumed.load(Ordering::Relaxed) > 100);
    world.stop().await;
}
