//! Many connections: how they are spread, how many there may be, and that a crowd of silent ones stops nobody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::{Body, Certificate};
use dormouse_proxy::{Config, Listener, Proxy};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, soon, until};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What the admin listener says of connections.
async fn connections(world: &World) -> Value {
    let shown = Client::connect(world.admin()).await.get("admin", "/connections").await;
    serde_json::from_slice(&shown.body).expect("JSON")
}

/// Waits until that many are open.
async fn open(world: &World, count: usize) -> Value {
    soon("connections to be counted", async {
        loop {
            let shown = connections(world).await;
            let of_workers = shown["workers"].as_array().expect("all").iter().map(|worker| worker["open"].as_u64());
            if shown["open"] == count && of_workers.flatten().sum::<u64>() == count as u64 {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// From an address of its own.
async fn from(client: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((client, 0).into()).expect("any of loopback's addresses");
    soon("a connection", socket.connect(to)).await.expect("it listens")
}

async fn spread_over(workers: usize) -> Value {
    const CONNECTIONS: usize = 1000;
    dormouse_proxy::raise_descriptor_limit().expect("ours to raise");
    let mut world = World::with(|config| config.workers = workers).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        clients.push(world.client().await);
    }
    let shown = open(&world, CONNECTIONS).await;
    let counts: Vec<_> = shown["workers"]
        .as_array()
        .expect("all")
        .iter()
        .map(|worker| worker["open"].as_u64().expect("a count"))
        .collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (workers, CONNECTIONS as u64));
    let (most, mean) = (*counts.iter().max().expect("some"), CONNECTIONS / workers);
    assert!(most * 10 <= mean as u64 * 13, "{counts:?}");
    // Those that were handed over are served like all others.
    for client in clients.iter_mut().rev().take(50) {
        assert_eq!(client.get("a.example", "/").await.status, 200);
    }
    drop(clients);
    open(&world, 0).await;
    world.stop().await;
    shown
}

#[tokio::test]
async fn a_thousand_connections_are_spread_evenly_over_two_workers() {
    println!("{}", spread_over(2).await);
}

#[tokio::test]
async fn a_thousand_connections_are_spread_evenly_over_four_workers() {
    println!("{}", spread_over(4).await);
}

#[tokio::test]
async fn what_one_socket_accepts_is_shared_by_all_workers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let address = dormouse_proxy::Address::Unix(path.clone());
    let mut world = World::with(|config| {
        config.listeners = vec![Listener::http(address)];
        config.workers = 3;
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(Client::over(tokio::net::UnixStream::connect(&path).await.expect("it listens")));
    }
    let shown = open(&world, 300).await;
    let counts =
        shown["workers"].as_array().expect("all").iter().map(|worker| worker["open"].as_u64().expect("a count"));
    assert!(counts.max().expect("some") <= 130, "{shown}");
    for client in &mut clients {
        assert_eq!(client.get("a.example", "/").await.status, 200);
    }
    world.stop().await;
}

#[tokio::test]
async fn p37_over_the_limit_connections_are_closed_at_once_and_counted() {
    let mut world = World::with(|config| config.limits.connections = 3).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = world.client().await;
        assert_eq!(client.get("a.example", "/").await.status, 200);
        clients.push(client);
    }
    assert!(world.client().await.closed().await);
    let shown = connections(&world).await;
    assert_eq!((&shown["limit"], &shown["refused"]["connections"]), (&3.into(), &1.into()));
    for client in &mut clients {
        assert_eq!(client.get("a.example", "/").await.status, 200, "those that are there go on");
    }
    clients.pop();
    open(&world, 2).await;
    assert_eq!(world.get("a.example", "/").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn p37_a_client_with_too_many_connections_stops_nobody_else() {
    let mut world = World::with(|config| config.limits.connections_per_client = Some(2)).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let (greedy, other) = ([127, 0, 0, 66], [127, 0, 0, 67]);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::over(from(greedy, world.http()).await);
        assert_eq!(client.get("a.example", "/").await.status, 200);
        held.push(client);
    }
    assert!(Client::over(from(greedy, world.http()).await).closed().await);
    assert_eq!(Client::over(from(other, world.http()).await).get("a.example", "/").await.status, 200);
    assert_eq!(connections(&world).await["refused"]["clients"], 1);
    held.pop();
    until_served(&world, greedy).await;
    world.stop().await;
}

/// Waits until a client has a place again: its last connection's end has to be seen first.
async fn until_served(world: &World, client: [u8; 4]) {
    soon("a place", async {
        loop {
            let mut client = Client::over(from(client, world.http()).await);
            client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            if client.head().await.is_some() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn p37_the_clients_of_a_proxy_are_told_apart_and_the_proxy_itself_is_not_limited() {
    let mut world = World::with(|config| {
        config.limits.connections_per_client = Some(1);
        config.listeners[0].proxy_protocol_from = vec!["127.0.0.1".parse().expect("a network")];
        config.listeners[0].trust_forwarded_from = vec!["203.0.113.99".parse().expect("a network")];
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut held = Vec::new();
    for (client, served) in [("203.0.113.1", true), ("203.0.113.1", false), ("203.0.113.2", true)] {
        let mut connection = world.client().await;
        connection.send(format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n")).await;
        if served {
            assert_eq!(connection.get("a.example", "/").await.status, 200);
            held.push(connection);
        } else {
            assert!(connection.closed().await);
        }
    }
    for _ in 0..3 {
        let mut connection = world.client().await;
        connection.send("PROXY TCP4 203.0.113.99 192.0.2.1 1 2\r\n").await;
        assert_eq!(connection.get("a.example", "/").await.status, 200);
        held.push(connection);
    }
    world.stop().await;
}

/// A world with HTTPS, where it is, and the certificate of `a.example`.
async fn tls_world(change: impl FnOnce(&mut Config)) -> (World, SocketAddr, CertificateDer<'static>) {
    let mut world = World::with(|config| {
        config.listeners.push(Listener::https(ANY));
        change(config);
    })
    .await;
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    world.publish([Body::Certificate(Certificate { host: "a.example".parse().expect("a host"), chain, key })]).await;
    let https = world.proxy.as_ref().expect("running").address("https").expect("it listens");
    (world, https, made.cert.into())
}

async fn shake_hands(stream: TcpStream, trusted: CertificateDer<'static>) -> Client<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let connector = TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()));
    let name = ServerName::try_from("a.example").expect("a name");
    Client::over(soon("a handshake", connector.connect(name, stream)).await.expect("it trusts the certificate"))
}

#[tokio::test]
async fn p37_half_handshakes_beyond_their_number_are_given_up_and_plain_visitors_are_served() {
    let (mut world, https, _) = tls_world(|config| {
        config.workers = 1;
        config.limits.handshakes = 5;
        config.limits.tls_handshake = Duration::from_secs(3600);
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut half = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(https).await;
        // The begin of a record that says it has a hello.
        client.send([22, 3, 1, 1, 0, 1]).await;
        half.push(client);
    }
    open(&world, 5).await;
    // All are young: the newest goes.
    assert!(Client::connect(https).await.closed().await);
    assert!(connections(&world).await["refused"]["handshakes"].as_u64().expect("a count") >= 1);
    assert_eq!(world.get("a.example", "/").await.status, 200);
    // Later the oldest goes, so that new visitors always come in.
    soon("the oldest to be given up", async {
        while open_handshakes(&mut half).await == 5 {
            half.push(Client::connect(https).await);
            if ended(half.last_mut().expect("just pushed")).await {
                half.pop();
            }
        }
    })
    .await;
    drop(half);
    world.stop().await;
}

/// How many of the first five still wait.
async fn open_handshakes(half: &mut [Client]) -> usize {
    let mut open = 0;
    for client in half.iter_mut().take(5) {
        open += usize::from(!ended(client).await);
    }
    open
}

/// Whether the proxy has closed a connection, as far as that shows at once.
async fn ended(client: &mut Client) -> bool {
    timeout(Duration::from_millis(1), client.stream.readable()).await.is_ok()
        && !matches!(client.stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_proxy_protocol_header_comes_before_tls_and_is_part_of_the_handshakes_time() {
    let (mut world, https, certificate) = tls_world(|config| {
        config.listeners[1].proxy_protocol_from = vec!["127.0.0.1".parse().expect("a network")];
        config.limits.tls_handshake = Duration::from_secs(5);
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut stream = TcpStream::connect(https).await.expect("it listens");
    stream.write_all(b"PROXY TCP4 203.0.113.5 192.0.2.1 1 443\r\n").await.expect("open");
    let mut client = shake_hands(stream, certificate).await;
    assert_eq!(client.get("a.example", "/").await.status, 200);
    assert_eq!(origin.requests()[0].field("x-forwarded-for"), ["203.0.113.5"]);
    assert_eq!(origin.requests()[0].field("x-forwarded-proto"), ["https"]);
    let mut without = Client::connect(https).await;
    without.send([22, 3, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    assert!(soon("the end", without.head()).await.is_none(), "TLS at once is no header");
    let mut silent = Client::connect(https).await;
    silent.send("PROXY TCP4 203.0.113.5 192.0.2.1 1 443\r\n").await;
    assert!(silent.closed().await);
    world.stop().await;
}

#[tokio::test]
async fn another_proxy_takes_over_the_sockets_and_loses_no_connection() {
    let mut world = World::start().await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let (http, admin) = (world.http(), world.admin());
    let old = world.proxy.take().expect("running");
    let handed = old.sockets().expect("descriptors");
    assert_eq!(handed.iter().map(|listening| listening.name.as_str()).collect::<Vec<_>>(), ["http", "admin"]);
    let (updates, taken) = mpsc::channel(16);
    let (said, mut heard) = mpsc::channel(64);
    let config = Config { listeners: vec![Listener::http(http)], admin: Some(admin), workers: 5, ..Config::default() };
    let new = Proxy::adopt(config, handed, taken, said).expect("it starts on the same addresses");
    assert_eq!((new.address("http"), new.admin()), (Some(http), Some(admin)));
    updates.send(world.table.snapshot()).await.expect("taken");
    soon("the table to be applied", heard.recv()).await.expect("a report");
    let mut stopping = JoinSet::new();
    stopping.spawn(old.shutdown(Duration::from_secs(5)));
    for _ in 0..200 {
        assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    }
    soon("the old one's end", stopping.join_all()).await;
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    soon("the shutdown", new.shutdown(Duration::from_secs(5))).await;
    until("the listener to be gone", || std::net::TcpStream::connect(http).is_err()).await;
}
