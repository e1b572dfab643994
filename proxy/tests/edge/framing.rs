//! One message at a time: what the client's bytes are split into is what the origin gets, and nothing slips past the gate.

use std::time::Duration;

use crate::world::origin::Origin;
use crate::world::{World, until};

async fn world() -> (World, Origin) {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    (world, origin)
}

fn paths(origin: &Origin) -> Vec<String> {
    origin.requests().iter().map(|request| request.path().to_owned()).collect()
}

#[tokio::test]
async fn keep_alive_uses_one_connection_on_both_sides() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    for number in 0..20 {
        assert_eq!(client.get("a.example", &format!("/{number}")).await.text(), "one");
    }
    assert_eq!(origin.connections(), 1);
    world.stop().await;
}

#[tokio::test]
async fn p10_pipelined_requests_are_answered_in_order_with_the_same_split() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let bodies = [
        "GET /1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
        "OPTIONS /2 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /3 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nxyz",
        "GET /5 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ];
    client.send(bodies.concat()).await;
    for expected in ["one", "one", "one", "xyz", "one"] {
        assert_eq!(client.response().await.text(), expected);
    }
    assert_eq!(paths(&origin), ["/1", "/2", "/3", "/echo", "/5"]);
    let got: Vec<_> = origin.requests().into_iter().map(|request| String::from_utf8(request.body).unwrap()).collect();
    assert_eq!(got, ["hello", "abc", "", "xyz", ""]);
    world.stop().await;
}

#[tokio::test]
async fn p10_a_pipelined_request_does_not_disturb_a_running_one() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    origin.got(1).await;
    client.send("GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    // Another request through the same proxy gives it time to see the bytes.
    world.get("a.example", "/other").await;
    origin.go();
    assert_eq!(client.response().await.text(), "one");
    assert_eq!(client.response().await.text(), "one");
    assert_eq!(paths(&origin), ["/slow", "/other", "/next"]);
    world.stop().await;
}

#[tokio::test]
async fn p11_an_early_answer_leaves_no_unread_body_behind() {
    let mut world = World::with(|config| config.limits.body_gap = Duration::from_millis(100)).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("POST /early HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "early");
    client.send("GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(client.closed().await, "the rest of the body is never taken for a request");
    assert!(!paths(&origin).contains(&"/smuggled".to_owned()));
    world.stop().await;
}

#[tokio::test]
async fn p12_a_refused_upgrade_is_never_a_tunnel() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client
        .send(
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
             GET /extra HTTP/1.1\r\nHost: unknown.example\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.text(), "one");
    assert_eq!(client.response().await.status, 404, "the extra bytes were a request of their own");
    assert_eq!(paths(&origin), ["/refused"]);
    assert_eq!(origin.requests()[0].field("upgrade"), ["websocket"]);
    world.stop().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_and_counts_what_came_before_the_answer() {
    let (world, _origin) = world().await;
    let mut client = world.client().await;
    client
        .send("GET /socket HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        .await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(client.take(5).await.expect("the echo"), b"early");
    for round in 0..50 {
        let message = format!("GET /{round} HTTP/1.1\r\n\r\n\0");
        client.send(&message).await;
        assert_eq!(client.take(message.len()).await.expect("the echo"), message.as_bytes());
    }
    drop(client);
    world.stop().await;
}

#[tokio::test]
async fn p14_an_upgrade_nobody_asked_for_is_a_bad_answer() {
    let (world, _origin) = world().await;
    assert_eq!(world.get("a.example", "/not-asked").await.status, 502);
    world.stop().await;
}

#[tokio::test]
async fn p08_a_malformed_chunk_ends_the_request_and_the_upstream_connection() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    until("the origin's connection", || origin.connections() == 1).await;
    client.send("5\r\nhelloJUNK\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    assert!(client.closed().await);
    assert_eq!(world.get("a.example", "/after").await.status, 200);
    assert_eq!((paths(&origin), origin.connections()), (vec!["/after".to_owned()], 2));
    world.stop().await;
}

#[tokio::test]
async fn p15_http_1_0_has_no_body_without_a_length_and_is_closed() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("POST /old HTTP/1.0\r\nHost: a.example\r\n\r\nbody without a length").await;
    assert_eq!(client.response().await.status, 200);
    assert!(client.closed().await);
    assert_eq!(origin.requests()[0].body, b"");
    world.stop().await;
}

#[tokio::test]
async fn p17_a_client_that_expects_100_gets_it_and_one_final_answer() {
    let (world, _origin) = world().await;
    let mut client = world.client().await;
    let head = "POST /echo HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head).await;
    assert!(client.head().await.expect("an interim answer").starts_with("HTTP/1.1 100"));
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p19_answers_without_a_body_do_not_wait_for_one() {
    let (world, _origin) = world().await;
    let mut client = world.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(client.response_to("HEAD").await.field("content-length").as_deref(), Some("10"));
    assert_eq!(client.get("a.example", "/none").await.status, 204);
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p11_an_early_answer_whose_body_comes_later_leaves_a_good_connection() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    client.send("POST /early HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "early");
    client.send("GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n".repeat(3000).split_at(100_000).0).await;
    assert_eq!(client.get("a.example", "/next").await.text(), "one");
    assert!(!paths(&origin).contains(&"/smuggled".to_owned()));
    world.stop().await;
}
