//! From a chosen endpoint to the peer that Pingora connects to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_link::{Pool, UpstreamProtocol};
use pingora::prelude::HttpPeer;

use crate::checks;
use crate::exchange::Exchange;
use crate::front::head::{Kind, Version};
use crate::live::cell::Flight;

/// Streams of one HTTP/2 connection to an instance; more open another one.
const STREAMS_MAX: usize = 100;
/// Bytes of an answer that such a stream may have under way unread.
const WINDOW: u32 = 64 << 10;
/// The same of all streams of a connection. Were it smaller, clients that do not read would stop the others.
const WINDOWS: u32 = STREAMS_MAX as u32 * WINDOW;

/// The peer of the endpoint that a request was given. Its pool key has the environment and the epoch in it: a pooled connection never crosses tenants
/// or deployments, whoever has the address by now; and one that gives little at a time serves HTTP/2 clients only.
pub(crate) fn peer(flight: &Flight, exchange: &Exchange) -> Box<HttpPeer> {
    let Exchange { edge, kind, version, .. } = exchange;
    let (kind, version) = (*kind, *version);
    let (endpoint, limits, protocol) = (flight.endpoint(), &edge.limits, protocol(flight, kind));
    let mut peer = HttpPeer::new(endpoint.address, false, String::new());
    let pool = flight.policy().map(|policy| policy.pool).unwrap_or_default();
    let mut key = DefaultHasher::new();
    // Streams of an instance's HTTP/2 connection have windows of their own.
    let is_narrow = version == Version::Http2 && protocol == UpstreamProtocol::Http1;
    (&flight.cell.id, flight.offer.epoch(), &endpoint.instance, is_narrow).hash(&mut key);
    let idle = match pool.idle_seconds {
        Some(seconds) => Duration::from_secs(u64::from(u16::from(seconds))),
        None => limits.pooled_idle,
    };
    let kept = if is_kept(flight, pool) { idle } else { Duration::ZERO };
    if idle.is_zero() {
        // A connection that nobody else finds, even before it is closed.
        edge.dice.roll().hash(&mut key);
    }
    peer.group_key = key.finish();
    let options = &mut peer.options;
    let times = checks::times(exchange.rule_limits(), flight.offer.checks.as_deref(), limits);
    let connect = times.connect.min(limits.connect_look);
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.write_timeout = Some(times.send);
    options.read_timeout = match kind {
        Kind::Plain => Some(times.answer),
        Kind::EventStream | Kind::Grpc => Some(times.stream_idle),
        // Of a tunnel, one side may be silent while the other talks: `front::until_closed` looks at both.
        Kind::WebSocket => None,
    };
    options.idle_timeout = Some(kept);
    // The lane has up to ten reads of an answer under way for a client that does not take it. A client of HTTP/1 has one
    // such answer at a time, one of HTTP/2 as many as it has streams.
    options.tcp_recv_buf = is_narrow.then_some(limits.stream_read);
    if protocol == UpstreamProtocol::H2c {
        // Both bounds, or Pingora speaks HTTP/1 where no TLS says otherwise.
        options.set_http_version(2, 2);
        options.max_h2_streams = STREAMS_MAX;
        options.h2_stream_window_size = Some(WINDOW);
        options.h2_connection_window_size = Some(WINDOWS);
    }
    Box::new(peer)
}

/// What a request's instance is spoken to in. WebSocket over HTTP/2 (RFC 8441) is not known to Pingora.
pub(crate) fn protocol(flight: &Flight, kind: Kind) -> UpstreamProtocol {
    match kind {
        Kind::WebSocket => UpstreamProtocol::Http1,
        Kind::Plain | Kind::EventStream | Kind::Grpc => {
            flight.policy().map(|policy| policy.protocol).unwrap_or_default()
        }
    }
}

/// Whether a request's instance is spoken to in HTTP/2.
pub(crate) fn speaks_http2(exchange: &Exchange) -> bool {
    exchange.flight.as_ref().is_some_and(|flight| protocol(flight, exchange.kind) == UpstreamProtocol::H2c)
}

/// Of as many requests as connections may be kept, each keeps its own; who comes beyond them does not.
fn is_kept(flight: &Flight, pool: Pool) -> bool {
    pool.connections.is_none_or(|most| flight.in_flight().load(Ordering::Relaxed) <= most)
}
