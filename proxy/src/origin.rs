//! From a chosen endpoint to the peer that Pingora connects to.

use std::hash::{DefaultHasher, Hash, Hasher};

use pingora::prelude::HttpPeer;

use crate::checks::Times;
use crate::config::Limits;
use crate::front::head::{Kind, Version};
use crate::live::cell::Flight;

/// The peer of an endpoint. Its pool key has the environment and the epoch in it: a pooled connection never crosses tenants
/// or deployments, whoever has the address by now; and one that gives little at a time serves HTTP/2 clients only.
pub(crate) fn peer(flight: &Flight, (kind, version): (Kind, Version), limits: &Limits) -> Box<HttpPeer> {
    let endpoint = flight.endpoint();
    let mut peer = HttpPeer::new(endpoint.address, false, String::new());
    let mut key = DefaultHasher::new();
    let is_http2 = version == Version::Http2;
    (&flight.cell.id, flight.offer.epoch(), &endpoint.instance, is_http2).hash(&mut key);
    peer.group_key = key.finish();
    let options = &mut peer.options;
    let times = match &flight.offer.checks {
        None => Times::new(None, limits),
        Some(checks) => checks.times(limits),
    };
    let connect = times.connect.min(limits.connect_look);
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.write_timeout = Some(times.send);
    options.read_timeout = Some(match kind {
        Kind::Plain => times.answer,
        Kind::WebSocket | Kind::EventStream | Kind::Grpc => times.stream_idle,
    });
    options.idle_timeout = Some(limits.pooled_idle);
    // The lane has up to ten reads of an answer under way for a client that does not take it. A client of HTTP/1 has one
    // such answer at a time, one of HTTP/2 as many as it has streams.
    options.tcp_recv_buf = is_http2.then_some(limits.stream_read);
    Box::new(peer)
}
