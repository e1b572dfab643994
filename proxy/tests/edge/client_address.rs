//! Who a client is: the socket says it, a PROXY protocol header, or a trusted proxy's fields; nobody else is believed.

use std::net::SocketAddr;

use dormouse_proxy::{Address, Http2, Listener, Network};
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::world::client::Client;
use crate::world::origin::{Origin, Request};
use crate::world::{World, http2};

const V1: &str = "PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xcb\x00\x71\x06\xc0\x00\x02\x01\x12\x67\x01\xbb\x04\x00\x01\x00";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n";

/// A world whose listener is told of proxies.
async fn world(header_from: &[&str], trusted: &[&str]) -> (World, Origin) {
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect::<Vec<Network>>();
    let (header_from, trusted) = (networks(header_from), networks(trusted));
    let mut world = World::with(|config| {
        config.listeners[0].proxy_protocol_from = header_from;
        config.listeners[0].trust_forwarded_from = trusted;
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    (world, origin)
}

fn told(request: &Request) -> [String; 5] {
    let field = |name| request.field(name).join("|");
    ["x-forwarded-for", "x-real-ip", "forwarded", "x-forwarded-proto", "x-forwarded-port"].map(field)
}

/// What the origin was told of a connection's one request.
async fn told_of(world: &World, origin: &Origin, bytes: &[u8]) -> [String; 5] {
    let mut client = world.client().await;
    client.send(bytes).await;
    assert_eq!(client.response().await.status, 200, "{:?}", String::from_utf8_lossy(bytes));
    told(origin.requests().last().expect("it came"))
}

#[tokio::test]
async fn a_proxy_protocol_header_says_who_the_client_is() {
    let (world, origin) = world(&["127.0.0.0/8"], &[]).await;
    let get = format!("{GET}\r\n");
    for (header, client) in [(V1.as_bytes(), "203.0.113.5"), (V2, "203.0.113.6")] {
        let told = told_of(&world, &origin, &[header, get.as_bytes()].concat()).await;
        let forwarded = format!("for={client};host=\"a.example\";proto=http");
        assert_eq!(told, [client, client, &forwarded, "http", "443"]);
    }
    for own in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
        let [client, .., port] = told_of(&world, &origin, &[own, get.as_bytes()].concat()).await;
        assert_eq!((client.as_str(), port), ("127.0.0.1", world.http().port().to_string()));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_header_split_at_every_byte_is_one_header() {
    let (world, origin) = world(&["127.0.0.1"], &[]).await;
    for header in [V1.as_bytes(), V2] {
        let whole = [header, format!("{GET}\r\n").as_bytes()].concat();
        for split in 1..=header.len() {
            let mut client = world.client().await;
            client.send(&whole[..split]).await;
            tokio::task::yield_now().await;
            client.send(&whole[split..]).await;
            assert_eq!(client.response().await.status, 200, "split at {split}");
        }
    }
    assert_eq!(origin.requests().len(), V1.len() + V2.len());
    assert!(origin.requests().iter().all(|request| told(request)[0].starts_with("203.0.113.")));
    world.stop().await;
}

#[tokio::test]
async fn a_listed_proxy_without_a_header_is_refused() {
    let (world, origin) = world(&["127.0.0.1"], &[]).await;
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x09"[..], &[0; 521]].concat();
    let bad =
        [GET.as_bytes(), b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP9 a b c d\r\n", b"\r\n\r\nGET", b"\x16\x03\x01", &long];
    for bytes in bad {
        let mut client = world.client().await;
        client.send(bytes).await;
        let response = client.response().await;
        assert_eq!((response.status, response.field("connection").as_deref()), (400, Some("close")), "{bytes:?}");
        assert!(client.closed().await, "{bytes:?}");
    }
    assert!(origin.requests().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn from_others_a_header_is_a_bad_request() {
    let (world, origin) = world(&["10.0.0.0/8"], &[]).await;
    for header in [V1.as_bytes(), V2] {
        let mut client = world.client().await;
        client.send([header, format!("{GET}\r\n").as_bytes()].concat()).await;
        assert_eq!(client.response().await.status, 400);
        assert!(client.closed().await);
    }
    assert!(origin.requests().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let mut world = World::with(|config| {
        config.listeners[0].proxy_protocol_from = vec!["127.0.0.1".parse().expect("a network")];
        config.limits.head = std::time::Duration::from_millis(100);
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    for begin in ["", "PROXY TCP4 203.0.113.5 "] {
        let mut client = world.client().await;
        client.send(begin).await;
        assert!(client.closed().await, "{begin:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn p25_a_trusted_proxys_fields_are_read_from_the_right() {
    let (world, origin) = world(&[], &["127.0.0.1", "10.0.0.0/8"]).await;
    let fields = "X-Forwarded-For: 6.6.6.6, 203.0.113.5, 10.0.0.7\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 7.7.7.7\r\n\
                  Forwarded: for=8.8.8.8\r\n";
    let told = told_of(&world, &origin, format!("{GET}{fields}\r\n").as_bytes()).await;
    let forwarded = "for=203.0.113.5;host=\"a.example\";proto=https";
    assert_eq!(told, ["203.0.113.5", "203.0.113.5", forwarded, "https", ""]);
    assert!(!origin.requests()[0].head.contains("7.7.7.7") && !origin.requests()[0].head.contains("8.8.8.8"));
    let told =
        told_of(&world, &origin, format!("{GET}X-Forwarded-For: 203.0.113.5, nonsense\r\n\r\n").as_bytes()).await;
    assert_eq!((told[0].as_str(), told[3].as_str()), ("127.0.0.1", "http"));
    world.stop().await;
}

#[tokio::test]
async fn p25_each_request_of_a_trusted_proxys_connection_has_its_own_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, log) = (folder.path().join("log"), folder.path().join("log"));
    let mut world = World::with(|config| {
        config.listeners[0].trust_forwarded_from = vec!["127.0.0.1".parse().expect("a network")];
        config.access_log = Some(log.into());
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    for address in ["203.0.113.1", "2001:db8::2"] {
        client.send(format!("{GET}X-Forwarded-For: {address}\r\n\r\n")).await;
        client.response().await;
        assert_eq!(told(origin.requests().last().expect("it came"))[0], address);
    }
    client.get("a.example", "/").await;
    assert_eq!(told(origin.requests().last().expect("it came"))[0], "127.0.0.1", "nothing is left of the one before");
    world.stop().await;
    let records = std::fs::read_to_string(path).expect("the log");
    for address in ["203.0.113.1", "2001:db8::2", "127.0.0.1"] {
        assert_eq!(records.matches(&format!("\"client\":\"{address}\"")).count(), 1, "{records}");
    }
}

#[tokio::test]
async fn p25_from_an_untrusted_peer_nothing_is_believed() {
    let (world, origin) = world(&[], &["10.0.0.0/8"]).await;
    let fields =
        "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 1.1.1.1\r\n";
    let told = told_of(&world, &origin, format!("{GET}{fields}\r\n").as_bytes()).await;
    let port = world.http().port().to_string();
    assert_eq!(told, ["127.0.0.1", "127.0.0.1", "for=127.0.0.1;host=\"a.example\";proto=http", "http", &port]);
    world.stop().await;
}

#[tokio::test]
async fn trust_is_given_to_whom_the_proxy_protocol_names() {
    let (world, origin) = world(&["127.0.0.1"], &["203.0.113.0/24"]).await;
    let request = format!("{GET}X-Forwarded-For: 198.51.100.9\r\n\r\n");
    assert_eq!(told_of(&world, &origin, format!("{V1}{request}").as_bytes()).await[0], "198.51.100.9");
    let other = format!("PROXY TCP4 198.51.100.1 192.0.2.1 1 2\r\n{request}");
    assert_eq!(told_of(&world, &origin, other.as_bytes()).await[0], "198.51.100.1");
    world.stop().await;
}

#[tokio::test]
async fn through_a_unix_socket_no_address_is_told_but_a_proxys() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, proxied) = (folder.path().join("plain"), folder.path().join("proxied"));
    let unix = vec![Network::Unix];
    let mut world = World::with(|config| {
        config.listeners[0] = Listener::http(Address::Unix(plain.clone()));
        let second = Listener::http(Address::Unix(proxied.clone()));
        let second = Listener {
            name: "proxied".to_owned(),
            trust_forwarded_from: unix.clone(),
            proxy_protocol_from: unix,
            ..second
        };
        config.listeners.push(second);
    })
    .await;
    assert_eq!(world.proxy.as_ref().expect("running").at("http").expect("it listens"), &Address::Unix(plain.clone()));
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let ask = async |path: &std::path::Path, bytes: String| {
        let mut client = Client::over(UnixStream::connect(path).await.expect("it listens"));
        client.send(bytes).await;
        assert_eq!(client.response().await.status, 200);
        told(origin.requests().last().expect("it came"))
    };
    let request = format!("{GET}X-Forwarded-For: 198.51.100.9\r\n\r\n");
    let unknown = "for=unknown;host=\"a.example\";proto=http";
    assert_eq!(ask(&plain, request.clone()).await, ["", "", unknown, "http", ""]);
    assert_eq!(ask(&proxied, format!("{V1}{request}")).await[0], "203.0.113.5", "it is not the socket's peer any more");
    assert_eq!(ask(&proxied, format!("PROXY UNKNOWN\r\n{request}")).await[0], "198.51.100.9");
    world.stop().await;
    assert!(!plain.exists() && !proxied.exists(), "the files go with the listeners");
}

#[tokio::test]
async fn p25_whom_a_header_says_came_through_a_unix_socket_is_not_believed_as_one_who_came_through_ours() {
    // AF_UNIX, with two empty paths.
    let nameless = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8"[..], &[0; 216]].concat();
    let request = format!("{GET}X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-Proto: https\r\n\r\n");
    let unknown = "for=unknown;host=\"a.example\";proto=http";
    let (over_tcp, origin) = world(&["127.0.0.1"], &["unix", "127.0.0.1"]).await;
    let bytes = [&nameless[..], request.as_bytes()].concat();
    assert_eq!(told_of(&over_tcp, &origin, &bytes).await, ["", "", unknown, "http", ""]);
    over_tcp.stop().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let mut world = World::with(|config| {
        let listener = Listener::http(Address::Unix(path.clone()));
        let unix = vec![Network::Unix];
        config.listeners[0] = Listener { trust_forwarded_from: unix.clone(), proxy_protocol_from: unix, ..listener };
    })
    .await;
    world.serve("a.example", &[&origin]).await;
    let mut client = Client::over(UnixStream::connect(&path).await.expect("it listens"));
    client.send(bytes).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(told(origin.requests().last().expect("it came")), ["", "", unknown, "http", ""]);
    world.stop().await;
}

#[tokio::test]
async fn ipv6_visitors_are_known_by_their_address() {
    let any = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
    if std::net::TcpListener::bind(any).is_err() {
        return println!("there is no IPv6 here");
    }
    let mut world = World::with(|config| config.listeners = vec![Listener::http(any)]).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let told = told_of(&world, &origin, format!("{GET}\r\n").as_bytes()).await;
    assert_eq!((told[0].as_str(), told[2].as_str()), ("::1", "for=\"[::1]\";host=\"a.example\";proto=http"));
    world.stop().await;
}

#[tokio::test]
async fn p25_each_stream_of_http2_has_its_own_client_behind_a_trusted_proxy() {
    let networks = |text: &str| vec![text.parse::<Network>().expect("a network")];
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        config.listeners[0].proxy_protocol_from = networks("127.0.0.1");
        config.listeners[0].trust_forwarded_from = networks("203.0.113.5");
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    for (header, trusted) in [(V1, true), ("PROXY TCP4 203.0.113.6 192.0.2.1 4711 443\r\n", false)] {
        let mut stream = TcpStream::connect(world.http()).await.expect("it listens");
        stream.write_all(header.as_bytes()).await.expect("it reads");
        let mut client = http2::Client::over(stream).await;
        for address in ["198.51.100.1", "2001:db8::2"] {
            let mut request = http2::request(Method::GET, "a.example", "/");
            request.headers_mut().insert("x-forwarded-for", address.parse().expect("a value"));
            assert_eq!(client.send(request, b"").await.expect("an answer").status, 200);
            let told = told(origin.requests().last().expect("it came"));
            assert_eq!(told[0], if trusted { address } else { "203.0.113.6" });
        }
    }
    world.stop().await;
}
