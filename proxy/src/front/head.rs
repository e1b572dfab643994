//! One request head, parsed strictly: what is ambiguous is refused, so that nobody behind can read it differently.
//!
//! Pure; called by the gate with the bytes from the request line to the empty line.

mod target;

use std::ops::Range;

use dormouse_link::{
    HOST_MAX_BYTES, canonical_eq, is_disguise, is_reserved_for_proxies, is_token, normalise_authority,
};
use http::{Method, header, request};
use httparse::{EMPTY_HEADER, Header};

use super::fence::Framing;
use crate::config::Limits;
use crate::decide::refuse::Reason;
use crate::decide::trace::{PARENT_FIELD, STATE_FIELD, Trace};
use crate::decide::via;
use target::Target;

/// Header fields of a request; then 431.
pub(crate) const HEADERS_MAX: usize = 100;
/// The longest id of a request that is taken over.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// What the media types of gRPC begin with.
const GRPC: &[u8] = b"application/grpc";
/// Names in `Connection`; the lane takes no more.
const NOMINATIONS_MAX: usize = 9;

/// What the front knows of a request before its lane sees it.
#[derive(Debug)]
pub(crate) struct Head {
    /// Its length in bytes; of a stream, that of its target and fields.
    pub(crate) bytes: usize,
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// The target in origin form; `*` as it is.
    pub(crate) target: String,
    /// Whether the client sent the target in absolute form.
    pub(crate) form: Form,
    /// As the client sent it.
    pub(crate) host: String,
    /// The key that routes are found by; empty where an HTTP/1.0 client named none.
    pub(crate) name: HostName,
    pub(crate) framing: Framing,
    pub(crate) connection: Connection,
    pub(crate) kind: Kind,
    pub(crate) reader: Reader,
    pub(crate) expects: Expects,
    pub(crate) edits: Edits,
    /// What its client says that it is part of.
    pub(crate) trace: Option<Trace>,
    /// What its client calls it; believed from few.
    pub(crate) request_id: Option<String>,
    /// How many edges say that it came by them.
    pub(crate) hops: usize,
}

/// Whether the client waits for a 100 before it sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    Nothing,
    Continue,
}

/// Where a head differs from the one that its instance gets, in bytes of it; of a stream there are none.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Where the request line ends.
    pub(crate) line: usize,
    /// Fields that are not passed on, in their order.
    pub(crate) dropped: Vec<Range<usize>>,
    /// Whether `Connection` is among them: it nominated fields, which went with it. The lane would take away what is written in
    /// their place.
    pub(crate) connection: bool,
    /// The `Host` field, if it is not one of those: a route may rewrite it.
    pub(crate) host: Option<Range<usize>>,
    /// `traceparent`, as often as it is there.
    pub(crate) trace_parents: Vec<Range<usize>>,
    /// `tracestate`, likewise.
    pub(crate) trace_states: Vec<Range<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// As records have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Origin,
    Absolute,
}

/// Whether a stream has more than its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamBody {
    None,
    Follows,
}

/// What the client wants to happen to the connection afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    KeepAlive,
    Close,
}

/// What may become of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    WebSocket,
    EventStream,
    /// A call of gRPC: either side may be silent for long.
    Grpc,
}

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A browser that opens a page.
    Navigation,
    /// Somebody who takes HTML.
    Html,
    Program,
}

/// A normalised host name, in place.
#[derive(Clone)]
pub(crate) struct HostName {
    bytes: [u8; HOST_MAX_BYTES],
    len: usize,
}

impl HostName {
    const NONE: Self = Self { bytes: [0; HOST_MAX_BYTES], len: 0 };

