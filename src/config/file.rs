//! The file that `dormouse edge --config` names: what its arguments say, and listeners with limits of their own.
//!
//! TOML. Each key is called as its argument; unknown ones are wrong, and whatever is wrong is told with its line. Paths are
//! relative to the file's folder. Read once, at the start.

mod value;

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dormouse_proxy::{Http2, ListenerLimits, Output, Protocol};
use serde::Deserialize;
use toml::Spanned;

use super::ListenerConfig;
use crate::cli::{AccessLog, LogOutput};
use crate::failure::{Exit, Failure};
use crate::otlp::{Collector, Sample};
use crate::plain;
use value::{At, Called, Name, Proxies, Said, Size, Streams, Time, Workers};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The longest name of a listener, in bytes.
const NAME_MAX_BYTES: usize = 32;

/// The most streams of an HTTP/2 connection at a time: all their windows together have to fit into its own.
const STREAMS_MAX: u32 = 10_000;

/// What the file says, checked.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) table: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) ticket_keys: Option<PathBuf>,
    pub(super) cookie_key: Option<PathBuf>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) log: Option<LogOutput>,
    pub(super) otlp: Option<Collector>,
    pub(super) otlp_sample: Option<Sample>,
    pub(super) name: Option<String>,
    pub(super) region: Option<String>,
    pub(super) run: Option<PathBuf>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) drain: Option<Duration>,
    pub(super) drain_delay: Option<Duration>,
    pub(super) upgrade_within: Option<Duration>,
    pub(super) memory_limit: Option<u64>,
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) limits: ListenerLimits,
    /// With the lines they begin on.
    pub(super) listeners: Vec<(usize, ListenerConfig)>,
}

impl File {
    /// What a listener is called in a message: by its line, or as the argument that it comes from.
    pub(super) fn called(&self, name: &str) -> String {
        match self.listeners.iter().find(|(_, listener)| listener.name == name) {
            Some((line, _)) => format!("listener {name} (line {line})"),
            None => format!("--{name}"),
        }
    }
}

/// Reads it.
pub(super) fn read(path: &Path) -> Result<File, Failure> {
    let shown = plain::value(&path.to_string_lossy());
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    if let Err(error) = read {
        return Err(Failure::new(Exit::Configuration, format!("cannot read {shown}"))
            .because(&error)
            .hint("is the path right, is it text, and may this user read it?"));
    }
    if text.len() as u64 > MAX_BYTES {
        let what = format!("{shown} is larger than {MAX_BYTES} bytes");
        return Err(Failure::new(Exit::Configuration, what).hint("is it the right file?"));
    }
    parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|Wrong { line, why }| {
        Failure::new(Exit::Configuration, format!("{shown}, line {line}: {why}"))
            .hint("docs/edge.md has every key, and what it takes")
    })
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    line: usize,
    why: String,
}

