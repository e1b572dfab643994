//! What an origin gets through the edge is what it gets without it, and so is what its client gets: the same requests are sent
//! straight to each origin and through the edge, and what was said is compared.
//!
//! Not compared is what the documents say differs: fields of proxies, of one connection, and of the answer's own moment.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::{Method, Request};
use serde_json::Value;

use crate::world::client::{Client, Response};
use crate::world::origins::{LARGE, apache, digest, gunicorn, hyper, many, node, uvicorn};
use crate::world::{Edge, HOST, edge, http2};

/// Fields of a request that the edge says, or that are of one connection.
const NOT_THE_CLIENTS: [&str; 11] = [
    "connection",
    "expect",
    "forwarded",
    "keep-alive",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];
/// Fields of an answer that are of one connection, or of its moment.
const NOT_THE_ORIGINS: [&str; 7] =
    ["connection", "content-length", "date", "keep-alive", "server", "transfer-encoding", "via"];

/// A request, and what must have come of it.
pub(crate) struct Sent {
    pub(crate) method: &'static str,
    target: String,
    version: &'static str,
    fields: String,
    body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    None,
    Length(Vec<u8>),
    Chunks(Vec<u8>),
    /// With a length, when the origin has said that it takes it.
    Continued(Vec<u8>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Length(bytes) | Self::Chunks(bytes) | Self::Continued(bytes) => bytes,
        }
    }
}

pub(crate) fn sent(method: &'static str, target: &str, fields: &str, body: Body) -> Sent {
    Sent { method, target: target.to_owned(), version: "HTTP/1.1", fields: fields.to_owned(), body }
}

impl Sent {
    /// Its head, and the body that follows.
    fn written(&self) -> (String, Vec<u8>) {
        let Self { method, target, version, fields, body } = self;
        let framing = match body {
            Body::None => String::new(),
            Body::Length(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
            Body::Chunks(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Body::Continued(bytes) => format!("Expect: 100-continue\r\nContent-Length: {}\r\n", bytes.len()),
        };
        let head = format!("{method} {target} {version}\r\nHost: {HOST}\r\n{fields}{framing}\r\n");
        let bytes = match body {
            Body::Chunks(bytes) => {
                let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
                bytes.chunks(9000).flat_map(chunk).chain(*b"0\r\n\r\n").collect()
            }
            other => other.bytes().to_vec(),
        };
        (head, bytes)
    }

    pub(crate) async fn ask(&self, client: &mut Client) -> Response {
        let (head, body) = self.written();
        client.send(head).await;
        if matches!(self.body, Body::Continued(_)) {
            let interim = client.head().await.expect("an interim answer");
            assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
        }
        client.send(body).await;
        client.response_to(self.method).await
    }

    fn name(&self) -> String {
        let (head, body) = self.written();
        format!("{head:?} with {} bytes", body.len())
    }
}

/// Requests whose answers say what came.
fn echoes() -> Vec<Sent> {
    let large = many(LARGE);
    let mut all = vec![
        sent("GET", "/plain?a=b&a=c", "Accept: */*\r\n", Body::None),
        sent("GET", "/a%2Fb/%7Ec/%41/caf%C3%A9;x=1//d?q=%2F%00", "", Body::None),
        sent("GET", "/a/./b/../c", "", Body::None),
        sent("GET", "/?", "", Body::None),
        sent("GET", "/fields", "X-Odd: \"a,b\";c=(d), e\r\nX-Spaces:  a  b \r\nX-Many: 1\r\nX-Many: 2\r\n", Body::None),
        sent("GET", "/fields", "X-Empty:\r\nX!#$%&'*+.^`|~: y\r\nx-lower: z\r\nCookie: a=1; b=\"2\"\r\n", Body::None),
        sent("GET", "/long", &format!("X-Long: {}\r\n", "l".repeat(6000)), Body::None),
        sent("DELETE", "/nothing", "", Body::None),
        sent("OPTIONS", "/options", "Origin: http://elsewhere.example\r\n", Body::None),
        sent("POST", "/short", "Content-Type: text/plain\r\n", Body::Length(b"hello".to_vec())),
        sent("POST", "/empty", "", Body::Length(Vec::new())),
        sent("PUT", "/chunks", "", Body::Chunks(many(40_000))),
        sent("POST", "/no-chunks", "", Body::Chunks(Vec::new())),
        sent("POST", "/continued", "", Body::Continued(many(70_000))),
        sent("PATCH", "/large", "", Body::Length(large.clone())),
        sent("POST", "/large-chunks", "", Body::Chunks(large)),
    ];
    // The connection of HTTP/1.0 ends with its answer: it has to be the last one.
    all.push(Sent { version: "HTTP/1.0", ..sent("POST", "/old", "", Body::Length(b"from before".to_vec())) });
    all
}

/// Requests that ask for an answer of some kind.
fn answers() -> Vec<Sent> {
    let mut all = Vec::new();
    for target in
        ["/bytes/0", "/bytes/10", "/parts/40000", "/bytes/3145728", "/parts/3145728", "/status/204", "/status/304"]
    {
        all.push(sent("GET", target, "", Body::None));
    }
    all.push(sent("HEAD", "/bytes/10", "", Body::None));
    all.push(sent("HEAD", "/parts/40000", "", Body::None));
    for target in ["/cookies", "/elsewhere", "/status/404", "/status/500"] {
        all.push(sent("GET", target, "", Body::None));
    }
    all
}

/// What an origin says of what it got, without what it got of the edge.
#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    fields: BTreeSet<(String, String)>,
    length: u64,
    digest: String,
}

fn seen(answer: &Response) -> Seen {
    let said: Value =
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}{}", answer.head, answer.text()));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fields = said["fields"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1])));
    let is_clients = |(name, _): &(String, String)| !NOT_THE_CLIENTS.contains(&name.as_str());
    Seen {
        method: text(&said["method"]),
        target: text(&said["target"]),
        fields: fields.filter(is_clients).collect(),
        length: said["length"].as_u64().unwrap(),
        digest: text(&said["digest"]),
    }
}