    fn of(authority: &[u8]) -> Result<Self, Reason> {
        let mut name = Self::NONE;
        name.len = normalise_authority(authority, &mut name.bytes).map_err(|_| Reason::BadHost)?.len();
        Ok(name)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl std::fmt::Debug for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Head {
    /// Reads `bytes`, which end with the first empty line.
    pub(crate) fn parse(bytes: &[u8], target_max: usize) -> Result<Self, Reason> {
        let mut slots = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut slots);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(count)) if count == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeadTooLarge),
            _ => return Err(Reason::BadHead),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(Reason::BadHead);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::BadHead)?;
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        if target.len() > target_max {
            return Err(Reason::TargetTooLong);
        }
        if method == Method::CONNECT {
            return Err(Reason::Method);
        }
        let target = Target::parse(target, &method)?;
        let mut fields = Fields::read(request.headers, version)?;
        let (host, name) = fields.authority(&target, version)?;
        let kind = fields.kind(version);
        if kind == Kind::WebSocket && fields.framing != Framing::Empty {
            return Err(Reason::BadHead);
        }
        let reader = fields.reader(&method);
        if fields.framing == Framing::Empty || version == Version::Http10 {
            fields.expects = Expects::Nothing;
        }
        let nominated = &fields.nominated;
        let mut edits = Edits::of(bytes, request.headers, target.form, |name| {
            is_reserved_for_proxies(name.as_bytes())
                || (fields.expects == Expects::Nothing && name.eq_ignore_ascii_case("expect"))
                || (!nominated.is_empty() && name.eq_ignore_ascii_case("connection"))
                || nominated.iter().any(|nominated| nominated.eq_ignore_ascii_case(name.as_bytes()))
        });
        edits.connection = !nominated.is_empty();
        Ok(Self {
            bytes: bytes.len(),
            version,
            target: target.origin_form,
            form: target.form,
            host,
            name,
            framing: fields.framing,
            connection: fields.connection,
            kind,
            reader,
            expects: fields.expects,
            edits,
            trace: fields.trace.and_then(Trace::parse),
            request_id: fields.request_id.and_then(request_id),
            hops: fields.hops,
            method,
        })
    }

    /// What its request may have in memory while nobody takes it: itself, and what is read of the client meanwhile.
    pub(crate) fn held_bytes(&self, limits: &Limits) -> usize {
        let ahead = match (self.version, self.framing) {
            (Version::Http2, Framing::Empty) => 0,
            (Version::Http2, _) => limits.stream_window as usize,
            (Version::Http10 | Version::Http11, _) => limits.ahead_bytes,
        };
        self.bytes + ahead
    }

    /// Reads the head of an HTTP/2 stream, which the codec has found well-formed (RFC 9113 section 8.2 and 8.3).
    pub(crate) fn of_stream(request: &request::Parts, body: StreamBody, target_max: usize) -> Result<Self, Reason> {
        let version = Version::Http2;
        // Cookies may come in several fields, which are one to HTTP/1 (RFC 9113 section 8.2.3).
        let cookies = request.headers.get_all(header::COOKIE).iter().count();
        if request.headers.len() - cookies.saturating_sub(1) > HEADERS_MAX {
            return Err(Reason::HeadTooLarge);
        }
        let method = request.method.clone();
        if method == Method::CONNECT {
            return Err(Reason::Method);
        }
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        if target.len() > target_max {
            return Err(Reason::TargetTooLong);
        }
        let target = Target::parse(target, &method)?;
        if target.form == Form::Absolute {
            return Err(Reason::BadHead);
        }
        let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
        let headers = request.headers.iter();
        let headers: Vec<_> =
            headers.map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() }).collect();
        let fields = Fields::read(&headers, version)?;
        let host = match (authority, fields.host) {
            // They say the same (RFC 9113 section 8.3.1), and our lane compares them as we do.
            (Some(authority), Some(host)) if authority != host => return Err(Reason::BadHost),
            (authority, host) => authority.or(host).ok_or(Reason::BadHost)?,
        };
        let framing = match (fields.framing, body) {
            (_, StreamBody::None) => Framing::Empty,
            (Framing::Length(length), StreamBody::Follows) => Framing::Length(length),
            _ => Framing::Chunked,
        };
        let bytes = headers.iter().map(|field| field.name.len() + field.value.len()).sum::<usize>();
        Ok(Self {
            bytes: bytes + target.origin_form.len(),
            version,
            form: Form::Origin,
            host: String::from_utf8_lossy(host).into_owned(),
            name: HostName::of(host)?,
            framing,
            connection: Connection::KeepAlive,
            kind: fields.kind(version),
            reader: fields.reader(&method),
            expects: fields.expects,
            edits: Edits::default(),
            trace: fields.trace.and_then(Trace::parse),
            request_id: fields.request_id.and_then(request_id),
            hops: fields.hops,
            target: target.origin_form,
            method,
        })
    }

    /// The path without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl Edits {
    /// `headers` were read from `bytes`.
    fn of(bytes: &[u8], headers: &[Header<'_>], form: Form, is_dropped: impl Fn(&str) -> bool) -> Self {
        let end = bytes.len() - b"\r\n".len();
        let begin = |at: usize| headers.get(at).map_or(end, |field| field.name.as_ptr().addr() - bytes.as_ptr().addr());
        let mut edits = Self { line: begin(0), ..Self::default() };
        for (at, field) in headers.iter().enumerate() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            let range = begin(at)..begin(at + 1);
            if is_dropped(field.name) || (is("host") && form == Form::Absolute) {
                edits.dropped.push(range);
            } else if is("host") {
                edits.host = Some(range);
            } else if is(PARENT_FIELD) {
                edits.trace_parents.push(range);
            } else if is(STATE_FIELD) {
                edits.trace_states.push(range);
            }
        }
        edits
    }
}

