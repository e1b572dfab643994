//! A client that speaks HTTP/2, and one that speaks its frames.

mod client;

use std::net::SocketAddr;

use dormouse_proxy::{Config, Http2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use client::{Client, read, request};

use super::origin::Origin;
use super::{World, soon};

/// How an HTTP/2 connection begins (RFC 9113 section 3.4), with settings that change nothing.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// A world whose plain listener speaks HTTP/2, too, with `a.example` on an origin.
pub(crate) async fn world(change: impl FnOnce(&mut Config)) -> (World, Origin) {
    let mut world = World::with(|config| {
        config.listeners[0].http2 = Http2::On;
        change(config);
    })
    .await;
    let origin = Origin::start("one").await;
    world.serve("a.example", &[&origin]).await;
    (world, origin)
}

/// Kinds of frames (RFC 9113 section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;

/// A frame (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head without the Huffman code and without the dynamic table: a literal field for each name of the static one.
pub(crate) fn head(host: &str) -> Vec<u8> {
    // :method GET, :scheme http, :path / are entries 2, 6 and 4; :authority is the name of entry 1 (RFC 7541 appendix A).
    let length = u8::try_from(host.len()).expect("a short host");
    [&[0x82, 0x86, 0x84, 0x01, length], host.as_bytes()].concat()
}

/// The same for another path.
pub(crate) fn head_of(host: &str, path: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("a short text");
    [&[0x82, 0x86, 0x04, length(path)], path.as_bytes(), &[0x01, length(host)], host.as_bytes()].concat()
}

/// A connection over which frames are sent as they are.
pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
}

impl Frames {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the listener accepts");
        stream.write_all(PREFACE).await.expect("the proxy reads");
        Self { stream }
    }

    /// Sends, unless the proxy has closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon("the proxy to read", self.stream.write_all(bytes)).await
    }

    /// Reads until a frame of that kind.
    pub(crate) async fn until(&mut self, kind: u8) {
        let reading = async {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.expect("a frame");
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.stream.read_exact(&mut payload).await.expect("a whole frame");
                if head[3] == kind {
                    return;
                }
            }
        };
        soon("a frame", reading).await;
    }

    /// Reads up to the connection's end, and returns the code of its GOAWAY.
    pub(crate) async fn goaway(self) -> Option<u32> {
        self.goaway_of([]).await
    }

    /// The same while it sends, until the GOAWAY comes.
    pub(crate) async fn goaway_of(self, frames: impl IntoIterator<Item = Vec<u8>>) -> Option<u32> {
        let (mut reader, mut writer) = self.stream.into_split();
        let sending = async {
            for frame in frames {
                if writer.write_all(&frame).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        };
        let reading = async {
            loop {
                let mut head = [0; 9];
                reader.read_exact(&mut head).await.ok()?;
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                reader.read_exact(&mut payload).await.ok()?;
                if head[3] == GOAWAY {
                    return Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
                }
            }
        };
        soon("a GOAWAY, or the connection's end", async {
            tokio::select! {
                code = reading => code,
                () = sending => None,
            }
        })
        .await
    }
}
