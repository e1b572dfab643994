//! Pipelined requests, cut at every point, with two workers: answered in order, split at the origin as at the client.

use tokio::task::JoinSet;

use crate::world::client::Client;
use crate::world::origin::Origin;
use crate::world::{World, soon};

/// What is sent, and the statuses that come.
const REQUESTS: [(&str, u16); 5] = [
    ("POST /echo?1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello", 200),
    (
        "POST /echo?2 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0\r\n\r\nGET /\r\n0\r\nx: y\r\n\r\n",
        200,
    ),
    ("HEAD /3 HTTP/1.1\r\nHost: a.example\r\n\r\n", 200),
    ("GET /4 HTTP/1.1\r\nHost: unknown.example\r\n\r\n", 404),
    ("GET /5 HTTP/1.1\r\nHost: a.example\r\n\r\n", 200),
];
/// The end of each row: nobody can say where a further request would begin.
const BAD: [&str; 3] = [
    "POST /bad HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /bad HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
    "GET /bad HTTP/1.1\nHost: a.example\n\n",
];

/// Sends the row in two pieces and reads what comes.
async fn row(world: std::net::SocketAddr, bad: &str, cut: usize) {
    let bytes = REQUESTS.map(|(bytes, _)| bytes).concat() + bad;
    let mut client = Client::connect(world).await;
    client.stream.set_nodelay(true).expect("a socket");
    client.send(&bytes[..cut]).await;
    // An answer on another connection, maybe of the other worker, gives the proxy time to see the first piece; where it was
    // not enough, the test is only weaker.
    Client::connect(world).await.get("unknown.example", "/").await;
    client.send(&bytes[cut..]).await;
    for ((request, status), body) in REQUESTS.into_iter().zip(["hello", "abc0\r\n\r\nGET /", "", "", "one"]) {
        let answer = client.response_to(&request[..4]).await;
        assert_eq!(answer.status, status, "cut at {cut}: {request}");
        assert!(status != 200 || answer.text() == body, "cut at {cut}: {request}");
    }
    assert_eq!(client.response().await.status, 400, "cut at {cut}: {bad}");
    assert!(client.closed().await, "cut at {cut}: {bad}");
}

#[tokio::test]
async fn p10_a_row_of_requests_may_be_cut_anywhere_and_ends_with_a_bad_one() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let (address, mut rows, mut count) = (world.http(), JoinSet::new(), 0);
    for bad in BAD {
        let good: usize = REQUESTS.iter().map(|(bytes, _)| bytes.len()).sum();
        // The bad ends are cut in all places, the good begin once in all and then in some.
        let step = if bad == BAD[0] { 1 } else { 7 };
        for cut in (1..good).step_by(step).chain(good..good + bad.len()) {
            rows.spawn(row(address, bad, cut));
            count += 1;
            if rows.len() >= 16 {
                soon("a row", rows.join_next()).await.expect("a row").expect("it went well");
            }
        }
    }
    while let Some(done) = soon("a row", rows.join_next()).await {
        done.expect("it went well");
    }
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.is_well_framed()));
    for (path, body) in [("/echo?1", "hello"), ("/echo?2", "abc0\r\n\r\nGET /"), ("/3", ""), ("/5", "")] {
        let same = requests.iter().filter(|request| request.path() == path && request.body == body.as_bytes());
        assert_eq!(same.count(), count, "{path}");
    }
    assert_eq!(requests.len(), 4 * count, "and nothing else");
    world.stop().await;
}
