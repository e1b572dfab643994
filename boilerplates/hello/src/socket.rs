//! A WebSocket that says back what it is told (RFC 6455): no extensions, frames echoed as they come.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::http::Input;

/// The largest frame.
const FRAME_MAX: u64 = 1 << 20;
/// How long a peer may take to send a frame that it began.
const FRAME_TIME_MAX: Duration = Duration::from_secs(30);
/// How often an idle socket looks whether the program stops.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;

pub fn serve(mut stream: &TcpStream, input: &mut Input<'_>, key: &str, stopping: &AtomicBool) -> Result<()> {
    let accept = base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
    stream.write_all(format!("{head}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes())?;
    loop {
        if input.buffer().is_empty() {
            stream.set_read_timeout(Some(LOOK_EVERY))?;
            match stream.peek(&mut [0]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if stopping.load(SeqCst) {
                        return send(stream, 0x80 | CLOSE, &GOING_AWAY.to_be_bytes());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            stream.set_read_timeout(Some(FRAME_TIME_MAX))?;
        }
        let [first, second] = take(input)?;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(take(input)?)),
            127 => u64::from_be_bytes(take(input)?),
            short => u64::from(short),
        };
        if second & 0x80 == 0 || first & 0x70 != 0 {
            return send(stream, 0x80 | CLOSE, &PROTOCOL_ERROR.to_be_bytes());
        }
        if length > FRAME_MAX {
            return send(stream, 0x80 | CLOSE, &TOO_BIG.to_be_bytes());
        }
        let mask: [u8; 4] = take(input)?;
        let mut payload = vec![0; length as usize];
        input.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        match first & 0x0f {
            CLOSE => return send(stream, 0x80 | CLOSE, &payload),
            PING => send(stream, 0x80 | PONG, &payload)?,
            PONG => {}
            _ => send(stream, first, &payload)?,
        }
    }
}

fn take<const N: usize>(input: &mut Input<'_>) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map(|()| bytes)
}

fn send(mut stream: &TcpStream, first: u8, payload: &[u8]) -> Result<()> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => frame.extend([126].into_iter().chain(length.to_be_bytes())),
        _ => frame.extend([127].into_iter().chain((payload.len() as u64).to_be_bytes())),
    }
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

/// FIPS 180-4; the handshake needs it, and nothing here relies on its strength.
fn sha1(text: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut message = text.to_vec();
    message.push(0x80);
    message.resize((message.len() + 8).next_multiple_of(64) - 8, 0);
    message.extend((text.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut words = [0; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.into_iter().enumerate() {
            let (f, k) = match i {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    digest.chunks_exact_mut(4).zip(state).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_be_bytes()));
    digest
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}
