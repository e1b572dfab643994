//! PROXY protocol, versions 1 and 2: how a proxy in front of this one says whose connection it passes on.
//!
//! Read by the listener from the networks that it was told, before TLS and before the gate. It never takes a byte beyond
//! the header: what follows belongs to whoever speaks next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line of version 1, its end included.
const V1_MAX_BYTES: usize = 107;
/// The longest header of version 2 that is taken; the protocol promises senders no more.
const V2_MAX_BYTES: usize = 536;
/// What any header has at least: `PROXY UNKNOWN` and the line's end.
const LEAST_BYTES: usize = 15;

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The begin of version 2, then version and command, family, and the length of the rest.
const V2_FIXED_BYTES: usize = 16;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The sender's own, or the sender does not know: the socket's addresses count.
    Socket,
    /// A client's, who connected to that port.
    Client { address: IpAddr, port: u16 },
    /// Of a client without an address: it came to the sender through a Unix socket.
    Nameless,
}

/// How much of a header is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It ends after so many bytes.
    Whole { bytes: usize, source: Source },
    /// So many bytes belong to it still, at least.
    Partial { missing: usize },
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the connection does not begin with a PROXY protocol header")]
    Absent,
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    #[error("the PROXY protocol header is too long")]
    TooLong,
    #[error("the connection ended before its PROXY protocol header did")]
    Ended,
}

/// Reads a header off a connection, and nothing more; the caller sets the deadline.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Source, HeaderError> {
    let (mut header, mut count) = ([0; V2_MAX_BYTES], 0);
    loop {
        let missing = match look(&header[..count])? {
            Look::Whole { source, .. } => return Ok(source),
            Look::Partial { missing } => missing,
        };
        let room = header.get_mut(count..count + missing).ok_or(HeaderError::TooLong)?;
        match stream.read(room).await {
            Ok(0) | Err(_) => return Err(HeaderError::Ended),
            Ok(read) => count += read,
        }
    }
}

/// Looks for a header at the begin of `bytes`. Pure.
pub(crate) fn look(bytes: &[u8]) -> Result<Look, HeaderError> {
    let begins = |begin: &[u8]| bytes.iter().zip(begin).all(|(is, wanted)| is == wanted);
    let look = match (begins(V1_BEGIN), begins(V2_BEGIN)) {
        // Both only where there is nothing yet.
        (true, true) => return Ok(Look::Partial { missing: LEAST_BYTES }),
        (true, false) => look_v1(bytes)?,
        (false, true) => look_v2(bytes)?,
        (false, false) => return Err(HeaderError::Absent),
    };
    Ok(look)
}

fn look_v1(bytes: &[u8]) -> Result<Look, HeaderError> {
    let line = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        let missing = LEAST_BYTES.saturating_sub(line.len()).max(2);
        return if line.len() + missing > V1_MAX_BYTES {
            Err(HeaderError::TooLong)
        } else {
            Ok(Look::Partial { missing })
        };
    };
    match line[end..] {
        [b'\r'] if end + 2 > V1_MAX_BYTES => Err(HeaderError::TooLong),
        [b'\r'] => Ok(Look::Partial { missing: 1 }),
        [b'\r', b'\n', ..] => Ok(Look::Whole { bytes: end + 2, source: line_v1(&line[V1_BEGIN.len()..end])? }),
        _ => Err(HeaderError::Malformed),
    }
}

/// What follows `PROXY `: the family, both addresses, both ports.
fn line_v1(line: &[u8]) -> Result<Source, HeaderError> {
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed)?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Source::Socket);
    }
    let words: Vec<&str> = line.split(' ').collect();
    let [family, from, to, from_port, to_port] = words[..] else { return Err(HeaderError::Malformed) };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let told = || {
        let (client, _) = (address(from)?, address(to)?);
        let (_, port) = (port(from_port)?, port(to_port)?);
        Some(Source::Client { address: client.to_canonical(), port })
    };
    told().ok_or(HeaderError::Malformed)
}

/// Digits without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn look_v2(bytes: &[u8]) -> Result<Look, HeaderError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Look::Partial { missing: V2_FIXED_BYTES - bytes.len() });
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    // What the addresses take; what follows them is skipped.
    let addresses = match (command, family) {
        (0x20, _) | (0x21, 0x00) => 0,
        (0x21, 0x11 | 0x12) => 12,
        (0x21, 0x21 | 0x22) => 36,
        (0x21, 0x31 | 0x32) => 216,
        _ => return Err(HeaderError::Malformed),
    };
    if length < addresses {
        return Err(HeaderError::Malformed);
    }
    let total = V2_FIXED_BYTES + length;
    if total > V2_MAX_BYTES {
        return Err(HeaderError::TooLong);
    }
    if bytes.len() < total {
        return Ok(Look::Partial { missing: total - bytes.len() });
    }
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let source = match addresses {
        12 => {
            let address = rest.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
            address.map(|address| Source::Client { address, port: port(10) })
        }
        36 => {
            let address = rest.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical());
            address.map(|address| Source::Client { address, port: port(34) })
        }
        216 => Some(Source::Nameless),
        _ => Some(Source::Socket),
    };
    Ok(Look::Whole { bytes: total, source: source.ok_or(HeaderError::Malformed)? })
}

#[cfg(test)]
mod tests;
