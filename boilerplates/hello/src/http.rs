//! HTTP/1.x on one connection: heads parsed, bodies framed, both ways (RFC 9112).

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The longest request head, in bytes.
const HEAD_MAX: u64 = 64 * 1024;
/// The longest line that gives a chunk's size, and the longest trailer section.
const CHUNK_LINE_MAX: u64 = 8 * 1024;
/// How much of a body is read that nobody wanted, for the sake of the connection.
const LEFTOVER_MAX: u64 = 1 << 20;

pub type Input<'s> = BufReader<&'s TcpStream>;

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    keep: bool,
    old: bool,
}

impl Request {
    /// The next head, or `None` at the end of the connection. What is no HTTP is an error of the kind `InvalidData`.
    pub fn read(input: &mut Input<'_>) -> Result<Option<Self>> {
        let mut head = input.take(HEAD_MAX);
        let mut line = || {
            let mut line = Vec::new();
            head.read_until(b'\n', &mut line)?;
            match line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")) {
                Some(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
                None if line.is_empty() => Ok(None),
                None => Err(invalid("a head that ends too early, or never")),
            }
        };
        let Some(first) = line()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(invalid("a request line has three words"));
        };
        let old = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return Err(invalid("only HTTP/1.1 and HTTP/1.0 are spoken here")),
        };
        let target = match target.strip_prefix("http://") {
            Some(absolute) => absolute.find('/').map_or("/", |slash| &absolute[slash..]),
            None => target,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        let mut headers = Vec::new();
        loop {
            let header = line()?.ok_or_else(|| invalid("a head that ends too early"))?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut request = Self { method, path, query, headers, keep: false, old };
        request.keep = !request.names("connection", "close") && (!old || request.names("connection", "keep-alive"));
        Ok(Some(request))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Does the list in the header `name` have this word?
    pub fn names(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
    }

    /// What the query gives for `key`, as it is written there.
    pub fn text(&self, key: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The number that the query gives for `key`, at most `max`.
    pub fn number(&self, key: &str, default: u64, max: u64) -> u64 {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.filter(|(name, _)| *name == key).find_map(|(_, value)| value.parse().ok());
        found.unwrap_or(default).min(max)
    }
}

/// The body of one request: never a byte more than is its own.
pub struct Body<'b, 's> {
    input: &'b mut Input<'s>,
    /// Bytes that are left of the body, or of the chunk.
    left: u64,
    /// `None`: the length is known. Else: was there a chunk before?
    chunked: Option<bool>,
    done: bool,
    /// Does the client wait for a word before it sends the body?
    expected: bool,
}

impl<'b, 's> Body<'b, 's> {
    pub fn new(request: &Request, input: &'b mut Input<'s>) -> Result<Self> {
        let lengths: Vec<_> =
            request.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case("content-length")).collect();
        let (left, chunked) = match (request.header("transfer-encoding"), lengths.as_slice()) {
            (None, []) => (0, None),
            (None, [(_, length)]) => (length.parse().map_err(|_| invalid("Content-Length is no number"))?, None),
            (Some(coding), []) if coding.eq_ignore_ascii_case("chunked") => (0, Some(false)),
            _ => return Err(invalid("how long the body is, is not clear")),
        };
        let done = left == 0 && chunked.is_none();
        Ok(Self { input, left, chunked, done, expected: request.names("expect", "100-continue") })
    }

    /// Reads what nobody wanted, up to a limit; is the connection clean then?
    pub fn finish(&mut self) -> Result<bool> {
        if !self.done && !self.expected {
            std::io::copy(&mut self.by_ref().take(LEFTOVER_MAX), &mut std::io::sink())?;
        }
        Ok(self.done)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.input.by_ref().take(CHUNK_LINE_MAX).read_until(b'\n', &mut line)?;
        let text = line.strip_suffix(b"\r\n").ok_or_else(|| invalid("a chunk's line does not end"))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn next_chunk(&mut self, after_chunk: bool) -> Result<()> {
        if after_chunk && !self.line()?.is_empty() {
            return Err(invalid("a chunk is longer than its size"));
        }
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk's size is no number"))?;
        self.chunked = Some(true);
        self.done = self.left == 0;
        while self.done && !self.line()?.is_empty() {} // trailers
        Ok(())
    }
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if !self.done && self.expected {
            self.expected = false;
            self.input.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let (false, 0, Some(after_chunk)) = (self.done, self.left, self.chunked) {
            self.next_chunk(after_chunk)?;
        }
        if self.done {
            return Ok(0);
        }
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.input.read(&mut buffer[..room])?;
        if count == 0 && room > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.done = self.left == 0 && self.chunked.is_none();
        Ok(count)
    }
}

/// The answer to one request.
pub struct Reply<'s> {
    out: &'s TcpStream,
    old: bool,
    head_only: bool,
    stopping: &'s AtomicBool,
    /// May the connection go on after this answer?
    pub keep: bool,
    /// Was it put off already, as the settings want it?
    pub late: bool,
    /// What was answered; 0 before.
    pub status: u16,
}

impl<'s> Reply<'s> {
    pub fn new(request: &Request, out: &'s TcpStream, stopping: &'s AtomicBool) -> Self {
        Self {
            out,
            old: request.old,
            head_only: request.method == "HEAD",
            stopping,
            keep: request.keep,
            late: false,
            status: 0,
        }
    }

    pub fn send(&mut self, status: u16, kind: &str, body: &[u8]) -> Result<()> {
        let mut bytes = self.head(status, kind, &format!("Content-Length: {}\r\n", body.len()));
        if !self.head_only {
            bytes.extend_from_slice(body);
        }
        self.out.write_all(&bytes)
    }

    /// An answer in pieces: of `length` bytes, or chunked.
    pub fn stream(&mut self, status: u16, kind: &str, length: Option<u64>) -> Result<Pieces<'s>> {
        let framing = match length {
            Some(length) => format!("Content-Length: {length}\r\n"),
            None if self.old => String::new(),
            None => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        self.keep &= !framing.is_empty();
        let head = self.head(status, kind, &framing);
        self.out.write_all(&head)?;
        Ok(Pieces { out: self.out, chunked: length.is_none() && !self.old, mute: self.head_only })
    }

    fn head(&mut self, status: u16, kind: &str, framing: &str) -> Vec<u8> {
        self.status = status;
        self.keep &= !self.stopping.load(SeqCst);
        let reason = if status < 400 { "OK" } else { "Not OK" };
        let connection = if self.keep { "keep-alive" } else { "close" };
        let rest = format!("Cache-Control: no-store\r\nConnection: {connection}\r\n\r\n");
        format!("HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\n{framing}{rest}").into_bytes()
    }
}

pub struct Pieces<'s> {
    out: &'s TcpStream,
    chunked: bool,
    mute: bool,
}

impl Pieces<'_> {
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        match (self.mute || piece.is_empty(), self.chunked) {
            (true, _) => Ok(()),
            (false, false) => self.out.write_all(piece),
            (false, true) => {
                let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
                self.out.write_all(&bytes)
            }
        }
    }

    pub fn finish(mut self) -> Result<()> {
        if self.chunked && !self.mute { self.out.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }
}

pub fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