impl Wrong {
    fn at(text: &str, span: &Range<usize>, why: impl Into<String>) -> Self {
        let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        // One line, whatever is quoted in it.
        Self { line, why: why.into().split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

fn parse(text: &str, folder: &Path) -> Result<File, Wrong> {
    let raw: Raw =
        toml::from_str(text).map_err(|error| Wrong::at(text, &error.span().unwrap_or(0..0), error.message()))?;
    let path = |path: PathBuf| folder.join(path);
    let beside = |output: Output| match output {
        Output::File(path) => Output::File(folder.join(path)),
        output => output,
    };
    let mut listeners: Vec<(usize, ListenerConfig)> = Vec::with_capacity(raw.listener.len());
    for listener in raw.listener {
        let (span, listener) = (listener.span(), listener.into_inner());
        let wrong = |why: String| Wrong::at(text, &span, why);
        let listener = listener.checked(folder).map_err(wrong)?;
        if let Some((line, _)) = listeners.iter().find(|(_, other)| other.name == listener.name) {
            let why = format!("the listener of line {line} is called {}, too: give each a name", listener.name);
            return Err(wrong(why));
        }
        listeners.push((wrong(String::new()).line, listener));
    }
    Ok(File {
        table: raw.table.map(path),
        cert: raw.cert.map(path),
        key: raw.key.map(path),
        ticket_keys: raw.ticket_keys.map(path),
        cookie_key: raw.cookie_key.map(path),
        access_log: raw.access_log.map(|said| match said.0 {
            AccessLog::To(output) => AccessLog::To(beside(output)),
            AccessLog::Off => AccessLog::Off,
        }),
        log: raw.log.map(|said| match said.0 {
            LogOutput::To(output) => LogOutput::To(beside(output)),
            LogOutput::Stderr => LogOutput::Stderr,
        }),
        otlp: raw.otlp.map(|said| said.0),
        otlp_sample: raw.otlp_sample.map(|share| share.0),
        name: raw.name.map(|called| called.0),
        region: raw.region.map(|called| called.0),
        run: raw.run.map(path),
        admin: raw.admin,
        drain: raw.drain.map(|time| time.0),
        drain_delay: raw.drain_delay.map(|time| time.0),
        upgrade_within: raw.upgrade_within.map(|time| time.0),
        memory_limit: raw.memory_limit.map(|size| size.0),
        workers: raw.workers.map(|workers| workers.0),
        limits: raw.limits.into(),
        listeners,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    table: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ticket_keys: Option<PathBuf>,
    cookie_key: Option<PathBuf>,
    access_log: Option<Said<AccessLog>>,
    log: Option<Said<LogOutput>>,
    otlp: Option<Said<Collector>>,
    otlp_sample: Option<value::Ratio>,
    name: Option<Called>,
    region: Option<Called>,
    run: Option<PathBuf>,
    admin: Option<SocketAddr>,
    drain: Option<Time>,
    drain_delay: Option<Time>,
    upgrade_within: Option<Time>,
    memory_limit: Option<Size>,
    workers: Option<Workers>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    listener: Vec<Spanned<RawListener>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListener {
    name: Option<Name>,
    address: At,
    #[serde(default)]
    tls: bool,
    http2: Option<bool>,
    client_ca: Option<PathBuf>,
    #[serde(default)]
    proxy_protocol_from: Vec<Proxies>,
    #[serde(default)]
    trust_forwarded_from: Vec<Proxies>,
    #[serde(default)]
    limits: RawLimits,
}

impl RawListener {
    fn checked(self, folder: &Path) -> Result<ListenerConfig, String> {
        if !self.tls && self.client_ca.is_some() {
            return Err("client_ca is of TLS, which this listener does not speak (tls = true)".to_owned());
        }
        let networks = |networks: Vec<Proxies>| networks.into_iter().map(|network| network.0).collect();
        Ok(ListenerConfig {
            name: self.name.map_or_else(|| if self.tls { "https" } else { "http" }.to_owned(), |name| name.0),
            address: self.address.0,
            protocol: if self.tls { Protocol::Tls } else { Protocol::Plain },
            http2: if self.http2.unwrap_or(self.tls) { Http2::On } else { Http2::Off },
            client_ca: self.client_ca.map(|path| folder.join(path)),
            proxy_protocol_from: networks(self.proxy_protocol_from),
            trust_forwarded_from: networks(self.trust_forwarded_from),
            limits: self.limits.into(),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    connections: Option<NonZeroUsize>,
    connections_per_client: Option<NonZeroU32>,
    tls_handshake: Option<Time>,
    head: Option<Time>,
    keep_alive: Option<Time>,
    head_bytes: Option<Size>,
    target_bytes: Option<Size>,
    streams: Option<Streams>,
    body_bytes: Option<Size>,
    body_gap: Option<Time>,
    client_write: Option<Time>,
    client_rate: Option<NonZeroU64>,
    client_window: Option<Time>,
}

impl From<RawLimits> for ListenerLimits {
    fn from(raw: RawLimits) -> Self {
        let time = |time: Option<Time>| time.map(|time| time.0);
        let bytes = |size: Option<Size>| size.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        Self {
            connections: raw.connections.map(NonZeroUsize::get),
            connections_per_client: raw.connections_per_client.map(NonZeroU32::get),
            tls_handshake: time(raw.tls_handshake),
            head: time(raw.head),
            keep_alive: time(raw.keep_alive),
            head_bytes: bytes(raw.head_bytes),
            target_bytes: bytes(raw.target_bytes),
            streams: raw.streams.map(|streams| streams.0),
            body_bytes: raw.body_bytes.map(|size| size.0),
            body_gap: time(raw.body_gap),
            client_write: time(raw.client_write),
            client_rate: raw.client_rate.map(NonZeroU64::get),
            client_window: time(raw.client_window),
        }
    }
}

#[cfg(test)]
mod tests;
