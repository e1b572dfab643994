//! HTTP/2 clients that make the proxy itself reset streams, or hold them open by next to nothing: both come to an end, and
//! the work that they cause is bounded.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::http2::{Client, Frames, frame, head, world};
use crate::world::soon;

const MILLISECOND: Duration = Duration::from_millis(1);
/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Kinds of frames (RFC 9113 section 6), and flags of a head.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_HEADERS: u8 = 4;
const END_HEADERS_AND_STREAM: u8 = 5;

/// Streams that such a client opens if it is let.
const STREAMS: u32 = 20_000;
/// What it may cause at the origin: as many as it may give up for nothing, and what runs at a time.
const REQUESTS_MAX: usize = 400;

/// A head, and what makes its receiver reset the stream (RFC 9113 sections 6.9.1, 8.1.1; RFC 7540 section 5.3.1).
fn reset_by_receiver(way: &str, stream: u32) -> Vec<u8> {
    let head = head("a.example");
    let more = match way {
        "a window that overflows" => frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
        "a stream that depends on itself" => frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[16]].concat()),
        "more than its length" => {
            // content-length is the name of entry 28 of the static table.
            let head = [&head[..], &[0x0f, 0x0d, 1, b'1']].concat();
            return [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, 1, stream, b"more")].concat();
        }
        _ => panic!("{way}?"),
    };
    [frame(HEADERS, END_HEADERS, stream, &head), more].concat()
}

#[tokio::test]
async fn p31_who_makes_the_proxy_reset_its_streams_is_told_to_be_calm() {
    for way in ["a window that overflows", "a stream that depends on itself", "more than its length"] {
        let (world, origin) = world(|_| {}).await;
        let frames = Frames::connect(world.http()).await;
        let flood = (0..STREAMS).map(|number| reset_by_receiver(way, 2 * number + 1));
        assert_eq!(frames.goaway_of(flood).await, Some(ENHANCE_YOUR_CALM), "{way}");
        let caused = origin.connections();
        assert!(caused <= REQUESTS_MAX, "{way}: {caused} at the origin");
        let mut other = Client::connect(world.http()).await;
        assert_eq!(other.get("a.example", "/").await.expect("others are served").text(), "one");
        world.stop().await;
    }
}

#[tokio::test]
async fn p31_frames_that_no_client_sends_end_the_connection() {
    let (world, _origin) = world(|_| {}).await;
    let half_closed = frame(HEADERS, END_HEADERS_AND_STREAM, 1, &head("a.example"));
    for (what, bad) in [
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
        ("data on a half-closed stream", frame(DATA, 0, 1, b"x")),
    ] {
        let frames = Frames::connect(world.http()).await;
        assert_eq!(frames.goaway_of([half_closed.clone(), bad]).await, Some(PROTOCOL_ERROR), "{what}");
    }
    world.stop().await;
}

#[tokio::test]
async fn p33_a_window_that_is_opened_byte_by_byte_does_not_keep_a_stream() {
    let (world, origin) = world(|config| config.limits.client_write = 300 * MILLISECOND).await;
    let large = "x".repeat(1 << 20);
    origin.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    let mut stream = TcpStream::connect(world.http()).await.expect("the listener accepts");
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let host = b"a.example";
    // As in `head`, but for /raw: `:path` is the name of entry 4.
    let path = [&[0x82, 0x86, 0x04, 4][..], b"/raw", &[0x01, 9], host].concat();
    let begin = frame(HEADERS, END_HEADERS_AND_STREAM, 1, &path);
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &begin].concat();
    stream.write_all(&begin).await.expect("the proxy reads");
    let (mut reader, mut writer) = stream.into_split();
    let dripping = async {
        loop {
            tokio::time::sleep(10 * MILLISECOND).await;
            if writer.write_all(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let reset = async {
        let mut got = 0;
        loop {
            let mut head = [0; 9];
            reader.read_exact(&mut head).await.expect("the connection goes on");
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            reader.read_exact(&mut payload).await.expect("a whole frame");
            match head[3] {
                DATA => got += payload.len(),
                RST_STREAM => return got,
                _ => {}
            }
        }
    };
    let got = soon("the stream's reset", async {
        tokio::select! {
            got = reset => got,
            () = dripping => unreachable!("it drips for ever"),
        }
    });
    assert!(got.await < 10_000);
    world.stop().await;
}
