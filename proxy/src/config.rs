//! What a proxy is told at its start: addresses, and every limit by name with a default that is safe.

mod address;
mod listener;

pub use address::{Address, AddressError};
pub use dormouse_link::{Network, NetworkError};
pub use listener::{Http2, Listener, ListenerLimits, Protocol};

use std::net::SocketAddr;
use std::time::Duration;

use crate::access::Output;
use crate::live::sticky::StickySecret;
use crate::spans::Spans;

/// Where a proxy listens and how much it lets through.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where visitors are served; each has a name of its own.
    pub listeners: Vec<Listener>,
    /// `/healthz`, `/readyz`, `/metrics`, `/table` and `/connections`; meant for loopback, it asks nobody who they are.
    pub admin: Option<SocketAddr>,
    /// Threads that serve visitors.
    pub workers: usize,
    /// Where access records go; none are kept without it.
    pub access_log: Option<Output>,
    /// Where spans of requests are left; none are made without it.
    pub spans: Option<Spans>,
    /// What cookies are signed with that bring a browser back to its instance: the same on all edges of a group. Without, each
    /// start makes its own, and who comes later is given another instance.
    pub sticky_secret: Option<StickySecret>,
    /// What this edge is called in access records.
    pub name: String,
    /// The region that it is of, in access records.
    pub region: String,
    /// How long, how large, how many; a listener may say otherwise for itself.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            admin: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            access_log: None,
            spans: None,
            sticky_secret: None,
            name: String::new(),
            region: String::new(),
            limits: Limits::default(),
        }
    }
}

/// Every limit of the data plane.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of memory that the process may have, before it refuses some work (`overload`). `None`: what its control group
    /// may have, or three quarters of the machine's.
    pub memory: Option<u64>,
    /// Connections of visitors at a time; more are closed at once. Fewer where the process may not have descriptors enough.
    pub connections: usize,
    /// The same for one client's address, or one /64 of IPv6; `None`: no limit.
    pub connections_per_client: Option<u32>,
    /// TLS handshakes at a time; for a new one, the oldest is given up, or, while that is young, the new one.
    pub handshakes: usize,
    /// For a TLS handshake, from accept to its end, a PROXY protocol header included.
    pub tls_handshake: Duration,
    /// For a request head, from its first byte to its last; then 408.
    pub head: Duration,
    /// Between two requests of a connection, or without a stream; then it is closed.
    pub keep_alive: Duration,
    /// Of a request head; then 431.
    pub head_bytes: usize,
    /// Of the request target; then 414.
    pub target_bytes: usize,
    /// Streams that an HTTP/2 connection may have at a time.
    pub streams: u32,
    /// Bytes of a stream that are under way unread, in either direction.
    pub stream_window: u32,
    /// Bytes of an answer that are asked of the instance's socket at a time, about, if the client is one of HTTP/2.
    pub stream_read: usize,
    /// Of a request body; then 413.
    pub body_bytes: u64,
    /// Between two reads of a request body; then 408.
    pub body_gap: Duration,
    /// For one write to a client that does not read.
    pub client_write: Duration,
    /// Bytes a second that a client sends of a body, or reads of an answer, at least, while it is waited for; then 408, or
    /// the end. Upgraded connections and event streams are exempt.
    pub client_rate: u64,
    /// Over how long that rate is taken.
    pub client_window: Duration,
    /// How long a client that sends nothing more, and may have left, is still worked for.
    pub half_closed: Duration,
    /// For a connection to an instance.
    pub connect: Duration,
    /// After so much of it the cell is looked at again, and the connection is tried anew: the instance may be gone for good.
    pub connect_look: Duration,
    /// For connecting over all tries, a wait for a newer cell included; then 502.
    pub connect_total: Duration,
    /// For one write to an instance.
    pub send: Duration,
    /// Until the first byte of a response, and between two; then 504.
    pub response_gap: Duration,
    /// In place of `body_gap` and `response_gap` for upgraded connections and event streams.
    pub stream_idle: Duration,
    /// How often another endpoint is tried after a failure to connect.
    pub retries: usize,
    /// Of a hundred requests of an environment, how many may be tried again,
    pub retry_percent: u32,
    /// and how many in any case each second.
    pub retries_per_second: u32,
    /// Failures in a row, to connect or by a 502, 503 or 504, after which an instance is left out; more than 255 are never
    /// counted. At most half are left out.
    pub eject_after: u32,
    /// For how long at first, doubled each time,
    pub eject: Duration,
    /// up to this.
    pub eject_max: Duration,
    /// How long an idle connection to an instance is kept; shorter than what applications keep (Node: 5 s).
    pub pooled_idle: Duration,
    /// Idle connections to instances that one worker keeps.
    pub pooled: usize,
    /// Answers that one worker compresses at a time, each with up to 850 KiB; more go out as they are.
    pub compressed: u32,
    /// How long a request is held for its environment to wake; then 503.
    pub hold: Duration,
    /// The same for a browser's navigation, which then gets the waking page.
    pub hold_navigation: Duration,
    /// Requests held for one environment; more get 503.
    pub waiters_per_environment: u32,
    /// Requests held in all; more get 503.
    pub waiters: u32,
    /// Bytes that held requests may have in memory, in all: their heads, and what of them may be read ahead; more get 503.
    pub held_bytes: usize,
    /// Bytes that are read of a connection while its request is held or runs, beyond the request; more stay in the socket.
    pub ahead_bytes: usize,
    /// How long an answered connection with unread bytes is drained, so that its client sees the answer.
    pub linger: Duration,
    /// Between two repetitions of level-triggered reports.
    pub report_period: Duration,
    /// Access records that wait for the disk; more are dropped and counted.
    pub access_queue: usize,
    /// Of an access log file; then the next is begun.
    pub access_file_bytes: usize,
    /// Full access log files that are kept beside the current one.
    pub access_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            memory: None,
            connections: usize::MAX,
            connections_per_client: None,
            handshakes: 4096,
            tls_handshake: seconds(10),
            head: seconds(10),
            keep_alive: seconds(75),
            head_bytes: 64 << 10,
            target_bytes: 16 << 10,
            streams: 100,
            stream_window: 64 << 10,
            stream_read: 8 << 10,
            body_bytes: 500 << 20,
            body_gap: seconds(60),
            client_write: seconds(60),
            client_rate: 256,
            client_window: seconds(10),
            half_closed: seconds(10),
            connect: seconds(5),
            connect_look: seconds(1),
            connect_total: seconds(15),
            send: seconds(10),
            response_gap: seconds(30),
            stream_idle: seconds(3600),
            retries: 2,
            retry_percent: 20,
            retries_per_second: 10,
            eject_after: 5,
            eject: seconds(10),
            eject_max: seconds(300),
            pooled_idle: seconds(4),
            pooled: 1024,
            compressed: 128,
            hold: seconds(60),
            hold_navigation: seconds(3),
            waiters_per_environment: 1000,
            waiters: 20_000,
            held_bytes: 64 << 20,
            ahead_bytes: 4 << 10,
            linger: seconds(2),
            report_period: seconds(1),
            access_queue: 8192,
            access_file_bytes: 100 << 20,
            access_files: 5,
        }
    }
}
