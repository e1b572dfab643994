//! Begin and end of a proxy, and what it tells its operator.

use std::net::SocketAddr;
use std::time::Duration;

use dormouse_link::{Report, State, Table, Term, Update};
use dormouse_proxy::{Config, Listener, Proxy};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, environment, route, soon, until};

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn channels() -> (mpsc::Sender<Update>, mpsc::Receiver<Update>, mpsc::Sender<Report>, mpsc::Receiver<Report>) {
    let (updates, taken) = mpsc::channel(4);
    let (said, heard) = mpsc::channel(4);
    (updates, taken, said, heard)
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_listener_and_address() {
    let taken = TcpListener::bind(SocketAddr::from(ANY)).await.expect("a free port");
    let address = taken.local_addr().expect("bound");
    let (_updates, updates, reports, _heard) = channels();
    let config = Config {
        listeners: vec![Listener::http(SocketAddr::from(ANY)), Listener::https(address)],
        ..Config::default()
    };
    let error = Proxy::start(config, updates, reports).err().expect("no start");
    assert!(error.is_address_in_use());
    assert_eq!(error.to_string(), format!("listen for https on {address}"));
}

#[tokio::test]
async fn two_proxies_do_not_share_a_port_unknowingly() {
    let world = World::start().await;
    let (_updates, updates, reports, _heard) = channels();
    let config = Config { listeners: vec![Listener::http(world.http())], ..Config::default() };
    assert!(Proxy::start(config, updates, reports).err().expect("no start").is_address_in_use());
    world.stop().await;
}

/// Another one that serves, and a client of it.
async fn begun() -> (World, Client) {
    let mut world = World::start().await;
    soon("it to accept", world.proxy.as_mut().expect("running").accepting()).await;
    let client = world.client().await;
    (world, client)
}

#[tokio::test]
async fn it_is_ready_with_the_first_table_and_connections_wait_until_then() {
    let (updates, taken, said, _heard) = channels();
    let config = Config {
        listeners: vec![Listener::http(SocketAddr::from(ANY))],
        admin: Some(ANY.into()),
        workers: 1,
        ..Config::default()
    };
    let mut proxy = Proxy::start(config, taken, said).expect("the proxy starts");
    let mut admin = Client::connect(proxy.admin().expect("an address")).await;
    assert_eq!(admin.get("admin", "/healthz").await.status, 200);
    assert_eq!(admin.get("admin", "/readyz").await.status, 503);
    let mut early = Client::connect(proxy.address("http").expect("an address")).await;
    early.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    // However long a start takes here: others that began later and have their table serve by now.
    for _ in 0..3 {
        let (world, mut other) = begun().await;
        other.get("a.example", "/").await;
        world.stop().await;
    }
    let accepts = tokio::time::timeout(Duration::from_millis(50), proxy.accepting()).await;
    assert!(accepts.is_err(), "no worker accepts before there is a table");
    assert!(early.stream.try_read(&mut [0; 1]).is_err(), "and nobody is answered");
    updates.send(Table { term: Term(1), ..Table::default() }.snapshot()).await.expect("taken");
    assert_eq!(early.response().await.status, 404);
    assert_eq!(admin.get("admin", "/readyz").await.status, 200);
    soon("the shutdown", proxy.shutdown(Duration::from_secs(1))).await;
}

#[tokio::test]
async fn the_table_is_shown_without_keys() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem().into(), made.signing_key.serialize_pem());
    let secret = key.lines().nth(1).expect("a line of it").to_owned();
    let certificate = dormouse_link::Certificate { host: "a.example".parse().unwrap(), chain, key: key.into() };
    world.publish([dormouse_link::Body::Certificate(certificate)]).await;
    let shown = Client::connect(world.admin()).await.get("admin", "/table").await;
    assert!(!shown.text().contains(&secret) && !shown.text().contains("PRIVATE"));
    let table: Value = serde_json::from_slice(&shown.body).expect("JSON");
    assert_eq!((&table["generation"], &table["term"]), (&world.generation().0.into(), &1.into()));
    assert_eq!(table["objects"].as_array().expect("objects").len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_shutdown_lets_the_running_request_finish_and_takes_no_new_one() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let (http, admin) = (world.http(), world.admin());
    let mut idle = world.client().await;
    idle.get("a.example", "/").await;
    let mut admin = Client::connect(admin).await;
    assert_eq!(admin.get("admin", "/readyz").await.status, 200);
    let mut running = world.client().await;
    running.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    origin.got(2).await;
    let proxy = world.proxy.take().expect("running");
    let finish = async {
        assert!(idle.closed().await, "an idle connection is closed at once");
        assert_eq!(admin.get("admin", "/readyz").await.status, 503, "it says that it stops");
        until("the listener to be gone", || std::net::TcpStream::connect(http).is_err()).await;
        origin.go();
        let last = running.response().await;
        assert_eq!((last.text(), last.field("connection").as_deref()), ("one".to_owned(), Some("close")));
    };
    soon("the shutdown", async { tokio::join!(proxy.shutdown(Duration::from_secs(10)), finish) }).await;
}

#[tokio::test]
async fn a_shutdown_ends_at_its_deadline_whatever_runs() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let mut running = world.client().await;
    running.send("GET /silent HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    origin.got(1).await;
    let proxy = world.proxy.take().expect("running");
    soon("the shutdown", proxy.shutdown(Duration::from_millis(50))).await;
    assert!(running.closed().await);
}

#[tokio::test]
async fn a_shutdown_tells_held_requests_to_come_again() {
    let mut world = World::start().await;
    world.publish([route("a.example"), environment("a.example", 1, State::Asleep, &[])]).await;
    let mut held = world.client().await;
    held.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    world.reports.find("it to be wanted", 0, |report| matches!(report, Report::Wanted(_))).await;
    let proxy = world.proxy.take().expect("running");
    let told = async { assert_eq!(held.response().await.field("retry-after").as_deref(), Some("1")) };
    soon("the shutdown", async { tokio::join!(proxy.shutdown(Duration::from_secs(10)), told) }).await;
}