/// An answer without what is not its origin's.
fn told(answer: &Response) -> (u16, Vec<(String, String)>, String) {
    let lines = answer.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let fields = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let fields = fields.filter(|(name, _)| !NOT_THE_ORIGINS.contains(&name.as_str())).collect();
    (answer.status, fields, digest(&answer.body))
}

/// Sends everything straight, through the edge on connections of its own, on one, and two at a time.
async fn compare(origin: SocketAddr) {
    let edge = edge(origin).await;
    let through = edge.address("http");
    let mut kept = Client::connect(through).await;
    let mut count = 0;
    for request in echoes() {
        let name = request.name();
        let straight = seen(&request.ask(&mut Client::connect(origin).await).await);
        let expected = (request.method.to_owned(), request.body.bytes().len() as u64, digest(request.body.bytes()));
        assert_eq!((straight.method.clone(), straight.length, straight.digest.clone()), expected, "{name}");
        let apart = seen(&request.ask(&mut Client::connect(through).await).await);
        assert_eq!(apart, straight, "{name}");
        assert_eq!(seen(&request.ask(&mut kept).await), straight, "{name}, on a kept connection");
        count += 2;
    }
    count += same_answers((origin, through), &answers()).await;
    count += pipelined(through).await;
    count += streams(&edge).await;
    let records = crate::world::records(&edge, count).await;
    assert_eq!(records.len(), count, "each is recorded once");
    let unclean: Vec<_> = records.iter().filter(|record| record["ended_by"] != "instance").collect();
    assert!(unclean.is_empty(), "{unclean:#?}");
}

/// The same for requests that are compared by their answers only.
pub(crate) async fn compare_answers(origin: SocketAddr, all: &[Sent]) {
    let edge = edge(origin).await;
    same_answers((origin, edge.address("http")), all).await;
}

