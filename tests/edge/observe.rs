//! What the program tells to files, pipes, daemons and collectors, and that none of them holds it up.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::program::{Edge, command, folder, get, get_path, origin, refused, soon};

const ANY: &str = "127.0.0.1:0";

#[tokio::test]
async fn metrics_are_for_operators_alone() {
    let one = origin("one").await;
    let words = ["--http", ANY, "--admin", ANY];
    let edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    let ask = async |at, host| get_path(TcpStream::connect(at).await.unwrap(), host, "/metrics").await;
    let text = ask(edge.address("admin"), "admin").await.unwrap();
    assert!(text.contains("\ndormouse_ready 1\n") && text.contains("\nprocess_open_fds "), "{text}");
    assert_eq!(ask(edge.address("http"), "admin").await, Err(404), "c26");
    assert_eq!(ask(edge.address("http"), "a.example").await, Ok("one".to_owned()), "the application's own");
}

#[tokio::test]
async fn records_go_to_stdout_behind_the_ready_line() {
    let one = origin("one").await;
    let words = ["--http", ANY, "--access-log", "stdout", "--name", "edge-7", "--region", "north"];
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
    let record: Value = serde_json::from_str(&edge.line().await).unwrap();
    assert_eq!(
        (&record["status"], &record["edge"], &record["region"]),
        (&200.into(), &"edge-7".into(), &"north".into())
    );
}

#[tokio::test]
async fn the_log_goes_to_a_file_or_to_syslog() {
    let one = origin("one").await;
    let place = folder(&[("a.example", &one)]);
    let (log, socket) = (place.path().join("log"), place.path().join("syslog"));
    let daemon = UnixDatagram::bind(&socket).unwrap();
    let words = ["--http", ANY, "--log", &format!("file:{}", log.display())];
    let mut edge = Edge::with(place, &words).await;
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("first table applied") && text.contains("stopping"), "to its last line: {text}");
    assert!(!text.contains('\u{1b}'), "without colours");
    let words = ["--http", ANY, "--log", &format!("syslog:{}", socket.display())];
    let _edge = edge.another(&words).await;
    let mut bytes = [0; 8192];
    let count = soon("a message", daemon.recv(&mut bytes)).await.unwrap();
    let message = String::from_utf8_lossy(&bytes[..count]);
    assert!(message.starts_with("<134>1 ") && message.contains(" log - "), "{message}");
    let (code, told) = refused(edge.folder(), &["--http", ANY, "--log", "syslog:/nonexistent/socket"]).await;
    assert!(code == 73 && told.contains("error: cannot open the log") && told.contains("hint: "), "{code} {told}");
    let (code, told) = refused(edge.folder(), &["--http", ANY, "--access-log", "/nonexistent/folder/log"]).await;
    assert!(code == 73 && told.contains("open the access log"), "{code} {told}");
}

#[tokio::test]
async fn nobody_who_reads_the_log_or_the_records_holds_up_a_request() {
    let one = origin("one").await;
    let place = Arc::new(folder(&[("a.example", &one)]));
    let mut command = command(place.path(), &["--http", ANY, "--access-log", "stdout"]);
    command.env("DORMOUSE_LOG", "trace");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Neither pipe is read any more: at this level a request logs much, and both are full soon.
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    soon("its ready line", output.read_line(&mut ready)).await.unwrap();
    let at: SocketAddr = ready.trim().rsplit('=').next().unwrap().parse().unwrap();
    for _ in 0..1000 {
        assert_eq!(get(TcpStream::connect(at).await.unwrap(), "a.example").await, Ok("one".to_owned()));
    }
    drop((output, child));
}

/// An origin that keeps the heads of its requests.
async fn keeping() -> (crate::program::Origin, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (kept, mut serving) = (Arc::clone(&heads), JoinSet::new());
    serving.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            kept.lock().unwrap().push(String::from_utf8(head).unwrap());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\none").await.unwrap();
        }
    });
    (crate::program::Origin::new(address, serving), heads)
}

/// A collector: takes what it is told, and says so with this status.
struct Collector {
    address: SocketAddr,
    taken: watch::Receiver<Vec<ExportTraceServiceRequest>>,
    _serving: JoinSet<()>,
}

async fn collector(status: &'static str) -> Collector {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (takes, taken) = watch::channel(Vec::new());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            loop {
                let (mut head, mut line) = (String::new(), String::new());
                while stream.read_line(&mut line).await.is_ok_and(|count| count > 2) {
                    head += &std::mem::take(&mut line).to_ascii_lowercase();
                }
                if head.is_empty() {
                    break;
                }
                assert!(head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.trim().parse().unwrap()];
                stream.read_exact(&mut body).await.unwrap();
                takes.send_modify(|taken| taken.push(ExportTraceServiceRequest::decode(&body[..]).unwrap()));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    Collector { address, taken, _serving: serving }
}

