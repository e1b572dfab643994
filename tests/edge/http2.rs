//! HTTP/2 clients that cost more than they use, against the program: what they can make it take of memory is bounded, and
//! others are served meanwhile.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::files::issue;
use crate::program::{Edge, Origin, PATIENCE, folder, soon};

/// Kinds of frames (RFC 9113 section 6), and flags of a head.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

/// Streams that a connection may have at a time.
const STREAMS: u32 = 100;

/// Connections whose heads grow: 16 MiB each at the moment that they are read.
const CONNECTIONS: usize = 5;
/// What one connection's heads may cost while they are read.
const CONNECTION_KIB: i64 = 16 << 10;

/// What a stream whose answer is not read may hold: twice its window.
const HELD_KIB: i64 = 2 * 64;

/// An answer that is larger than any window: so many times that.
const PART: &[u8] = &[b'x'; 64 << 10];
const PARTS: usize = 128;

/// The edge with HTTP/2, in front of an origin.
async fn edge(origin: &Origin) -> Edge {
    let folder = folder(&[("a.example", origin)]);
    issue(folder.path(), "own", &["a.example"]);
    let own = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (chain, key) = (own("own.pem"), own("own.key"));
    let words = ["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--cert", &chain, "--key", &key];
    Edge::with(folder, &words).await
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET https://a.example/ by the names of the static table (RFC 7541 appendix A).
fn head() -> Vec<u8> {
    [&[0x82, 0x87, 0x84, 0x01, 9][..], b"a.example"].concat()
}

/// A client of frames.
struct Frames {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

impl Frames {
    /// With an initial window of so many bytes.
    async fn connect(edge: &Edge, window: u32) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(edge.path("own.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(edge.address("https")).await.unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let stream = soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap();
        let (reader, writer) = split(stream);
        let mut frames = Self { reader, writer };
        let settings = frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        assert!(frames.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()).await);
        frames
    }

    /// Whether it was taken.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sending = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        soon("the proxy to read", sending).await.is_ok()
    }

    /// The next frame: its kind, its flags, its payload.
    async fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.reader.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], payload))
    }

    /// Reads up to the connection's end, and returns the code of its GOAWAY.
    async fn goaway(&mut self) -> Option<u32> {
        soon("a GOAWAY, or the end", async {
            while let Some((kind, _, payload)) = self.frame().await {
                if kind == GOAWAY {
                    return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
            None
        })
        .await
    }

    /// Reads until so many heads of answers have come.
    async fn heads(&mut self, count: u32) {
        let mut heads = 0;
        while heads < count {
            let frame = soon("an answer's head", self.frame()).await;
            heads += u32::from(frame.expect("the connection goes on").0 == HEADERS);
        }
    }
}

/// Answers everything with more than anybody takes, whose reading stops when it is not taken.
async fn large_origin() -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    // One for others, who are served meanwhile.
                    let (part, parts) = if request.starts_with(b"GET /1 ") { (&b"xxx"[..], 1) } else { (PART, PARTS) };
                    request.clear();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", part.len() * parts);
                    for bytes in [head.as_bytes()].into_iter().chain(std::iter::repeat_n(part, parts)) {
                        if stream.write_all(bytes).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Origin::new(address, serving)
}

/// Somebody else is served.
async fn others(edge: &Edge) {
    let stream = TcpStream::connect(edge.address("http")).await.unwrap();
    assert_eq!(crate::program::get_path(stream, "a.example", "/1").await, Ok("xxx".to_owned()));
}

#[tokio::test]
async fn p30_rapid_resets_take_no_memory_and_hold_nobody_up() {
    let origin = large_origin().await;
    let edge = edge(&origin).await;
    others(&edge).await;
    let before = edge.memory_kib();
    let mut number = 0;
    for _ in 0..10 {
        let mut frames = Frames::connect(&edge, 65_535).await;
        for _ in 0..100 {
            let pairs = (0..100).flat_map(|at| {
                let stream = 2 * (number + at) + 1;
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head()), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            });
            let pairs: Vec<u8> = pairs.flatten().collect();
            number += 100;
            if !frames.send(&pairs).await {
                break;
            }
        }
        others(&edge).await;
        number = 0;
        assert!(edge.memory_kib() - before < 20 << 10, "{} KiB after {before}", edge.memory_kib());
        let code = frames.goaway().await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    }
}

/// A head that names one entry of the dynamic table again and again: an empty field `x`, as its 62nd entry.
fn bomb(stream: u32, references: usize) -> Vec<u8> {
    let first = if stream == 1 { &[0x40, 1, b'x', 0][..] } else { &[] };
    let block = [&head()[..], first, &vec![0xbe; references]].concat();
    let mut parts = block.chunks(16 << 10).enumerate().peekable();
    let mut bytes = Vec::new();
    while let Some((at, part)) = parts.next() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let end_stream = if at == 0 { END_STREAM } else { 0 };
        let end_headers = if parts.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, end_stream | end_headers, stream, part));
    }
    bytes
}

#[tokio::test]
async fn p33_heads_that_grow_when_they_are_read_take_little_memory() {
    let origin = large_origin().await;
    let edge = edge(&origin).await;
    others(&edge).await;
    let before = edge.memory_kib();
    // More than any head may have ends the connection at once.
    let mut frames = Frames::connect(&edge, 0).await;
    frames.send(&bomb(1, 65_000)).await;
    assert_eq!(frames.goaway().await, Some(ENHANCE_YOUR_CALM));
    // As many as just fit: each is refused, but its answer is not taken. What the heads had grown to is let go of, for the
    // next one's.
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut frames = Frames::connect(&edge, 0).await;
        for number in 0..STREAMS {
            assert!(frames.send(&bomb(2 * number + 1, 1900)).await);
        }
        frames.heads(STREAMS).await;
        all.push(frames);
    }
    others(&edge).await;
    let grown = edge.memory_kib() - before;
    assert!(grown < i64::try_from(CONNECTIONS).unwrap() * CONNECTION_KIB, "{grown} KiB");
}

#[tokio::test]
async fn p35_answers_that_are_not_read_take_little_memory() {
    let origin = large_origin().await;
    let edge = edge(&origin).await;
    others(&edge).await;
    let before = edge.memory_kib();
    let mut frames = Frames::connect(&edge, 0).await;
    for number in 0..STREAMS {
        assert!(frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head())).await);
    }
    frames.heads(STREAMS).await;
    // Until it takes no more: the same twice in a row.
    let end = Instant::now() + PATIENCE;
    let (mut grown, mut same) = (0, 0);
    while same < 5 && Instant::now() < end {
        others(&edge).await;
        let now = edge.memory_kib() - before;
        same = if now <= grown { same + 1 } else { 0 };
        grown = grown.max(now);
        // Nothing but settings comes, and nothing of any body.
        while let Ok(Some((kind, ..))) = timeout(std::time::Duration::from_millis(50), frames.frame()).await {
            assert_ne!(kind, DATA);
        }
    }
    eprintln!("{} KiB for each of {STREAMS} streams", grown / i64::from(STREAMS));
    assert!(grown < i64::from(STREAMS) * HELD_KIB, "{grown} KiB for {STREAMS} streams");
}
