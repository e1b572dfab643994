//! Clients that are slow, or stop sending: they end at a limit, and nobody else notices.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, soon};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Sends a byte now and then, until the proxy answers; the answer's status.
async fn drip(client: &mut Client, bytes: &[u8]) -> u16 {
    let dripping = async {
        for byte in bytes.iter().cycle() {
            let answered = timeout(5 * MILLISECOND, client.stream.readable()).await.is_ok();
            if answered {
                return;
            }
            client.send([*byte]).await;
        }
    };
    soon("an answer", dripping).await;
    client.response().await.status
}

#[tokio::test]
async fn p36_a_head_that_comes_byte_by_byte_ends_at_its_deadline() {
    let world = World::with(|config| config.limits.head = 200 * MILLISECOND).await;
    for begin in ["", "\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n"] {
        let mut client = world.client().await;
        client.send(begin).await;
        assert_eq!(drip(&mut client, b"A").await, 408, "{begin:?}");
        assert!(client.closed().await, "{begin:?}");
    }
    // One that sends nothing at all is told nothing.
    assert!(world.client().await.closed().await);
    world.stop().await;
}

#[tokio::test]
async fn p36_the_deadline_of_a_pipelined_head_begins_with_its_first_byte() {
    let mut world = World::with(|config| config.limits.head = 200 * MILLISECOND).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /half").await;
    assert_eq!(client.response().await.text(), "one");
    assert_eq!(client.response().await.status, 408);
    assert!(client.closed().await);
    assert_eq!(origin.requests().len(), 1);
    world.stop().await;
}

/// Nobody in these tests is as fast as that while the proxy waits for them.
fn demanding(config: &mut dormouse_proxy::Config) {
    config.limits.client_rate = 1 << 40;
    config.limits.client_window = 100 * MILLISECOND;
}

#[tokio::test]
async fn p38_a_body_that_drips_is_cut_off() {
    let mut world = World::with(demanding).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = world.client().await;
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n\r\n")).await;
        assert_eq!(drip(&mut client, b"1\r\nx\r\n").await, 408, "{framing}");
        assert!(client.closed().await, "{framing}");
    }
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(world.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p38_a_client_that_waits_for_its_instances_100_is_not_slow() {
    let mut world = World::with(|config| {
        demanding(config);
        // What a client of this test may take for its body once it may send it.
        config.limits.client_window = Duration::from_secs(3);
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut client = world.client().await;
    let head = "HTTP/1.1\r\nHost: a.example\r\nContent-Length:";
    client.send(format!("POST /late-continue {head} 5\r\nExpect: 100-continue\r\n\r\n")).await;
    // Longer than a body may take: that of this one, which began later.
    let mut slow = world.client().await;
    slow.send(format!("POST /echo {head} 100000\r\n\r\n")).await;
    assert_eq!(drip(&mut slow, b"x").await, 408);
    origin.go();
    assert!(client.head().await.expect("a head").starts_with("HTTP/1.1 100"));
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    world.stop().await;
}

#[tokio::test]
async fn p38_a_client_that_reads_too_slowly_is_cut_off() {
    let mut world = World::with(demanding).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    const LENGTH: usize = 64 << 20;
    origin
        .say([format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes(), &vec![b'x'; LENGTH]].concat());
    let mut client = world.client().await;
    client.send("GET /raw HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    client.head().await.expect("a head");
    let mut got = 0;
    let reading = async {
        while let Some(some) = client.take(64 << 10).await {
            got += some.len();
            sleep(5 * MILLISECOND).await;
        }
    };
    soon("the end", reading).await;
    assert!(got < LENGTH, "it was cut off after {got} bytes");
    assert_eq!(world.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p38_tunnels_and_event_streams_may_be_slow() {
    let mut world = World::with(demanding).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let mut socket = world.client().await;
    socket.send("GET /socket HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(socket.response().await.status, 101);
    let mut events = world.client().await;
    events.send("GET /events HTTP/1.1\r\nHost: a.example\r\nAccept: text/event-stream\r\n\r\n").await;
    assert!(events.until(b"data: first\n\n").await.is_some());
    // Longer than a body may take: that one is cut off meanwhile, again and again.
    for round in 0..3 {
        let mut client = world.client().await;
        client.send("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n").await;
        let (status, _) = tokio::join!(drip(&mut client, b"x"), async {
            socket.send([round]).await;
            assert_eq!(socket.take(1).await, Some(vec![round]));
        });
        assert_eq!(status, 408);
    }
    origin.go();
    assert!(events.until(b"data: second\n\n").await.is_some());
    drop(socket);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_gets_its_answers() {
    let mut world = World::with(|config| config.limits.half_closed = Duration::from_secs(20)).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    let get = "GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for request in
        [get.to_owned(), get.repeat(2), "POST /slow HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi".into()]
    {
        let count = request.matches("HTTP/1.1").count();
        let mut client = world.client().await;
        let before = origin.requests().len();
        client.send(&request).await;
        origin.got(before + 1).await;
        client.finish().await;
        // Another request gives the proxy time to see the end.
        world.get("a.example", "/").await;
        for _ in 0..count {
            origin.go();
            assert_eq!(client.response().await.text(), "one", "{request}");
        }
        assert!(client.closed().await, "{request}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_held_client_that_stops_sending_gets_its_answer() {
    use dormouse_link::{Report, State};

    use crate::world::{environment, ready, route};

    let mut world = World::with(|config| config.limits.half_closed = Duration::from_secs(20)).await;
    let origin = Origin::start("one").await;
    world.publish([route("a.example"), environment("a.example", 1, State::Asleep, &[&origin])]).await;
    let from = world.reports.count();
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    client.finish().await;
    world.reports.find("it to be wanted", from, |report| matches!(report, Report::Wanted(_))).await;
    world.publish([ready("a.example", 2, &[&origin])]).await;
    assert_eq!(client.response().await.text(), "one");
    world.stop().await;
}
