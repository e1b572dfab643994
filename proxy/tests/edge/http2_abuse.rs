//! HTTP/2 clients that make the proxy itself reset streams, flood it with frames, or hold streams open by next to nothing: all
//! come to an end, what they cause is bounded, and others are served meanwhile.

use std::cell::Cell;
use std::time::Duration;

use h2::Reason;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::world::http2::{Client, Frames, GOAWAY, PREFACE, frame, head, head_of, request, world};
use crate::world::origin::Origin;
use crate::world::{World, soon};

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
const PING: u8 = 6;
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

/// Connections that reset all that they open, one after another, and streams of each, if it is let.
const RESETTERS: u32 = 20;
const RESETS: u32 = 5000;
/// What others wait for an answer at the very most, on however busy a machine; within the test's patience.
const USABLE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn p30_others_are_answered_soon_while_streams_are_reset_rapidly() {
    // All have the same worker.
    let (world, _origin) = world(|config| config.workers = 1).await;
    let pairs: Vec<u8> = (0..RESETS)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [
                frame(HEADERS, END_HEADERS_AND_STREAM, stream, &head("a.example")),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ]
        })
        .flatten()
        .collect();
    let resetting = async {
        for _ in 0..RESETTERS {
            let mut frames = Frames::connect(world.http()).await;
            // It is thrown out before its last.
            let _ = frames.send(&pairs).await;
            let code = frames.goaway().await;
            assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
        }
    };
    let quiet = answered_until(&world, async {}).await;
    let busy = answered_until(&world, resetting).await;
    eprintln!("others' answers: p99 {:?} alone, {:?} beside resets ({} of them)", p99(&quiet), p99(&busy), busy.len());
    assert!(busy.iter().all(|time| *time < USABLE), "{:?}", busy.iter().max());
    world.stop().await;
}

/// How long others wait for their answers until that is over, and for a hundred of them at least.
async fn answered_until(world: &World, over: impl Future<Output = ()>) -> Vec<Duration> {
    let is_over = Cell::new(false);
    let asking = async {
        let mut other = Client::connect(world.http()).await;
        let mut times = Vec::new();
        while !is_over.get() || times.len() < 100 {
            let begin = Instant::now();
            assert_eq!(other.get("a.example", "/").await.expect("others are served").text(), "one");
            times.push(begin.elapsed());
        }
        times
    };
    let ending = async {
        over.await;
        is_over.set(true);
    };
    tokio::join!(asking, ending).0
}

fn p99(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() * 99 / 100]
}

/// What a flood sends if it is let; much more than what sockets hold.
const FLOOD: usize = 64 << 20;
/// What it may take of memory, of this process: proxy, clients and all.
const FLOOD_KIB: u64 = 16 << 10;
/// A proxy that takes nothing for so long has stopped reading. If it is only slow, it is asked less than it might be.
const STOPPED: Duration = Duration::from_secs(2);

/// What becomes of a flood.
#[derive(Debug, PartialEq)]
enum Flood {
    /// The connection was ended.
    Closed,
    /// It is not read any more: its client does not take the answers.
    Stopped,
    /// It was read to its end.
    Read,
}

#[tokio::test]
async fn p34_floods_of_frames_are_not_read_on_or_cost_no_memory() {
    let open = frame(HEADERS, END_HEADERS, 1, &head_of("a.example", "/silent"));
    for (what, begin, flood, becomes) in [
        ("settings, whose answers are not read", Vec::new(), frame(SETTINGS, 0, 0, &[]), Flood::Stopped),
        ("pings, whose answers are not read", Vec::new(), frame(PING, 0, 0, &[0; 8]), Flood::Stopped),
        ("empty data", open, frame(DATA, 0, 1, &[]), Flood::Closed),
        ("priorities", Vec::new(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), Flood::Read),
    ] {
        let (world, _origin) = world(|_| {}).await;
        let mut other = Client::connect(world.http()).await;
        assert_eq!(other.get("a.example", "/").await.expect("an answer").text(), "one");
        let before = memory_kib();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
        let mut client = socket.connect(world.http()).await.expect("the listener accepts");
        client.write_all(&[PREFACE, &begin].concat()).await.expect("the proxy reads");
        let part = flood.repeat((256 << 10) / flood.len());
        let (mut sent, mut became, mut grown) = (0, Flood::Read, 0);
        while sent < FLOOD {
            match timeout(STOPPED, client.write_all(&part)).await {
                Ok(Ok(())) => sent += part.len(),
                Ok(Err(_)) => became = Flood::Closed,
                Err(_) => became = Flood::Stopped,
            }
            assert_eq!(other.get("a.example", "/").await.expect("others are served").text(), "one");
            grown = grown.max(memory_kib().saturating_sub(before));
            if became != Flood::Read {
                break;
            }
        }
        if became == Flood::Read {
            // Whoever closes reads on for a while, so that its goodbye arrives.
            became = after_all(&mut client).await;
        }
        eprintln!("{what}: {became:?} after {} KiB, {grown} KiB of memory", sent >> 10);
        assert_eq!(became, becomes, "{what}: {sent} bytes");
        assert!(grown < FLOOD_KIB, "{what}: {grown} KiB of memory");
        drop(client);
        world.stop().await;
    }
}

