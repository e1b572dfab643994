//! What is answered to whom.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::http::{Body, Input, Reply, Request, invalid};
use crate::{App, log, page, socket, trials};

/// How long a connection may be idle.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// How soon the first byte of a connection is expected, where the program stops meanwhile.
const FRESH_MAX: Duration = Duration::from_millis(200);
/// The longest pause and the largest body that can be asked for.
const PAUSE_MAX_MS: u64 = 60_000;
const BODY_MAX: u64 = 1 << 30;
const EVENTS_MAX: u64 = 10_000;
const PIECE_BYTES: usize = 64 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What follows an answer.
enum After {
    Next,
    WebSocket(String),
    Exit(i32),
}

/// Serves one connection to its end. It was counted as running when it was accepted: whoever connected before the
/// program was told to stop gets an answer, if the request is not long in coming.
pub fn connection(app: &App, stream: &TcpStream) {
    let _ = (stream.set_nodelay(true), stream.set_write_timeout(Some(IDLE_MAX)));
    let mut input = BufReader::new(stream);
    let mut wait = FRESH_MAX;
    loop {
        let _ = stream.set_read_timeout(Some(wait));
        let begun = loop {
            match input.fill_buf().map(|bytes| !bytes.is_empty()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {} // stopped and continued
                begun => break begun,
            }
        };
        let fresh = std::mem::replace(&mut wait, IDLE_MAX) == FRESH_MAX;
        if !fresh {
            app.running.fetch_add(1, SeqCst);
        }
        let next = match begun {
            Ok(true) => {
                let _ = stream.set_read_timeout(Some(IDLE_MAX));
                exchange(app, stream, &mut input)
            }
            Ok(false) => Ok(false),
            Err(error) => Ok(fresh && error.kind() == ErrorKind::WouldBlock),
        };
        app.running.fetch_sub(1, SeqCst);
        if next.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidData) {
            let _ = (&*stream).write_all(b"HTTP/1.1 400 Not OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        if !next.unwrap_or(false) || app.stopping.load(SeqCst) {
            return;
        }
    }
}

/// One request and its answer; may the connection go on?
fn exchange(app: &App, stream: &TcpStream, input: &mut Input<'_>) -> Result<bool> {
    let Some(request) = Request::read(input)? else { return Ok(false) };
    let begun = Instant::now();
    let mut body = Body::new(&request, input)?;
    let mut reply = Reply::new(&request, stream, &app.stopping);
    let after = answer(app, &request, &mut body, &mut reply);
    log(&format!("{} {} {} {} ms", request.method, request.path, reply.status, begun.elapsed().as_millis()));
    match after? {
        After::Next => Ok(reply.keep && body.finish()?),
        After::WebSocket(key) => socket::serve(stream, input, &key, &app.stopping).map(|()| false),
        After::Exit(code) => {
            eprintln!("hello: exiting with code {code}, as asked");
            std::process::exit(code)
        }
    }
}

