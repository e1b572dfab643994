//! TLS: whose certificate is offered, and what is agreed on.

use std::sync::Arc;
use std::time::Duration;

use dormouse_link::{Body, Certificate, Report};
use dormouse_proxy::{ClientAuthority, Config, Listener};
use http::Method;
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::world::client::Client;
use crate::world::http2::{self, request};
use crate::world::origin::Origin;
use crate::world::tls::{Authority, HTTP2, VERSIONS, certified, shake, visit};
use crate::world::{World, soon};

async fn world() -> (World, Origin, Authority) {
    (World::with_tls(|_| {}).await, Origin::start("one").await, Authority::default())
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
    let mut newer = Authority::default();
    world.publish([newer.issue("a.example")]).await;
    newer.connect(&world, "a.example").await.expect("a handshake");
    assert!(authority.connect(&world, "a.example").await.is_err());
    assert_eq!(before.get("a.example", "/").await.text(), "one", "a change touches no connection");
    world.stop().await;
}

#[tokio::test]
async fn p52_a_swap_under_load_fails_no_handshake() {
    let (mut world, origin, mut authority) = world().await;
    world.serve("a.example", &[&origin]).await;
    let certificates = [authority.issue("a.example"), authority.issue("a.example")];
    world.publish([certificates[0].clone()]).await;
    let at = world.tls("https");
    let mut visitors = JoinSet::new();
    for _ in 0..8 {
        // Each visit is of a client of its own: all of them full.
        let configs: Vec<_> = (0..25).map(|_| Arc::new(authority.client(&VERSIONS, None))).collect();
        visitors.spawn(async move {
            for config in configs {
                visit(at, &config, "a.example").await.expect("a handshake");
            }
        });
    }
    let mut swaps = 0;
    while !visitors.is_empty() {
        swaps += 1;
        world.publish([certificates[swaps % 2].clone()]).await;
        while let Some(ended) = visitors.try_join_next() {
            ended.expect("no handshake failed");
        }
    }
    assert!(swaps > 1);
    world.stop().await;
}

#[tokio::test]
async fn p52_a_bad_certificate_is_told_to_its_owner_and_the_old_one_stays() {
    let (mut world, origin, mut authority) = world().await;
    world.serve("a.example", &[&origin]).await;
    world.publish([authority.issue("a.example")]).await;
    let certificate = |body| if let Body::Certificate(certificate) = body { certificate } else { panic!() };
    let (one, two) = (certificate(authority.issue("a.example")), certificate(authority.issue("a.example")));
    for (bad, why) in [
        (Certificate { key: two.key, ..one.clone() }, "use the key with the certificate"),
        (Certificate { chain: "CHAIN".into(), ..one }, "read the certificate chain as PEM"),
    ] {
        let from = world.reports.count();
        world.publish([Body::Certificate(bad)]).await;
        let rejected = |report: &Report| match report {
            Report::Acked { rejected, .. } => rejected.first().is_some_and(|rejected| rejected.reason.starts_with(why)),
            _ => false,
        };
        world.reports.find(why, from, rejected).await;
        let mut client = authority.connect(&world, "a.example").await.expect("the old one is offered");
        assert_eq!(client.get("a.example", "/").await.text(), "one");
    }
    world.stop().await;
}

