//! Answers of others that only some servers give: parts of files, interim answers, trailers, ends without a length.

use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use crate::framing::{Body, compare_answers, sent};
use crate::world::client::Client;
use crate::world::origins::{LARGE, LINES, TEXT, apache, digest, many, nginx, node};
use crate::world::part::Part;
use crate::world::{HOST, edge, http2, soon};

#[tokio::test]
async fn p19_p27_p41_p73_what_nginx_makes_of_files_comes_through_as_it_is() {
    let nginx = nginx().await;
    let tag = Client::connect(nginx.address).await.get(HOST, "/files/large").await.field("etag").unwrap();
    let mut all = vec![
        sent("GET", "/files/large", "", Body::None),
        sent("GET", "/files/large", "Range: bytes=1000-1999\r\n", Body::None),
        sent("GET", "/files/large", "Range: bytes=-500\r\n", Body::None),
        sent("GET", "/files/large", "Range: bytes=99999999-\r\n", Body::None),
        sent("GET", "/files/large", &format!("If-None-Match: {tag}\r\n"), Body::None),
        sent("GET", "/files/text.txt", "Accept-Encoding: gzip\r\n", Body::None),
        sent("GET", "/files/text.txt", "", Body::None),
        sent("HEAD", "/files/text.txt", "Accept-Encoding: gzip\r\n", Body::None),
        sent("HEAD", "/files/large", "", Body::None),
        sent("GET", "/elsewhere", "", Body::None),
        sent("GET", "/files/missing", "", Body::None),
        sent("POST", "/files/large", "", Body::Length(b"no".to_vec())),
        sent("GET", "/seen/a%2Fb/./c?x=%20", "X-Odd: a;b, \"c\"\r\nCookie: a=1; b=2\r\nX-Empty:\r\n", Body::None),
    ];
    for (name, body) in [("length", Body::Length(many(LARGE))), ("chunks", Body::Chunks(many(LARGE)))] {
        all.push(sent("PUT", &format!("/put/{name}"), "", body));
        all.push(sent("GET", &format!("/put/{name}"), "", Body::None));
    }
    // Once more, for the first time is another answer.
    for request in all.iter().filter(|request| request.method == "PUT") {
        request.ask(&mut Client::connect(nginx.address).await).await;
    }
    compare_answers(nginx.address, &all).await;
}

#[tokio::test]
async fn what_apache_makes_of_files_comes_through_as_it_is() {
    let apache = apache().await;
    let all = [
        sent("GET", "/files/large", "", Body::None),
        sent("GET", "/files/large", "Range: bytes=1000-1999\r\n", Body::None),
        sent("HEAD", "/files/text.txt", "", Body::None),
        sent("GET", "/files/missing", "", Body::None),
        sent("GET", "/elsewhere", "", Body::None),
    ];
    compare_answers(apache.address, &all).await;
}

#[tokio::test]
async fn files_are_whole_over_http2_too() {
    let nginx = nginx().await;
    let edge = edge(nginx.address).await;
    let mut client = http2::Client::connect(edge.address("http")).await;
    let answer = client.get(HOST, "/files/large").await.unwrap();
    assert_eq!((answer.status, digest(&answer.body)), (200, digest(&many(LARGE))));
    let mut request = http2::request(Method::GET, HOST, "/files/large");
    request.headers_mut().insert("range", "bytes=5-14".parse().unwrap());
    let answer = client.send(request, b"").await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (206, &many(15)[5..]));
    let answer = client.get(HOST, "/files/text.txt").await.unwrap();
    assert_eq!(answer.text(), TEXT.repeat(LINES));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn p18_early_hints_reach_clients_of_http_1_1_before_the_answer_and_nobody_else() {
    let node = node(5000).await;
    let edge = edge(node.address).await;
    let mut client = Client::connect(edge.address("http")).await;
    client.send(format!("GET /early HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let hints = soon("the hints", client.head()).await.expect("a head");
    assert!(hints.starts_with("HTTP/1.1 103") && hints.contains("</style.css>; rel=preload"), "{hints}");
    // Only now the answer is asked for.
    assert_eq!(Client::connect(node.address).await.get(HOST, "/confirm").await.status, 200);
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    // It is one answer, and the next one is another.
    assert_eq!(client.get(HOST, "/bytes/3").await.body, many(3));

    // Clients of HTTP/1.0 know no interim answers, and the edge sends none over HTTP/2: for them there is the answer only.
    let mut old = Client::connect(edge.address("http")).await;
    old.send(format!("GET /early HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    let head = confirmed(&node, old.head()).await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut client = http2::Client::connect(edge.address("http")).await;
    let answer = confirmed(&node, client.get(HOST, "/early")).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
}

/// Confirms again and again, until an answer has come.
async fn confirmed<F: Future>(node: &Part, answer: F) -> F::Output {
    let confirming = async {
        loop {
            Client::connect(node.address).await.get(HOST, "/confirm").await;
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        answer = soon("an answer", answer) => answer,
        () = confirming => unreachable!("it goes on for ever"),
    }
}

#[tokio::test]
async fn p09_trailers_of_http_1_are_dropped_and_not_announced() {
    let node = node(5000).await;
    let edge = edge(node.address).await;
    let mut client = Client::connect(edge.address("http")).await;
    client.send(format!("GET /trailers HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\n\r\n")).await;
    // It would not be a whole one if trailers followed.
    let answer = client.response().await;
    assert_eq!((answer.text().as_str(), answer.field("trailer")), ("body", None));
    assert_eq!(client.get(HOST, "/bytes/3").await.body, many(3), "the next answer is another");
    let mut client = http2::Client::connect(edge.address("http")).await;
    let answer = client.get(HOST, "/trailers").await.unwrap();
    assert_eq!((answer.text().as_str(), answer.field("trailer")), ("body", None));
}

#[tokio::test]
async fn p15_an_answer_that_ends_with_its_connection_is_whole() {
    let node = node(5000).await;
    let edge = edge(node.address).await;
    let mut client = Client::connect(edge.address("http")).await;
    assert_eq!(client.get(HOST, "/until-closed").await.text(), "to the end");
    assert_eq!(client.get(HOST, "/bytes/3").await.body, many(3), "to the client it had an end of its own");
    let mut old = Client::connect(edge.address("http")).await;
    old.send(format!("GET /parts/40000 HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    let answer = old.response().await;
    assert_eq!((&answer.body, answer.field("transfer-encoding")), (&many(40_000), None));
}

#[tokio::test]
async fn p17_an_origin_that_refuses_an_expectation_is_heard_once() {
    let node = node(5000).await;
    let edge = edge(node.address).await;
    let mut client = Client::connect(edge.address("http")).await;
    let head = format!("POST /refuses HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.send(head).await;
    assert_eq!(client.response().await.status, 417);
    // The client may send its body all the same: the next request begins after it.
    client.send("hello").await;
    assert_eq!(client.get(HOST, "/bytes/3").await.body, many(3));
}
