//! Addresses that change hands again and again while both environments are asked: no connection ever serves two of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::world::client::{Client, field};
use crate::world::origin::Origin;
use crate::world::{World, ready, route, soon};

const HOSTS: [&str; 2] = ["a.example", "b.example"];
/// Clients of each host.
const CLIENTS: usize = 4;
/// How often the addresses change hands.
const TURNS: u64 = 40;
/// Requests that are answered between two turns, at least.
const ANSWERED: usize = 20;

/// The hosts that each connection to an origin was asked for.
type Asked = Arc<Mutex<Vec<Vec<String>>>>;

/// An origin that says whom it was asked for, and remembers it of each connection.
async fn origin() -> (SocketAddr, Asked, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, asked, mut serving) = (listener.local_addr().expect("bound"), Asked::default(), JoinSet::new());
    let notes = Arc::clone(&asked);
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let mut client = Client::over(listener.accept().await.expect("a connection").0);
            let notes = Arc::clone(&notes);
            connections.spawn(async move {
                let number = {
                    let mut notes = notes.lock().expect("no test panics with it");
                    notes.push(Vec::new());
                    notes.len() - 1
                };
                while let Some(head) = client.head().await {
                    let host = field(&head, "host").concat();
                    notes.lock().expect("no test panics with it")[number].push(host.clone());
                    client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{host}", host.len())).await;
                }
            });
        }
    });
    (address, asked, serving)
}

#[tokio::test]
async fn p71_p72_addresses_that_change_hands_under_load_share_no_connection() {
    let mut world = World::start().await;
    let ((one, of_one, _serving), (two, of_two, _serving_too)) = (origin().await, origin().await);
    // They are asked for their names and addresses only.
    let (mut first, mut second) = (Origin::down("first").await, Origin::down("second").await);
    (first.address, second.address) = (one, two);
    let swap = |turn: u64| {
        let (a, b) = if turn.is_multiple_of(2) { (&first, &second) } else { (&second, &first) };
        // The same epoch for both: only the environment tells them apart.
        [ready(HOSTS[0], turn + 1, &[a]), ready(HOSTS[1], turn + 1, &[b])]
    };
    world.publish(HOSTS.map(route).into_iter().chain(swap(0))).await;
    let (answered, mut count) = watch::channel(0_usize);
    let mut clients = JoinSet::new();
    for host in HOSTS.repeat(CLIENTS) {
        let (to, answered) = (world.http(), answered.clone());
        clients.spawn(async move {
            let mut client = Client::connect(to).await;
            loop {
                let answer = client.get(host, "/").await;
                assert_eq!((answer.status, answer.text().as_str()), (200, host));
                answered.send_modify(|count| *count += 1);
            }
        });
    }
    for turn in 1..=TURNS {
        let enough = *count.borrow() + ANSWERED;
        tokio::select! {
            all = count.wait_for(|count| *count >= enough) => drop(all.expect("clients ask")),
            ended = clients.join_next() => panic!("a client has ended: {ended:?}"),
        }
        world.publish(swap(turn)).await;
    }
    soon("the clients' end", clients.shutdown()).await;
    for asked in [of_one, of_two] {
        let asked = asked.lock().expect("no test panics with it");
        assert!(asked.len() as u64 >= TURNS / 2, "each turn has connections of its own: {}", asked.len());
        for hosts in asked.iter() {
            assert!(hosts.windows(2).all(|pair| pair[0] == pair[1]), "two hosts on one connection: {hosts:?}");
        }
    }
    world.stop().await;
}
