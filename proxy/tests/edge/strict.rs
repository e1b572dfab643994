//! Requests that could be read in two ways get one answer and the connection's end, and no origin ever sees them.

use std::time::Duration;

use crate::world::origin::Origin;
use crate::world::{World, until};

/// What an attacker hides behind the end that somebody else sees.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

async fn world() -> (World, Origin) {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    (world, origin)
}

/// Each is answered by `status` and the end of its connection; nothing reaches the origin, and others go on being served.
async fn refused(status: u16, requests: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let (world, origin) = world().await;
    for request in requests {
        let shown = request.as_ref().escape_ascii().to_string();
        let mut client = world.client().await;
        client.send([request.as_ref(), SMUGGLED.as_bytes()].concat()).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.field("connection").as_deref()), (status, Some("close")), "{shown}");
        assert!(client.closed().await, "{shown}");
        assert_eq!(origin.requests().len(), 0, "{shown}");
    }
    assert_eq!(world.get("a.example", "/").await.text(), "one");
    assert_eq!((origin.requests().len(), origin.connections()), (1, 1));
    world.stop().await;
    assert_eq!(origin.junk(), b"");
}

fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")
}

#[tokio::test]
async fn p01_a_length_and_chunks_at_once_are_refused() {
    refused(
        400,
        [
            post("Content-Length: 5\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5") + "0\r\n\r\n",
            post("Transfer-Encoding: chunked\r\nContent-Length: 0") + "0\r\n\r\n",
            post("Transfer-Encoding: identity\r\nContent-Length: 5"),
            post("content-length: 5\r\nTRANSFER-ENCODING: chunked") + "0\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn p02_p03_two_lengths_are_refused_whether_they_agree_or_not() {
    refused(
        400,
        [
            post("Content-Length: 5\r\nContent-Length: 6"),
            post("Content-Length: 5, 6"),
            post("Content-Length: 5\r\nContent-Length: 5"),
            post("Content-Length: 5, 5"),
            post("Content-Length: 0\r\nX: y\r\ncontent-length: 0"),
        ],
    )
    .await;
}

#[tokio::test]
async fn p04_a_length_is_a_decimal_number_and_nothing_else() {
    let lengths = [
        "+5",
        "-0",
        "-1",
        "0x5",
        "5_0",
        "5 5",
        "5;5",
        "5.0",
        "5e0",
        "",
        " ",
        "\"5\"",
        "5,",
        ",5",
        "5\u{b}",
        "\u{661}",
        "18446744073709551616",
        "99999999999999999999999",
    ];
    refused(400, lengths.map(|length| post(&format!("Content-Length: {length}")))).await;
}

#[tokio::test]
async fn p05_the_only_coding_is_chunked_and_only_once() {
    let codings = [
        "xchunked",
        "chunked, identity",
        ", chunked",
        "chunked,",
        "chunked\u{b}",
        "\u{b}chunked",
        "Chunked",
        "chunked, chunked",
        "gzip, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "identity",
        "chunk",
        "chun\tked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "",
    ];
    let mut requests = codings.map(|coding| post(&format!("Transfer-Encoding: {coding}")) + "0\r\n\r\n").to_vec();
    requests.push("POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned());
    refused(400, requests).await;
}

#[tokio::test]
async fn p06_a_field_has_a_token_for_a_name_and_one_line_for_a_value() {
    let fields = [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: a\r\n b",
        "X: a\r\n\tTransfer-Encoding: chunked",
        "X: a\rb",
        "X: a\r\r\nb: c",
        "X: a\0b",
        "X\0: a",
        ": a",
        "a b: c",
        "a(b): c",
        "no colon",
        "Tran\u{17f}fer-Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Content_Length: 5",
        "Content--Length: 5",
        "TransferEncoding: chunked",
    ];
    refused(400, fields.map(post)).await;
}

#[tokio::test]
async fn p06_what_is_unusual_but_clear_is_passed_on() {
    let (world, origin) = world().await;
    let many = "X: y\r\n".repeat(98);
    let long = format!("X: {}\r\n", "a".repeat(60 << 10));
    for (method, fields) in [
        ("GET", b"X:\r\nY: \t \r\nZ:a\r\n".as_slice()),
        ("GET", b"X: \xff\xfe\x80\r\n"),
        ("GET", b"X: a\tb \"c\\\" d; , ,\r\n"),
        ("GET", b"!#$%&'*+-.^_`|~09aZ: x\r\n"),
        ("GET", b"Content-Length: 0\r\n"),
        ("GET", b"Connection: , ,\r\nConnection: keep-alive\r\n"),
        ("GET", many.as_bytes()),
        ("GET", long.as_bytes()),
        ("get", b""),
        ("M-SEARCH", b""),
        ("A!#$%&'*+-.^_`|~Z", b""),
        ("\r\nGET", b""),
    ] {
        let mut client = world.client().await;
        let shown = fields.escape_ascii().to_string();
        client.send([method.as_bytes(), b" / HTTP/1.1\r\nHost: a.example\r\n", fields, b"\r\n"].concat()).await;
        assert_eq!(client.response().await.text(), "one", "{method} {shown:.60}");
        let request = origin.requests().pop().expect("it");
        assert!(request.is_well_framed(), "{}", request.head);
        assert_eq!(request.head.split(' ').next(), Some(method.trim_start()));
        assert_eq!(client.get("a.example", "/").await.text(), "one", "{method} {shown:.60}");
    }
    world.stop().await;
    assert_eq!(origin.junk(), b"");
}

#[tokio::test]
async fn p07_a_line_ends_with_cr_lf() {
    refused(
        400,
        [
            "GET / HTTP/1.1\nHost: a.example\n\n",
            "GET / HTTP/1.1\r\nHost: a.example\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\n\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\rHost: a.example\r\r",
            "\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_line_is_three_words_of_a_version_we_speak() {
    refused(
        400,
        [
            "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a.example\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / \r\nHost: a.example\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a.example\r\n\r\n",
            "GET / http/1.1\r\nHost: a.example\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET http://a.example/#b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /a\"b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /a`b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /?a<b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /a>b HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn p08_chunks_that_are_none_are_refused_and_end_the_upstream_connection() {
    let (world, origin) = world().await;
    let bad = [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
    ];
    for (at, body) in bad.into_iter().enumerate() {
        let mut client = world.client().await;
        client.send(post("Transfer-Encoding: chunked") + body + SMUGGLED).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.field("connection").as_deref()), (400, Some("close")), "{body:?}");
        assert!(client.closed().await, "{body:?}");
        let path = format!("/after-{at}");
        assert_eq!(world.get("a.example", &path).await.text(), "one");
        assert_eq!(origin.requests().pop().expect("a request").path(), path, "{body:?}");
        assert_eq!(origin.requests().len(), at + 1, "{body:?}");
    }
    assert!(origin.requests().iter().all(|request| request.is_well_framed()));
    world.stop().await;
}

#[tokio::test]
async fn p09_trailers_of_a_request_are_dropped() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let trailers =
        "Content-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: b.example\r\nAuthorization: x\r\nX-Mine: y\r\n";
    client
        .send(post("Transfer-Encoding: chunked\r\nTrailer: X-Mine") + "5\r\nhello\r\n0\r\n" + trailers + "\r\n")
        .await;
    assert_eq!(client.response().await.text(), "one");
    assert_eq!(client.get("a.example", "/next").await.text(), "one");
    let requests = origin.requests();
    assert_eq!((requests.len(), origin.connections()), (2, 1), "the origin sees the same two requests");
    assert_eq!((requests[0].body.as_slice(), requests[1].path()), (b"hello".as_slice(), "/next"));
    assert!(requests.iter().all(|request| request.is_well_framed()));
    for name in ["authorization", "x-mine", "trailer", "content-length"] {
        assert!(requests[0].field(name).is_empty(), "{name}");
    }
    world.stop().await;
    assert_eq!(origin.junk(), b"");
}

#[tokio::test]
async fn p10_every_method_may_have_a_body_and_the_next_request_is_where_it_ends() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let methods = ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "PATCH"];
    for method in methods {
        let head = format!("{method} / HTTP/1.1\r\nHost: a.example\r\n");
        client.send(format!("{head}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len())).await;
        client
            .send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()))
            .await;
        client.send("GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.response_to(method).await.status, 200, "{method}");
        assert_eq!(client.response_to(method).await.status, 200, "{method}");
        assert_eq!(client.response().await.text(), "one", "{method}");
    }
    let requests = origin.requests();
    let paths: Vec<_> = requests.iter().map(|request| request.path()).collect();
    assert_eq!(paths, ["/", "/", "/next"].repeat(methods.len()));
    assert!(requests.iter().all(|request| request.is_well_framed()));
    world.stop().await;
    assert_eq!(origin.junk(), b"");
}

#[tokio::test]
async fn p13_an_upgrade_to_http_2_goes_no_further() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA";
    client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")).await;
    assert_eq!(client.response().await.text(), "one");
    for name in ["upgrade", "http2-settings"] {
        assert!(origin.requests()[0].field(name).is_empty(), "{name}");
    }
    assert_eq!(client.get("a.example", "/").await.text(), "one");
    world.stop().await;
}

#[tokio::test]
async fn p15_http_1_0_gets_no_chunks_no_interim_answers_and_its_end() {
    let mut world = World::with(|config| config.limits.half_closed = Duration::from_secs(20)).await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    for (path, answer, body) in [
        (
            "/raw",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
        ),
        ("/raw", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("/raw-end", "HTTP/1.1 200 OK\r\n\r\nto the end", "to the end"),
        ("/raw-end", "HTTP/1.0 200 OK\r\n\r\nto the end", "to the end"),
    ] {
        for fields in ["", "Connection: keep-alive\r\n", "Expect: 100-continue\r\n"] {
            origin.say(answer);
            let mut client = world.client().await;
            client
                .send(format!("POST {path} HTTP/1.0\r\nHost: a.example\r\nContent-Length: 5\r\n{fields}\r\nhello"))
                .await;
            client.finish().await;
            let head = client.head().await.expect("a head");
            assert!(head.split(' ').nth(1) == Some("200"), "{head}");
            assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
            let rest = client.take(body.len()).await.expect("the body");
            assert_eq!(rest, body.as_bytes(), "{answer:?}");
            assert!(client.closed().await, "{answer:?}");
        }
    }
    for request in origin.requests() {
        assert!(request.is_well_framed() && request.field("expect").is_empty(), "{}", request.head);
    }
    world.stop().await;
}

#[tokio::test]
async fn p17_only_the_one_expectation_is_known() {
    let expectations = ["200-ok", "100-continue, x", "y 100-continue", "100-continue\r\nExpect: 100-continue", ""];
    refused(417, expectations.map(|value| post(&format!("Content-Length: 5\r\nExpect: {value}")))).await;
}

#[tokio::test]
async fn p17_whatever_an_origin_makes_of_an_expectation_there_is_one_final_answer() {
    let (world, origin) = world().await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a.example\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
    };
    // The origin says 100 and then what it likes.
    for answer in
        ["HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    {
        origin.say(answer);
        let mut client = world.client().await;
        client.send(head("/raw")).await;
        assert!(client.head().await.expect("an interim answer").starts_with("HTTP/1.1 100"));
        client.send("hello").await;
        assert!(client.head().await.expect("a final answer").starts_with(&answer[..12]));
        assert_eq!(client.get("a.example", "/").await.text(), "one");
    }
    // The origin answers at once: what follows is the body, or the end.
    let mut client = world.client().await;
    client.send(head("/early")).await;
    assert_eq!(client.response().await.text(), "early");
    client.send("hello").await;
    assert_eq!(client.get("a.example", "/next").await.text(), "one");
    // The client does not wait.
    let mut client = world.client().await;
    client.send(head("/echo") + "hello" + SMUGGLED).await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.response().await.text(), "one");
    // Nothing is expected to be sent.
    let mut client = world.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\n\r\n").await;
    assert!(client.head().await.expect("a head").starts_with("HTTP/1.1 200"));
    assert!(origin.requests().pop().expect("it").field("expect").is_empty());
    assert!(origin.requests().iter().all(|request| request.is_well_framed()));
    world.stop().await;
}

#[tokio::test]
async fn p20_p22_what_is_no_host_name_is_refused_and_case_port_and_dot_do_not_matter() {
    let hosts = [
        "",
        "a.example, a.example",
        "a.example b",
        "u@a.example",
        "a.example/",
        "a.example?",
        "a%2eexample",
        "a..example",
        ".a.example",
        "a.example:x",
        "a.example:65536",
        "a.example:80:80",
        "http://a.example",
        "[::1",
        "\u{e4}.example",
        "a.example\r\nHost: a.example",
        "a.example\r\nhost: b.example",
    ];
    let mut requests = hosts.map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).to_vec();
    requests.push(format!("GET / HTTP/1.1\r\nHost: {}.example\r\n\r\n", "a".repeat(255)));
    requests.push("GET / HTTP/1.1\r\n\r\n".to_owned());
    requests.push("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned());
    requests.push("GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned());
    requests.push("GET http://u@a.example/ HTTP/1.1\r\nHost: u@a.example\r\n\r\n".to_owned());
    requests.push("GET http:///x HTTP/1.1\r\nHost: \r\n\r\n".to_owned());
    refused(400, requests).await;
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let hosts = ["A.Example", "a.example.", "a.example:8080", "a.example.:80"];
    for host in hosts {
        assert_eq!(client.get(host, "/").await.text(), "one", "{host}");
        assert_eq!(origin.requests().pop().expect("it").field("host"), [host]);
    }
    assert_eq!(client.get("a.example.b", "/").await.status, 404);
    assert_eq!(client.get("127.0.0.1", "/").await.status, 404);
    assert_eq!(origin.requests().len(), hosts.len());
    world.stop().await;
}

#[tokio::test]
async fn a_target_in_absolute_form_reaches_the_origin_with_its_host() {
    let (world, origin) = world().await;
    for (line, path) in [
        ("GET http://a.example/x HTTP/1.0\r\n", "/x"),
        ("GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n", "/?q"),
        ("OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n", "*"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n", "*"),
        ("GET HTTPS://a.example/x HTTP/1.1\r\nHost: a.example\r\n", "/x"),
    ] {
        let mut client = world.client().await;
        client.send(format!("{line}\r\n")).await;
        assert_eq!(client.response().await.status, 200, "{line}");
        let request = origin.requests().pop().expect("it");
        assert!(request.is_well_framed(), "{line}: {}", request.head);
        assert_eq!((request.path(), request.field("host")), (path, vec!["a.example".to_owned()]), "{line}");
    }
    refused(405, ["CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"]).await;
    world.stop().await;
}

#[tokio::test]
async fn p24_a_path_is_decided_on_and_passed_on_as_it_is_and_ours_has_no_other_spelling() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let paths =
        ["/..%2f", "/%2e%2e/x", "//x", "/a\\b", "/a;b=c/d", "/%00", "/x/../y", "/%zz", "/?a?b=c%", "/%252edormouse/"];
    for path in paths {
        assert_eq!(client.get("a.example", path).await.text(), "one", "{path}");
        assert_eq!(origin.requests().pop().expect("it").path(), path);
    }
    for byte in b"$&'()*+,:=@[]^_{|}~!-.\\;" {
        for path in [format!("/a{}b", char::from(*byte)), format!("/?a`{}b", char::from(*byte))] {
            assert_eq!(world.get("a.example", &path).await.text(), "one", "{path}");
            assert_eq!(origin.requests().pop().expect("it").path(), path);
        }
    }
    let count = origin.requests().len();
    for path in ["/.dormouse/x", "//.dormouse/x", "/%2edormouse/x", "/x/..%2f.dormouse/x", "/.dormouse/../x"] {
        assert_eq!(client.get("a.example", path).await.status, 404, "{path}");
    }
    assert_eq!(origin.requests().len(), count);
    world.stop().await;
}

#[tokio::test]
async fn p25_p26_a_clients_versions_of_our_fields_are_replaced_or_dropped() {
    let (world, origin) = world().await;
    let mut client = world.client().await;
    let names = [
        "X-Forwarded-For",
        "x_forwarded-for",
        "X-Forwarded-Host",
        "X-Forwarded-Anything",
        "Forwarded",
        "X-Real_IP",
        "X-Request-ID",
        "CF-Connecting-IP",
        "True-Client-IP",
        "Proxy",
        "X-Dormouse-Wake",
        "X_DORMOUSE_ANYTHING",
    ];
    let fields: String = names.iter().map(|name| format!("{name}: evil\r\n{name}: evil\r\n")).collect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    let request = origin.requests().remove(0);
    assert!(!request.head.contains("evil"), "{}", request.head);
    for name in ["x-forwarded-for", "forwarded", "x-real-ip", "x-request-id"] {
        assert_eq!(request.field(name).len(), 1, "{name}");
    }
    let nominated = ["x-forwarded-for", "X_Real_IP", "x-dormouse-wake", "host", "content-length", "transfer-encoding"];
    refused(400, nominated.map(|name| post(&format!("Connection: close, {name}")))).await;
    world.stop().await;
}

#[tokio::test]
async fn p39_what_is_too_large_is_refused_before_anybody_is_woken() {
    use dormouse_link::{Report, State};

    use crate::world::{environment, route};

    let mut world = World::with(|config| {
        config.limits.report_period = Duration::from_millis(10);
        config.limits.head_bytes = 2000;
        config.limits.target_bytes = 200;
        config.limits.body_bytes = 1000;
    })
    .await;
    let origin = Origin::start("one").await;
    world.publish([route("a.example"), environment("a.example", 1, State::Asleep, &[&origin])]).await;
    let from = world.reports.count();
    let long = "a".repeat(3000);
    let many = "x: y\r\n".repeat(100);
    for (status, request) in [
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a.example\r\n\r\n")),
        (414, format!("GET /{}", &long[..300])),
        (414, format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n", &long[..220])),
        (431, format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {long}")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.example\r\n{many}\r\n")),
        (413, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1001\r\n\r\n".to_owned()),
        (413, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 18446744073709551615\r\n\r\n".to_owned()),
    ] {
        let mut client = world.client().await;
        client.send(&request).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.field("connection").as_deref()), (status, Some("close")), "{request:.60}");
        assert!(client.closed().await, "{request:.60}");
    }
    let reports = || world.reports.since(from);
    until("a few periods", || reports().iter().filter(|report| matches!(report, Report::Drained { .. })).count() >= 3)
        .await;
    assert!(!reports().iter().any(|report| matches!(report, Report::Wanted(_))), "{:?}", reports());
    world.stop().await;
}
