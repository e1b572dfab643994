//! The origin behind the rivals: it answers whatever ends with an empty line, always with the same few bytes, so that it costs
//! less than either of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::Result;

/// The word that starts the bench as an origin.
pub(crate) const ROLE: &str = "be-origin";

/// What every small answer ends with.
pub(crate) const BODY: &[u8] = b"Hello, world!";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

/// What only a request for an upgrade has, and what it is answered.
const UPGRADE: (&[u8], &[u8]) =
    (b"websocket", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");

/// What begins a request for a large answer, and how large it is.
const LARGE: (&[u8], usize) = (b"GET /large", 1 << 20);

/// The longest request that is waited for.
const REQUEST_MAX: usize = 64 << 10;

/// Serves until it is killed; says where on its standard output.
#[expect(clippy::print_stdout, reason = "its parent reads it")]
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("ready origin={}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(answer(stream));
        }
    })
}

async fn answer(mut stream: TcpStream) {
    let mut request = Vec::with_capacity(REQUEST_MAX);
    while let Ok(1..) = stream.read_buf(&mut request).await {
        if request.len() >= REQUEST_MAX {
            return;
        }
        if !is_whole(&request) {
            continue;
        }
        let written = if request.starts_with(LARGE.0) {
            stream.write_all(&large()).await
        } else if request.windows(UPGRADE.0.len()).any(|some| some.eq_ignore_ascii_case(UPGRADE.0)) {
            stream.write_all(UPGRADE.1).await
        } else {
            stream.write_all(ANSWER).await
        };
        request.clear();
        if written.is_err() {
            return;
        }
    }
}

/// Whether that is a request to its end, of those that are asked here.
fn is_whole(request: &[u8]) -> bool {
    if request.starts_with(b"GET") {
        return request.ends_with(b"\r\n\r\n");
    }
    let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}

fn large() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LARGE.1);
    [head.as_bytes(), &vec![b'x'; LARGE.1]].concat()
}