fn answer(app: &App, request: &Request, body: &mut Body<'_, '_>, reply: &mut Reply<'_>) -> Result<After> {
    let health = app.health.load(SeqCst);
    let pause = || sleep(Duration::from_millis(request.number("ms", 0, PAUSE_MAX_MS)));
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/" | "/.json") if app.settings.number("ANSWER_AFTER_MS").is_some() && !reply.late => {
            reply.late = true;
            sleep(Duration::from_millis(app.settings.number("ANSWER_AFTER_MS").unwrap_or(0)));
            return answer(app, request, body, reply);
        }
        ("GET" | "HEAD", "/") if !request.header("accept").is_some_and(|kinds| kinds.contains(JSON)) => {
            reply.send(health, "text/html; charset=utf-8", page::html(app, request).as_bytes())?;
            if let Some(ms) = app.settings.number("EXIT_AFTER_ANSWER_MS") {
                return Ok(leave_soon(ms));
            }
        }
        ("GET" | "HEAD", "/" | "/.json") => reply.send(health, JSON, page::json(app, request).as_bytes())?,
        ("GET" | "HEAD", "/headers") => reply.send(200, JSON, page::headers_json(request).as_bytes())?,
        ("GET" | "HEAD", "/health") => reply.send(health, TEXT, format!("{health}\n").as_bytes())?,
        ("POST", "/health") => {
            let status = u16::try_from(request.number("status", 200, 599)).unwrap_or(200).max(200);
            app.health.store(status, SeqCst);
            reply.send(200, TEXT, format!("from now on {status}\n").as_bytes())?;
        }
        ("GET" | "POST", "/slow") => {
            pause();
            reply.send(200, TEXT, b"that took a while\n")?;
        }
        ("GET" | "HEAD", "/bytes") => bytes(request, reply)?,
        ("POST" | "PUT", "/echo") => {
            let kind = request.header("content-type").unwrap_or("application/octet-stream");
            let length = request.header("content-length").and_then(|length| length.parse().ok());
            let mut pieces = reply.stream(200, kind, length)?;
            each_piece(body, |piece| pieces.write(piece))?;
            pieces.finish()?;
        }
        ("POST" | "PUT", "/count") => {
            let (mut count, mut sum) = (0, 0xcbf2_9ce4_8422_2325_u64);
            each_piece(body, |piece| {
                count += piece.len();
                // FNV-1a, 64 bits.
                sum = piece.iter().fold(sum, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
                Ok(())
            })?;
            reply.send(200, JSON, format!("{{\"bytes\":{count},\"fnv1a\":\"{sum:016x}\"}}\n").as_bytes())?;
        }
        ("GET", "/events") => {
            let mut pieces = reply.stream(200, "text/event-stream", None)?;
            for n in 1..=request.number("n", 5, EVENTS_MAX) {
                pieces.write(format!("id: {n}\ndata: event {n}\n\n").as_bytes())?;
                pause();
            }
            pieces.finish()?;
        }
        ("GET" | "POST", "/exit") => {
            reply.keep = false;
            reply.send(200, TEXT, b"good bye\n")?;
            return Ok(After::Exit(i32::try_from(request.number("code", 0, 255)).unwrap_or(0)));
        }
        ("GET", "/ws") => match request.header("sec-websocket-key") {
            Some(key) if request.names("upgrade", "websocket") && request.names("connection", "upgrade") => {
                reply.status = 101;
                return Ok(After::WebSocket(key.to_owned()));
            }
            _ => reply.send(426, TEXT, b"this path speaks WebSocket only\n")?,
        },
        ("GET", path) if app.settings.get("TRIALS").is_some() => match trials::answer(request) {
            Some(text) => reply.send(200, TEXT, text.as_bytes())?,
            None => reply.send(404, TEXT, format!("there is no trial {path}\n").as_bytes())?,
        },
        _ => reply.send(404, TEXT, b"there is nothing here\n")?,
    }
    Ok(After::Next)
}

/// The first answer was given: that is enough.
fn leave_soon(ms: u64) -> After {
    static LEAVES: std::sync::Once = std::sync::Once::new();
    if ms == 0 {
        return After::Exit(1);
    }
    LEAVES.call_once(|| {
        std::thread::spawn(move || {
            sleep(Duration::from_millis(ms));
            eprintln!("hello: EXIT_AFTER_ANSWER_MS is set\nhello: giving up");
            std::process::exit(1)
        });
    });
    After::Next
}

/// Byte number i is i modulo 251, so that a lost or doubled piece shows.
fn bytes(request: &Request, reply: &mut Reply<'_>) -> Result<()> {
    let size = request.number("n", 1024, BODY_MAX);
    let length = (request.number("chunked", 0, 1) == 0).then_some(size);
    let mut pieces = reply.stream(200, "application/octet-stream", length)?;
    let pattern: Vec<u8> = (0..=250).cycle().take(PIECE_BYTES + 251).collect();
    let mut at = 0;
    while at < size {
        let from = (at % 251) as usize;
        let count = (size - at).min(PIECE_BYTES as u64) as usize;
        pieces.write(&pattern[from..from + count])?;
        at += count as u64;
    }
    pieces.finish()
}

fn each_piece(body: &mut Body<'_, '_>, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        let count = match body.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            count => count?,
        };
        total += count as u64;
        if count == 0 {
            return Ok(());
        }
        if total > BODY_MAX {
            return Err(invalid("the body is larger than this demonstration takes"));
        }
        each(&buffer[..count])?;
    }
}