fn spans(requests: &[ExportTraceServiceRequest]) -> Vec<Span> {
    let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
    scopes.flat_map(|spans| spans.spans.clone()).collect()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value? {
        Any::StringValue(text) => Some(text),
        Any::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn spans_of_requests_reach_a_collector_and_their_numbers_the_application() {
    let ((one, heads), mut collector) = (keeping().await, collector("200 OK").await);
    let otlp = format!("http://{}", collector.address);
    let words = ["--http", ANY, "--admin", ANY, "--otlp", &otlp, "--name", "edge-7", "--region", "north"];
    let mut edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for fields in [
        String::new(),
        format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n"),
        format!("traceparent: 00-{trace}-00f067aa0ba902b7-00\r\n"),
    ] {
        let mut stream = TcpStream::connect(edge.address("http")).await.unwrap();
        let request = format!("GET /p?secret HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        soon("an answer", stream.read_to_string(&mut String::new())).await.unwrap();
    }
    assert_eq!(edge.get("unknown.example").await, Err(404));
    // What was queued is sent before the end.
    edge.signal("TERM").await;
    assert!(edge.ended().await.success());
    let taken = soon("three spans", collector.taken.wait_for(|taken| spans(taken).len() >= 3)).await.unwrap().clone();
    let (spans, resource) = (spans(&taken), taken[0].resource_spans[0].resource.clone().unwrap().attributes);
    assert_eq!(spans.len(), 3, "the one that nobody samples has none");
    let told = ["service.name", "service.instance.id", "dormouse.region"].map(|key| attribute(&resource, key).unwrap());
    assert_eq!(told, ["dormouse", "edge-7", "north"]);
    let parents: Vec<_> = heads.lock().unwrap().iter().map(|head| field(head, "traceparent")).collect();
    let sent = |span: &Span| Some(format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)));
    assert_eq!((sent(&spans[0]), sent(&spans[1])), (parents[0].clone(), parents[1].clone()));
    assert_eq!((spans[0].parent_span_id.len(), hex(&spans[1].parent_span_id)), (0, "00f067aa0ba902b7".to_owned()));
    assert_eq!(hex(&spans[1].trace_id), trace);
    assert_eq!(parents[2].as_deref(), Some(&*format!("00-{trace}-00f067aa0ba902b7-00")), "it goes on as it came");
    assert_eq!(field(&heads.lock().unwrap()[1], "tracestate").as_deref(), Some("a=b"));
    let of = |span: &Span, key| attribute(&span.attributes, key);
    assert_eq!((spans[0].name.as_str(), spans[0].kind), ("GET", 2));
    assert_eq!(
        (of(&spans[0], "url.path"), of(&spans[0], "server.address")),
        (Some("/p".into()), Some("a.example".into()))
    );
    assert_eq!(of(&spans[0], "http.response.status_code").as_deref(), Some("200"));
    assert!(spans[0].end_time_unix_nano >= spans[0].start_time_unix_nano && spans[0].start_time_unix_nano > 0);
    assert_eq!(of(&spans[2], "error.type").as_deref(), Some("unknown_host"));
}

fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        Some(line.split_once(": ").filter(|(other, _)| other.eq_ignore_ascii_case(name))?.1.to_owned())
    })
}

#[tokio::test]
async fn spans_that_no_collector_takes_are_counted_and_hold_up_nobody() {
    let (one, collector) = (origin("one").await, collector("400 Bad Request").await);
    // One that refuses, one that is not there, and one that never answers.
    let silent = TcpListener::bind(ANY).await.unwrap();
    let gone = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    for (at, is_told) in [(collector.address, true), (gone, true), (silent.local_addr().unwrap(), false)] {
        let otlp = format!("http://{at}");
        let words = ["--http", ANY, "--admin", ANY, "--otlp", &otlp];
        let mut edge = Edge::with(folder(&[("a.example", &one)]), &words).await;
        for _ in 0..20 {
            assert_eq!(edge.get("a.example").await, Ok("one".to_owned()));
        }
        if is_told {
            edge.says("the collector does not take spans").await;
            let lost = async {
                loop {
                    let admin = TcpStream::connect(edge.address("admin")).await.unwrap();
                    let text = get_path(admin, "admin", "/metrics").await.unwrap();
                    if text.contains("\ndormouse_spans_lost_total 20\n") {
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            soon("twenty lost spans", lost).await;
        }
        edge.signal("TERM").await;
        assert!(edge.ended().await.success(), "{at}");
    }
}
