//! A client that sends the bytes it is told to.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name).into_iter().next()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Every value of a field in a head.
pub(crate) fn field(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the listener accepts"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the proxy reads");
        self.stream.flush().await.expect("the proxy reads");
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.response().await
    }

    /// The next answer that is not informational.
    pub(crate) async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    pub(crate) async fn response_to(&mut self, method: &str) -> Response {
        loop {
            let response = soon("a response", self.read(method)).await.expect("a response, not the connection's end");
            if response.status >= 200 || response.status == 101 {
                return response;
            }
        }
    }

    /// The next answer, if it is a whole one.
    pub(crate) async fn whole(&mut self) -> Option<Response> {
        soon("a response, or the connection's end", self.read("GET")).await
    }

    async fn read(&mut self, method: &str) -> Option<Response> {
        let head = self.head().await?;
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut body = Vec::new();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Some(Response { status, head, body });
        }
        if let Some(length) = field(&head, "content-length").first() {
            body = self.take(length.parse().expect("a length")).await?;
        } else if !field(&head, "transfer-encoding").is_empty() {
            loop {
                let line = self.until(b"\r\n").await?;
                let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
                let chunk = self.take(size + 2).await?;
                assert!(chunk.ends_with(b"\r\n"), "a chunk ends where it says");
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..size]);
            }
        } else {
            while self.more().await {}
            body = std::mem::take(&mut self.buffer);
        }
        Some(Response { status, head, body })
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n").await
    }

    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(at + end.len());
                let found = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8_lossy(&found).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.buffer.split_off(count);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// Whether the proxy closes the connection without another byte, and without a reset.
    pub(crate) async fn closed(&mut self) -> bool {
        let end = soon("the connection's end", self.stream.read_buf(&mut self.buffer)).await;
        matches!(end, Ok(0)) && self.buffer.is_empty()
    }

    /// Says that nothing more is sent, and still reads.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the proxy is there");
    }

    /// What was read and not taken.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}