/// Whether a connection whose client has not read anything goes on: whether it answers a ping before it ends.
async fn after_all(client: &mut TcpStream) -> Flood {
    let asking = async {
        client.write_all(&frame(PING, 0, 0, &[1; 8])).await.ok()?;
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            client.read_exact(&mut payload).await.ok()?;
            match head[3] {
                PING => return Some(()),
                GOAWAY => return None,
                _ => {}
            }
        }
    };
    soon("an answer, or the end", asking).await.map_or(Flood::Closed, |()| Flood::Read)
}

/// Memory that this process has written to.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a figure");
    line.trim().split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test]
async fn p38_an_answer_that_is_taken_too_slowly_loses_its_stream_and_no_other() {
    let (world, origin) = world(|config| {
        config.limits.client_rate = 1 << 40;
        config.limits.client_window = 100 * MILLISECOND;
    })
    .await;
    let large = "x".repeat(1 << 20);
    origin.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    let mut stream = TcpStream::connect(world.http()).await.expect("the listener accepts");
    // No stream may send anything until its window is opened.
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).await.expect("the proxy reads");
    // An event stream, and a call: content-type is the name of entry 31 of the static table.
    let grpc = [&head_of("a.example", "/raw")[..], &[0x0f, 0x10, 16], b"application/grpc"].concat();
    for (id, head) in [(1, head_of("a.example", "/events")), (3, grpc)] {
        stream.write_all(&frame(HEADERS, END_HEADERS_AND_STREAM, id, &head)).await.expect("the proxy reads");
        assert_eq!(next_of(&mut stream, id).await, HEADERS);
    }
    // Twice as long as what is exempt has waited by then.
    for id in [5, 7] {
        let head = head_of("a.example", "/raw");
        stream.write_all(&frame(HEADERS, END_HEADERS_AND_STREAM, id, &head)).await.expect("the proxy reads");
        assert_eq!(next_of(&mut stream, id).await, HEADERS);
        assert_eq!(next_of(&mut stream, id).await, RST_STREAM, "it is not taken");
    }
    for id in [1, 3] {
        stream.write_all(&frame(WINDOW_UPDATE, 0, id, &[0, 0, 0, 1])).await.expect("the proxy reads");
        assert_eq!(next_of(&mut stream, id).await, DATA, "{id} is exempt");
    }
    drop(stream);
    world.stop().await;
}

/// The kind of the next frame that is a stream's.
async fn next_of(stream: &mut TcpStream, id: u32) -> u8 {
    soon("a frame", async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("the connection goes on");
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.expect("a whole frame");
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if of == id {
                return head[3];
            }
            assert_eq!(of, 0, "nothing comes of another stream: {}", head[3]);
        }
    })
    .await
}

#[tokio::test]
async fn p30_what_was_reset_and_still_runs_is_bounded() {
    let (mut world, _origin) = world(|config| {
        config.limits.streams = 5;
        (config.limits.connect, config.limits.connect_look) = (Duration::from_secs(100), Duration::from_secs(100));
        config.limits.connect_total = Duration::from_secs(200);
    })
    .await;
    let deaf = Origin::deaf("deaf").await;
    world.serve("b.example", &[&deaf]).await;
    let (mut client, mut opened) = (Client::connect(world.http()).await, 0);
    while opened < 50 {
        let Ok(mut sender) = client.ready().await else { break };
        let Ok((_answer, mut stream)) = sender.send_request(request(Method::GET, "b.example", "/"), true) else {
            break;
        };
        opened += 1;
        // What is answered came after it, which runs by now: it waits to be connected, and hears of no reset.
        if client.get("a.example", "/").await.is_err() {
            break;
        }
        stream.send_reset(Reason::CANCEL);
    }
    assert!((10..=11).contains(&opened), "{opened} ran");
    assert_eq!(client.ended().await, Some(Reason::ENHANCE_YOUR_CALM));
    drop(world);
}

#[tokio::test]
async fn p30_who_sends_malformed_streams_again_and_again_is_told_to_be_calm() {
    let (world, origin) = world(|_| {}).await;
    let (mut client, mut refused) = (Client::connect(world.http()).await, 0);
    let differs = || {
        let mut differs = request(Method::GET, "a.example", "/");
        differs.headers_mut().insert("host", "b.example".parse().expect("a value"));
        differs
    };
    while refused < 100 {
        let Ok(answer) = client.send(differs(), b"").await else { break };
        assert_eq!(answer.status, 400);
        refused += 1;
        if refused == 31 {
            assert_eq!(client.get("a.example", "/").await.expect("some may be").text(), "one");
        }
    }
    assert!((31..=32).contains(&refused), "{refused} were answered");
    assert_eq!(client.ended().await, Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(origin.requests().len(), 1);
    world.stop().await;
}