/// Sends each straight and on one connection through the edge.
async fn same_answers((origin, through): (SocketAddr, SocketAddr), all: &[Sent]) -> usize {
    let mut kept = Client::connect(through).await;
    for request in all {
        let name = request.name();
        let straight = request.ask(&mut Client::connect(origin).await).await;
        let answer = request.ask(&mut kept).await;
        assert_eq!(told(&answer), told(&straight), "{name}\n{}\n{}", straight.head, answer.head);
        // A length that was said is said, of answers without a body, too. Of parts Apache says one if all are there at once.
        let is_said = straight.field("content-length").is_some() && !request.target.starts_with("/parts/");
        if is_said && straight.status != 204 {
            assert_eq!(answer.field("content-length"), straight.field("content-length"), "{name}");
        }
    }
    all.len()
}

/// Two requests at a time, in one write; their answers come in order.
async fn pipelined(through: SocketAddr) -> usize {
    let mut client = Client::connect(through).await;
    let mut all = echoes();
    all.retain(|request| request.version == "HTTP/1.1" && !matches!(request.body, Body::Continued(_)));
    all.retain(|request| request.body.bytes().len() < LARGE);
    for pair in all.chunks(2) {
        let bytes = pair.iter().flat_map(|request| {
            let (head, body) = request.written();
            [head.into_bytes(), body].concat()
        });
        client.send(bytes.collect::<Vec<_>>()).await;
        for request in pair {
            let got = seen(&client.response_to(request.method).await);
            let expected = (request.method.to_owned(), digest(request.body.bytes()));
            assert_eq!((got.method, got.digest), expected, "{}", request.name());
        }
    }
    all.len()
}

/// Clients of HTTP/2: bodies with and without a length, and cookies in pieces.
async fn streams(edge: &Edge) -> usize {
    let mut client = http2::Client::connect(edge.address("http")).await;
    let large = many(LARGE);
    let mut count = 0;
    for (method, body, length) in [
        (Method::GET, &b""[..], None),
        (Method::POST, b"", Some("0")),
        (Method::POST, b"hello", Some("5")),
        (Method::PUT, b"hello", None),
        (Method::POST, &large, Some("3145728")),
        (Method::PATCH, &large, None),
    ] {
        let mut request = Request::builder().method(method.clone()).uri(format!("http://{HOST}/a%2Fb?c=d"));
        for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("x-odd", "\"a,b\";c"), ("te", "trailers")] {
            request = request.header(name, value);
        }
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let answer = client.send(request.body(()).unwrap(), body).await.unwrap();
        let got = seen(&Response { status: answer.status, head: String::new(), body: answer.body });
        assert_eq!((got.method.as_str(), got.target.as_str()), (method.as_str(), "/a%2Fb?c=d"));
        assert_eq!((got.length, got.digest), (body.len() as u64, digest(body)), "{method} {length:?}");
        for (name, value) in [("cookie", "a=1; b=2"), ("x-odd", "\"a,b\";c"), ("host", HOST)] {
            let of_name: Vec<_> = got.fields.iter().filter(|(other, _)| other == name).collect();
            assert_eq!(of_name, [&(name.to_owned(), value.to_owned())]);
        }
        count += 1;
    }
    count
}

#[tokio::test]
async fn p10_p17_p19_apache_gets_and_says_through_the_edge_what_it_does_without() {
    let apache = apache().await;
    compare(apache.address).await;
}

#[tokio::test]
async fn p10_p17_p19_gunicorn_gets_and_says_through_the_edge_what_it_does_without() {
    for kind in ["sync", "gthread"] {
        let gunicorn = gunicorn(kind).await;
        compare(gunicorn.address).await;
    }
}

#[tokio::test]
async fn p10_p17_p19_uvicorn_gets_and_says_through_the_edge_what_it_does_without() {
    let uvicorn = uvicorn().await;
    compare(uvicorn.address).await;
}

#[tokio::test]
async fn p10_p17_p19_node_gets_and_says_through_the_edge_what_it_does_without() {
    let node = node(5000).await;
    compare(node.address).await;
}

#[tokio::test]
async fn p10_p17_p19_hyper_gets_and_says_through_the_edge_what_it_does_without() {
    let (address, _serving) = hyper().await;
    compare(address).await;
}