/// What was found in the header fields.
struct Fields<'a> {
    host: Option<&'a [u8]>,
    framing: Framing,
    connection: Connection,
    /// Fields that are for this connection only (RFC 9110 section 7.6.1).
    nominated: Vec<&'a [u8]>,
    upgrade: Upgrade,
    accept: &'a [u8],
    content_type: &'a [u8],
    fetch_dest: Option<&'a [u8]>,
    expects: Expects,
    /// Of several, which nobody reads alike, an empty one.
    trace: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    hops: usize,
}

#[derive(PartialEq)]
enum Upgrade {
    None,
    WebSocket,
}

impl<'a> Fields<'a> {
    fn read(headers: &[Header<'a>], version: Version) -> Result<Self, Reason> {
        let mut fields = Fields {
            host: None,
            framing: Framing::Empty,
            connection: if version == Version::Http10 { Connection::Close } else { Connection::KeepAlive },
            nominated: Vec::new(),
            upgrade: Upgrade::None,
            accept: b"",
            content_type: b"",
            fetch_dest: None,
            expects: Expects::Nothing,
            trace: None,
            request_id: None,
            hops: 0,
        };
        let (mut length, mut chunked, mut nominations) = (None, false, 0);
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("host") {
                once(&mut fields.host, value).map_err(|()| Reason::BadHost)?;
            } else if name.eq_ignore_ascii_case("content-length") {
                once(&mut length, content_length(value)?).map_err(|()| Reason::BadHead)?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || *value != b"chunked" || version == Version::Http10 {
                    return Err(Reason::BadHead);
                }
                chunked = true;
            } else if is_disguise(name.as_bytes()) {
                return Err(Reason::BadHead);
            } else if name.eq_ignore_ascii_case("expect") {
                // Only this one is known; a second or another one may be read differently behind us.
                if fields.expects == Expects::Continue || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reason::Expectation);
                }
                fields.expects = Expects::Continue;
            } else if name.eq_ignore_ascii_case("connection") {
                fields.nominate(value, &mut nominations)?;
            } else if name.eq_ignore_ascii_case("upgrade") && value.eq_ignore_ascii_case(b"websocket") {
                fields.upgrade = Upgrade::WebSocket;
            } else if name.eq_ignore_ascii_case("accept") {
                fields.accept = value;
            } else if name.eq_ignore_ascii_case("content-type") {
                fields.content_type = value;
            } else if name.eq_ignore_ascii_case("sec-fetch-dest") {
                fields.fetch_dest = Some(value);
            } else if name.eq_ignore_ascii_case(PARENT_FIELD) {
                fields.trace = Some(if fields.trace.is_some() { b"" } else { value });
            } else if name.eq_ignore_ascii_case("x-request-id") {
                fields.request_id = Some(if fields.request_id.is_some() { b"" } else { value });
            } else if name.eq_ignore_ascii_case("via") {
                fields.hops += via::hops(value);
            }
        }
        fields.framing = match (length, chunked) {
            (None, false) | (Some(0), false) => Framing::Empty,
            (Some(length), false) => Framing::Length(length),
            (None, true) => Framing::Chunked,
            (Some(_), true) => return Err(Reason::BadHead),
        };
        Ok(fields)
    }

    fn nominate(&mut self, value: &'a [u8], nominations: &mut usize) -> Result<(), Reason> {
        for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
            *nominations += 1;
            let framing = ["host", "content-length", "transfer-encoding"];
            let protected = framing.iter().any(|name| canonical_eq(token, name)) || is_reserved_for_proxies(token);
            if *nominations > NOMINATIONS_MAX || protected || !token.iter().all(|&byte| is_token(byte)) {
                return Err(Reason::BadHead);
            }
            if token.eq_ignore_ascii_case(b"close") {
                self.connection = Connection::Close;
            } else if !token.eq_ignore_ascii_case(b"keep-alive") && !token.eq_ignore_ascii_case(b"upgrade") {
                self.nominated.push(token);
            }
        }
        Ok(())
    }

    fn authority(&self, target: &Target<'_>, version: Version) -> Result<(String, HostName), Reason> {
        if let (Some(authority), Some(host)) = (target.authority, self.host)
            // To be sent identical (RFC 9112 section 3.2); Pingora compares like this, too.
            && authority != host
        {
            return Err(Reason::BadHost);
        }
        match (self.host.or(target.authority.filter(|_| version == Version::Http10)), version) {
            (Some(host), _) => {
                let name = HostName::of(host)?;
                Ok((String::from_utf8_lossy(host).into_owned(), name))
            }
            (None, Version::Http11 | Version::Http2) => Err(Reason::BadHost),
            (None, Version::Http10) => Ok((String::new(), HostName::NONE)),
        }
    }

    fn kind(&self, version: Version) -> Kind {
        if self.upgrade == Upgrade::WebSocket && version == Version::Http11 {
            Kind::WebSocket
        } else if self.content_type.starts_with(GRPC) {
            Kind::Grpc
        } else if contains(self.accept, b"text/event-stream") {
            Kind::EventStream
        } else {
            Kind::Plain
        }
    }

    fn reader(&self, method: &Method) -> Reader {
        if !contains(self.accept, b"text/html") {
            Reader::Program
        } else if *method == Method::GET && self.fetch_dest.is_none_or(|dest| dest == b"document") {
            Reader::Navigation
        } else {
            Reader::Html
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ()> {
    slot.replace(value).map_or(Ok(()), |_| Err(()))
}

/// An id that is short and can stand anywhere; another one is none.
fn request_id(value: &[u8]) -> Option<String> {
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:+/=@".contains(byte);
    let id = std::str::from_utf8(value).ok().filter(|id| id.bytes().all(|byte| sound(&byte)))?;
    (1..=REQUEST_ID_MAX_BYTES).contains(&id.len()).then(|| id.to_owned())
}

/// Digits and nothing else; what does not fit is a lie.
fn content_length(value: &[u8]) -> Result<u64, Reason> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Reason::BadHead)
}

fn contains(value: &[u8], media_type: &[u8]) -> bool {
    value.windows(media_type.len()).any(|window| window.eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests;
