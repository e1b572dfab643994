//! From a chosen endpoint to the peer that Pingora connects to.

use std::hash::{DefaultHasher, Hash, Hasher};

use pingora::prelude::HttpPeer;

use crate::checks::Times;
use crate::config::Limits;
use crate::front::head::Kind;
use crate::live::cell::Flight;

/// The peer of an endpoint. Its pool key has the environment and the epoch in it: a pooled connection never crosses tenants
/// or deployments, whoever has the address by now.
pub(crate) fn peer(flight: &Flight, kind: Kind, limits: &Limits) -> Box<HttpPeer> {
    let endpoint = flight.endpoint();
    let mut peer = HttpPeer::new(endpoint.address, false, String::new());
    let mut key = DefaultHasher::new();
    (&flight.cell.id, flight.offer.epoch(), &endpoint.instance).hash(&mut key);
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
    Box::new(peer)
}
