//! The gate: reads one whole head off a connection, under a total deadline and a size, before anything else sees it.

use std::future::Future;
use std::pin::pin;

use tokio::time::{Instant, sleep_until};

use super::conn::Conn;
use super::head::Head;
use crate::config::Limits;
use crate::decide::refuse::Reason;

/// Bytes of a request line beside its target: the method and the version are short.
const BESIDE_TARGET: usize = 64;

/// How an HTTP/2 connection begins, up to its first empty line (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What came of waiting for a request.
#[derive(Debug)]
pub(crate) enum Gate {
    /// A head; its bytes are still unused.
    Head(Box<Head>),
    /// Something that is none. The connection has to be closed, since where the next one begins is unknown.
    Refused(Reason),
    /// The begin of HTTP/2, by a client that knows what is spoken here; still unused, as is what follows.
    Preface,
    /// Nothing: the client left or was idle for too long, or the proxy is ending.
    Over,
}

/// Waits until `idle`, or until `over` resolves, for the first byte of a request, and then reads its head.
pub(crate) async fn next(conn: &mut Conn, limits: &Limits, idle: Instant, over: impl Future<Output = ()>) -> Gate {
    let mut deadline = (!conn.ahead().is_empty()).then(|| Instant::now() + limits.head);
    let mut scan = Scan::default();
    let mut over = pin!(over);
    conn.begin();
    loop {
        match scan.look(conn.ahead(), limits) {
            Ok(Look::Whole(empty_line, end)) => {
                conn.discard(empty_line);
                conn.wire().begin();
                let head = &conn.ahead()[..end - empty_line];
                if empty_line == 0 && head == PREFACE {
                    return Gate::Preface;
                }
                return match Head::parse(head, limits.target_bytes) {
                    Ok(head) => Gate::Head(Box::new(head)),
                    Err(reason) => Gate::Refused(reason),
                };
            }
            Ok(Look::Partial) => {}
            Err(reason) => return Gate::Refused(reason),
        }
        // Each arm is cancel-safe: a fill that does not finish has read nothing. What was sent in time comes first.
        let filled = tokio::select! {
            biased;
            filled = conn.fill() => filled,
            () = sleep_until(deadline.unwrap_or(idle)) => {
                return if deadline.is_some() { Gate::Refused(Reason::HeadTimeout) } else { Gate::Over };
            }
            () = over.as_mut(), if deadline.is_none() => return Gate::Over,
        };
        match filled {
            Ok(0) | Err(_) => return Gate::Over,
            Ok(_) => deadline = deadline.or_else(|| Some(Instant::now() + limits.head)),
        }
    }
}

/// How far the bytes were looked at; each is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    at: usize,
    line_begin: usize,
    /// Bytes of an empty line before the request line, which some clients send after a body.
    skipped: usize,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Look {
    /// Where the request line begins, and where the head ends.
    Whole(usize, usize),
    Partial,
}

impl Scan {
    /// Looks for the end of the head. A line ends with CR LF and nothing else.
    pub(crate) fn look(&mut self, bytes: &[u8], limits: &Limits) -> Result<Look, Reason> {
        while let Some(rest) = bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            // Most bytes are of no line's end, and are only passed by.
            let previous = self.at.checked_sub(1).map(|before| bytes[before]);
            let plain = rest.iter().position(|&byte| byte <= b'\r').unwrap_or(rest.len());
            if plain > 0 {
                if previous == Some(b'\r') {
                    return Err(Reason::BadHead);
                }
                self.at += plain;
                continue;
            }
            let byte = rest[0];
            if (byte == b'\n') != (previous == Some(b'\r')) || byte == 0 {
                return Err(Reason::BadHead);
            }
            self.at += 1;
            if byte != b'\n' {
                continue;
            }
            let empty = self.at - self.line_begin == 2;
            let is_request_line = self.line_begin == self.skipped;
            if is_request_line && self.at - self.skipped > limits.target_bytes + BESIDE_TARGET {
                return Err(Reason::TargetTooLong);
            }
            self.line_begin = self.at;
            match (empty, self.at) {
                (true, 2) => self.skipped = 2,
                (true, end) if self.skipped == 2 && end == 4 => return Err(Reason::BadHead),
                (true, end) if end - self.skipped <= limits.head_bytes => return Ok(Look::Whole(self.skipped, end)),
                _ => {}
            }
        }
        let in_request_line = self.line_begin == self.skipped;
        if in_request_line && self.at - self.skipped > limits.target_bytes + BESIDE_TARGET {
            return Err(Reason::TargetTooLong);
        }
        if self.at - self.skipped > limits.head_bytes {
            return Err(Reason::HeadTooLarge);
        }
        Ok(Look::Partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Result<Look, Reason> {
        Scan::default().look(bytes, &Limits::default())
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_split() {
        let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        for split in 0..bytes.len() - 3 {
            let mut scan = Scan::default();
            assert_eq!(scan.look(&bytes[..split], &Limits::default()), Ok(Look::Partial), "split at {split}");
            assert_eq!(scan.look(bytes, &Limits::default()), Ok(Look::Whole(2, bytes.len() - 3)), "split at {split}");
        }
    }

    #[test]
    fn p36_each_byte_is_looked_at_once_however_slowly_they_come() {
        let mut scan = Scan::default();
        let mut bytes = b"GET / HTTP/1.1\r\nx: ".to_vec();
        for at in 1..=(48 << 10) {
            bytes.resize(at.max(bytes.len()), b'a');
            assert_eq!(scan.look(&bytes[..at], &Limits::default()), Ok(Look::Partial));
            // Were it looked at again, this would be refused.
            bytes[at.saturating_sub(3)] = 0;
        }
    }

    #[test]
    fn p06_p07_a_line_ends_with_cr_lf_and_nothing_else() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "\n",
            "GET /\0 HTTP/1.1",
            "\r\n\r\n",
        ] {
            assert_eq!(scan(bad.as_bytes()), Err(Reason::BadHead), "{bad:?}");
        }
    }

    #[test]
    fn p39_what_is_too_large_is_refused_before_its_end() {
        assert_eq!(scan(&[b'a'; 17 << 10]), Err(Reason::TargetTooLong));
        let line = b"GET / HTTP/1.1\r\nx: ".to_vec();
        assert_eq!(scan(&[line.clone(), vec![b'a'; 64 << 10]].concat()), Err(Reason::HeadTooLarge));
        let whole = [line, vec![b'a'; 64 << 10], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(scan(&whole), Err(Reason::HeadTooLarge));
    }
}