#[tokio::test]
async fn p51_a_wildcard_is_offered_one_label_below_and_an_exact_name_comes_first() {
    let (mut world, origin, mut authority) = world().await;
    world.serve("a.b.example", &[&origin]).await;
    world.serve("x.b.example", &[&origin]).await;
    let mut exact = Authority::default();
    world.publish([authority.issue("*.b.example"), exact.issue("a.b.example")]).await;
    let mut client = authority.connect(&world, "x.b.example").await.expect("the wildcard's");
    assert_eq!(client.get("x.b.example", "/").await.text(), "one");
    exact.connect(&world, "a.b.example").await.expect("its own");
    assert!(authority.connect(&world, "b.example").await.is_err());
    assert!(authority.connect(&world, "x.y.b.example").await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn p23_a_connection_serves_the_hosts_of_its_certificate_and_others_are_misdirected() {
    let (mut world, origin, mut authority) = world().await;
    for host in ["a.example", "same.example", "other.example", "bare.example"] {
        world.serve(host, &[&origin]).await;
    }
    world.publish(authority.issue_for(&["a.example", "same.example"])).await;
    world.publish([authority.issue("other.example")]).await;
    let mut config = authority.client(&VERSIONS, None);
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let stream = shake(world.tls("https"), &Arc::new(config), "a.example").await.expect("a handshake");
    let mut newer = http2::Client::over(stream).await;
    let mut older = authority.connect(&world, "a.example").await.expect("a handshake");
    let hosts = [("a.example", 200), ("same.example", 200), ("other.example", 421), ("bare.example", 421)];
    for (host, status) in hosts.into_iter().chain([("nobody.example", 404), ("a.example", 200)]) {
        let answer = newer.send(request(Method::GET, host, "/"), b"").await.expect("an answer");
        assert_eq!(answer.status, status, "HTTP/2 {host}");
        assert_eq!(older.get(host, "/").await.status, status, "HTTP/1 {host}");
    }
    assert_eq!(origin.requests().len(), 6, "what is misdirected reaches nobody");
    // A renewal touches no connection, but what it may be used for beside its own name is not known any more.
    world.publish([authority.issue("a.example")]).await;
    assert_eq!(newer.get("a.example", "/").await.expect("an answer").status, 200);
    assert_eq!(older.get("a.example", "/").await.status, 200);
    world.stop().await;
}

/// A client hello as it goes over the wire: its version, its compression methods, and the name `a.example`.
fn hello(version: [u8; 2], compression: &[u8]) -> Vec<u8> {
    let name = b"a.example";
    let len = |bytes: &[u8]| u8::try_from(bytes.len()).expect("it is short");
    let name = [&[0, 0, 0, len(name) + 5, 0, len(name) + 3, 0, 0, len(name)], name.as_slice()].concat();
    // ECDHE with ECDSA, as TLS 1.2 and as 1.0 have it; groups and signatures.
    let suites = [0xc0, 0x2b, 0xc0, 0x09];
    let more = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [name.as_slice(), &more].concat();
    let body = [
        &version[..],
        &[7; 32],
        &[0, 0, len(&suites)],
        &suites,
        &[len(compression)],
        compression,
        &[0, len(&extensions)],
        &extensions,
    ]
    .concat();
    [&[22, 3, 1, 0, len(&body) + 4, 1, 0, 0, len(&body)], body.as_slice()].concat()
}

#[tokio::test]
async fn p50_only_tls_1_2_and_1_3_are_spoken_and_nothing_is_compressed() {
    let (mut world, _origin, mut authority) = world().await;
    world.publish([authority.issue("a.example")]).await;
    let answer = async |version, compression: &[u8]| {
        let mut stream = TcpStream::connect(world.tls("https")).await.expect("it listens");
        stream.write_all(&hello(version, compression)).await.expect("it reads");
        let mut answer = [0; 7];
        soon("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
        answer
    };
    const ALERT: u8 = 21;
    let protocol_version = AlertDescription::ProtocolVersion.into();
    for old in [[3, 0], [3, 1], [3, 2]] {
        let answer = answer(old, &[0]).await;
        assert_eq!((answer[0], answer[6]), (ALERT, protocol_version), "{old:?}");
    }
    assert_eq!(answer([3, 3], &[0]).await[0], 22, "this one is good");
    assert_eq!(answer([3, 3], &[1, 0]).await[0], 22, "compression is not chosen");
    assert_eq!(answer([3, 3], &[1]).await[0], ALERT);
    for version in VERSIONS {
        let config = Arc::new(authority.client(&[version], None));
        let stream = shake(world.tls("https"), &config, "a.example").await.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_has_it_gets_the_hybrid_exchange() {
    let (mut world, _origin, mut authority) = world().await;
    world.publish([authority.issue("a.example")]).await;
    let client = authority.connect(&world, "a.example").await.expect("a handshake");
    let group = client.stream.get_ref().1.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    world.stop().await;
}

#[tokio::test]
async fn a_listener_with_an_authority_for_clients_serves_nobody_else() {
    let (pem, own) = certified();
    let (_, foreign) = certified();
    let clients = ClientAuthority::parse(pem.as_bytes()).expect("an authority");
    let mut world = World::with_tls(|listener| listener.clients = Some(clients)).await;
    let (origin, mut authority) = (Origin::start("one").await, Authority::default());
    world.serve("a.example", &[&origin]).await;
    world.publish([authority.issue("a.example")]).await;
    for version in VERSIONS {
        for (what, own, good) in
            [("its own", Some(&own), true), ("a foreign one", Some(&foreign), false), ("none", None, false)]
        {
            let config = Arc::new(authority.client(&[version], own));
            // With TLS 1.3 a client is done before it is turned away.
            let visited = visited(world.tls("https"), &config).await;
            assert_eq!(visited, good, "{what} over {version:?}");
        }
    }
    assert_eq!(origin.requests().len(), 2);
    world.stop().await;
}

async fn visited(at: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> bool {
    let Ok(mut stream) = shake(at, config, "a.example").await else { return false };
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.is_err() {
        return false;
    }
    let mut first = [0; 12];
    soon("an answer, or the end", stream.read_exact(&mut first)).await.is_ok() && &first == b"HTTP/1.1 200"
}

#[tokio::test]
async fn a_thousand_half_handshakes_are_ended_in_time_and_stop_nobody() {
    let change = |config: &mut Config| {
        config.listeners.push(Listener::https(std::net::SocketAddr::from(([127, 0, 0, 1], 0))));
        config.limits.tls_handshake = Duration::from_secs(3);
    };
    let (mut world, origin, mut authority) =
        (World::with(change).await, Origin::start("one").await, Authority::default());
    world.serve("a.example", &[&origin]).await;
    world.publish([authority.issue("a.example")]).await;
    let hello = hello([3, 3], &[0]);
    let mut half = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(world.tls("https")).await.expect("it listens");
        // Nothing, half a hello, or a whole one that nothing follows on.
        stream.write_all(&hello[..hello.len() * (number % 3) / 2]).await.expect("it reads");
        half.push(stream);
    }
    for _ in 0..10 {
        let mut client: Client<_> = authority.connect(&world, "a.example").await.expect("others are served");
        assert_eq!(client.get("a.example", "/").await.text(), "one");
    }
    for mut stream in half {
        let mut rest = Vec::new();
        // Closed or reset; not waited for.
        let _ = soon("its end", stream.read_to_end(&mut rest)).await;
    }
    world.stop().await;
}
