use super::*;

fn parse(head: &str) -> Result<Head, Reason> {
    Head::parse(head.as_bytes(), 16 << 10)
}

fn get(fields: &str) -> Result<Head, Reason> {
    parse(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))
}

#[test]
fn p20_an_ambiguous_authority_is_refused() {
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    ] {
        assert_eq!(parse(bad).err(), Some(Reason::BadHost), "{bad:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(256));
    assert_eq!(parse(&long).err(), Some(Reason::BadHost));
}

#[test]
fn p22_the_name_is_normalised_and_the_host_kept_as_sent() {
    let head = parse("GET http://A.Example.:8080/x?y HTTP/1.1\r\nHost: A.Example.:8080\r\n\r\n").expect("valid");
    assert_eq!(head.name.as_str(), "a.example");
    assert_eq!(head.host, "A.Example.:8080");
    assert_eq!((head.target.as_str(), head.path(), head.form), ("/x?y", "/x", Form::Absolute));
    let head = parse("GET http://a.example?y HTTP/1.1\r\nHost: a.example\r\n\r\n").expect("valid");
    assert_eq!(head.target, "/?y");
}

#[test]
fn p01_p05_ambiguous_framing_is_refused() {
    for bad in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5_0\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\u{b}\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\0b\r\n",
        ": x\r\n",
        "a b: x\r\n",
        "Connection: host\r\n",
        "Connection: content-length\r\n",
        "Connection: \"x\"\r\n",
        "Upgrade: websocket\r\nContent-Length: 1\r\n",
    ] {
        assert_eq!(get(bad).err(), Some(Reason::BadHead), "{bad:?}");
    }
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse(old).err(), Some(Reason::BadHead));
}

#[test]
fn p25_nominating_a_proxys_own_field_is_refused() {
    for bad in ["x-forwarded-for", "X-Forwarded-Proto", "x_forwarded_for", "forwarded", "x-real-ip", "x-request-id"] {
        assert_eq!(get(&format!("Connection: close, {bad}\r\n")).err(), Some(Reason::BadHead), "{bad}");
    }
    assert!(get("Connection: keep-alive, x-mine\r\n").is_ok());
}

#[test]
fn clear_framing_is_understood() {
    assert_eq!(get("").expect("valid").framing, Framing::Empty);
    assert_eq!(get("Content-Length: 0\r\n").expect("valid").framing, Framing::Empty);
    assert_eq!(get("Content-Length: 17\r\n").expect("valid").framing, Framing::Length(17));
    assert_eq!(get("Transfer-Encoding: chunked\r\n").expect("valid").framing, Framing::Chunked);
}

#[test]
fn a_request_line_is_strict() {
    for (bad, reason) in [
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadHead),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadHead),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadHead),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadHead),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadHead),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Reason::BadHead),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Reason::Method),
    ] {
        assert_eq!(parse(bad).err(), Some(reason), "{bad:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(16 << 10));
    assert_eq!(parse(&long).err(), Some(Reason::TargetTooLong));
    let many = "x: y\r\n".repeat(100);
    assert_eq!(get(&many).err(), Some(Reason::HeadTooLarge));
    assert!(parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
}

#[test]
fn a_navigation_is_a_get_for_a_html_document() {
    assert_eq!(get("Accept: text/html,*/*\r\n").expect("valid").reader, Reader::Navigation);
    assert_eq!(get("Accept: text/html\r\nSec-Fetch-Dest: document\r\n").expect("valid").reader, Reader::Navigation);
    assert_eq!(get("Accept: text/html\r\nSec-Fetch-Dest: iframe\r\n").expect("valid").reader, Reader::Html);
    assert_eq!(get("Accept: */*\r\n").expect("valid").reader, Reader::Program);
    let post = parse("POST / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").expect("valid");
    assert_eq!(post.reader, Reader::Html);
}

#[test]
fn the_clients_wish_for_the_connection_is_understood() {
    assert_eq!(get("").expect("valid").connection, Connection::KeepAlive);
    assert_eq!(get("Connection: x, Close\r\n").expect("valid").connection, Connection::Close);
    assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").expect("valid").connection, Connection::Close);
    assert_eq!(get("Upgrade: websocket\r\nConnection: Upgrade\r\n").expect("valid").kind, Kind::WebSocket);
    assert_eq!(get("Upgrade: h2c\r\n").expect("valid").kind, Kind::Plain);
    assert_eq!(get("Accept: text/event-stream\r\n").expect("valid").kind, Kind::EventStream);
}
