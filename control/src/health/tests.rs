use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpSocket};

use super::*;

const SHORT: ProbeLimits = ProbeLimits {
    connect: Duration::from_millis(400),
    answer: Duration::from_secs(20),
    window: Duration::from_millis(300),
    settle: Duration::ZERO,
};

fn host() -> Host {
    "hello.localhost".parse().expect("a host")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Answers each connection with the next of `answers`, the last one again and again; the requests it got.
async fn serve(listener: TcpListener, answers: &[&str], requests: &mut Vec<String>) {
    for index in 0.. {
        let (mut socket, _) = listener.accept().await.expect("accept");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut request).await.expect("read");
        }
        requests.push(String::from_utf8(request).expect("text"));
        let answer = answers[index.min(answers.len() - 1)];
        socket.write_all(answer.as_bytes()).await.expect("write");
    }
}

/// Probes an application that gives these answers.
async fn probe_of(answers: &[&str], limits: ProbeLimits) -> (Result<Ready, ProbeError>, Vec<String>) {
    let (listener, address) = listener().await;
    let (mut requests, host) = (Vec::new(), host());
    let seen = tokio::select! {
        () = serve(listener, answers, &mut requests) => unreachable!("it serves for ever"),
        seen = probe(address, &host, limits) => seen,
    };
    (seen, requests)
}

#[test]
fn every_status_up_to_499_and_exactly_500_is_ready() {
    for ready in [100, 101, 200, 204, 301, 302, 399, 400, 404, 499, 500] {
        assert!(is_ready(ready), "{ready}");
    }
    for not_ready in [0, 99, 501, 502, 503, 504, 599, 999] {
        assert!(!is_ready(not_ready), "{not_ready}");
    }
}

#[test]
fn the_status_line_is_read_strictly_and_only_when_it_is_whole() {
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\n", Some(Try::Status(200))),
        ("HTTP/1.0 404 \r\n", Some(Try::Status(404))),
        ("HTTP/1.1 500\r\n", Some(Try::Status(500))),
        ("HTTP/1.1 999\n", Some(Try::Status(999))),
        ("", None),
        ("HTT", None),
        ("HTTP/1.1 200", None),
        ("HTTP/1.1 2000 OK", Some(Try::NotHttp)),
        ("HTTP/1.1 20x OK", Some(Try::NotHttp)),
        ("HTTP/1.1 099 OK", Some(Try::NotHttp)),
        ("HTTP/1.2 200 OK", Some(Try::NotHttp)),
        ("HTTP/1.1\t200 OK", Some(Try::NotHttp)),
        ("HTTP/2 200 OK\r\n", Some(Try::NotHttp)),
        ("\x15\x03\x01", Some(Try::NotHttp)),
        ("SSH-2.0", Some(Try::NotHttp)),
    ] {
        assert_eq!(status(head.as_bytes()), expected, "{head:?}");
    }
}

#[tokio::test]
async fn the_first_answer_that_will_do_ends_the_probe() {
    let (seen, requests) = probe_of(&["HTTP/1.1 302 Found\r\n\r\n"], ProbeLimits::default()).await;
    let ready = seen.expect("it answers");
    assert_eq!((ready.status, ready.tries), (302, 1));
    let [request] = &requests[..] else { panic!("one request, not {requests:?}") };
    assert!(request.starts_with("GET / HTTP/1.1\r\nHost: hello.localhost\r\n"), "{request}");
    assert!(
        request.contains("User-Agent: dormouse-probe\r\n") && request.contains("Connection: close\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn an_application_that_is_not_ready_yet_is_asked_again() {
    let answers = ["HTTP/1.1 503 Not Yet\r\n\r\n", "", "+PONG\r\n", "HTTP/1.1 200 OK\r\n\r\n"];
    let (seen, _) = probe_of(&answers, ProbeLimits::default()).await;
    assert_eq!(seen.map(|ready| ready.tries), Ok(4));
}

#[tokio::test]
async fn an_application_that_listens_late_is_found() {
    // Bound, so that the port is ours, but refusing until it listens.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    let application = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let listener = socket.listen(8).expect("listen");
        serve(listener, &["HTTP/1.1 200 OK\r\n\r\n"], &mut Vec::new()).await;
    };
    let host = host();
    let ready = tokio::select! {
        () = application => unreachable!("it serves for ever"),
        seen = probe(address, &host, ProbeLimits::default()) => seen.expect("it answers in the end"),
    };
    assert!(ready.tries > 1 && ready.took >= Duration::from_millis(50), "{ready:?}");
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_said_with_what_to_look_at() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    let error = probe(address, &host(), SHORT).await.expect_err("nobody listens");
    assert!(matches!(error, ProbeError::NeverListened { tries: 4.., .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("nothing listened on port {} within 0.3 s (", address.port())), "{text}");
    assert!(text.contains("variable PORT") && text.contains("0.0.0.0"), "{text}");
}

#[tokio::test]
async fn an_application_that_is_unwell_to_the_end_is_quoted() {
    let (seen, _) = probe_of(&["HTTP/1.1 502 Bad Gateway\r\n\r\n"], SHORT).await;
    let error = seen.expect_err("it is unwell");
    assert!(matches!(error, ProbeError::Status { code: 502, tries: 2.., .. }), "{error:?}");
    assert!(error.to_string().starts_with("GET / was answered 502 to the end, for 0.3 s ("), "{error}");
}

#[tokio::test]
async fn silence_and_other_protocols_are_told_apart() {
    let (listener, address) = listener().await;
    let error = probe(address, &host(), SHORT).await.expect_err("it is silent");
    assert!(matches!(error, ProbeError::NoAnswer { .. }), "{error:?}");
    drop(listener);
    let (seen, _) = probe_of(&["-ERR unknown command 'GET'\r\n"], SHORT).await;
    assert!(matches!(seen, Err(ProbeError::NotHttp { .. })), "{seen:?}");
}

#[tokio::test]
async fn a_try_that_the_end_cuts_off_does_not_hide_what_was_seen() {
    let (listener, address) = listener().await;
    let application = async {
        let (mut first, _) = listener.accept().await.expect("accept");
        first.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").await.expect("write");
        let _second = listener.accept().await.expect("accept");
        std::future::pending::<()>().await;
    };
    let host = host();
    let error = tokio::select! {
        () = application => unreachable!("it hangs"),
        seen = probe(address, &host, SHORT) => seen.expect_err("it is unwell"),
    };
    assert!(matches!(error, ProbeError::Status { code: 503, tries: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn an_application_that_ends_with_its_first_answer_is_not_ready() {
    let (listener, address) = listener().await;
    let application = async move {
        let (mut socket, _) = listener.accept().await.expect("accept");
        socket.read_buf(&mut Vec::new()).await.expect("read");
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("write");
    };
    let (host, limits) = (host(), ProbeLimits { settle: Duration::from_millis(20), ..SHORT });
    let (seen, ()) = tokio::join!(probe(address, &host, limits), application);
    assert!(matches!(seen, Err(ProbeError::NeverListened { .. })), "{seen:?}");
}
