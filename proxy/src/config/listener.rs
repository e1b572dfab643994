//! A place where visitors are served, and what it has of its own.

use std::time::Duration;

use super::{Address, Limits, Network};
use crate::front::tls::ClientAuthority;

/// A place where visitors are served.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What it is called in errors and logs, and by whoever takes its sockets over: `http`, `https`.
    pub name: String,
    /// Where it listens; port 0 takes a free one.
    pub address: Address,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether HTTP/2 is spoken, too.
    pub http2: Http2,
    /// Over TLS: whose certificates clients need; without, nobody asks them for one.
    pub clients: Option<ClientAuthority>,
    /// Whose connections begin with a PROXY protocol header, each of them; from others it is a bad request.
    pub proxy_protocol_from: Vec<Network>,
    /// Whose `X-Forwarded-For`, `-Proto` and `-Port` are believed; nobody else's are.
    pub trust_forwarded_from: Vec<Network>,
    /// What it has of its own.
    pub limits: ListenerLimits,
}

/// Whether a listener speaks HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2 {
    /// HTTP/1 only.
    Off,
    /// Over TLS with who chooses it (ALPN), else with who begins with it (RFC 9113 section 3.3).
    On,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP as it is.
    Plain,
    /// HTTP over TLS; certificates come with the table.
    Tls,
}

impl Listener {
    /// Plain HTTP, called `http`.
    pub fn http(address: impl Into<Address>) -> Self {
        Self::new("http", address.into(), (Protocol::Plain, Http2::Off))
    }

    /// HTTPS, called `https`.
    pub fn https(address: impl Into<Address>) -> Self {
        Self::new("https", address.into(), (Protocol::Tls, Http2::On))
    }

    fn new(name: &str, address: Address, (protocol, http2): (Protocol, Http2)) -> Self {
        Self {
            name: name.to_owned(),
            address,
            protocol,
            http2,
            clients: None,
            proxy_protocol_from: Vec::new(),
            trust_forwarded_from: Vec::new(),
            limits: ListenerLimits::default(),
        }
    }
}

/// What a listener has of its own. Each is called as in [`Limits`], and what is `None` is as there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Its connections at a time, out of all that the edge may have.
    pub connections: Option<usize>,
    /// The same for one client: here its connections to this listener count, and to no other.
    pub connections_per_client: Option<u32>,
    /// For a TLS handshake.
    pub tls_handshake: Option<Duration>,
    /// For a request head.
    pub head: Option<Duration>,
    /// Between two requests.
    pub keep_alive: Option<Duration>,
    /// Of a request head.
    pub head_bytes: Option<usize>,
    /// Of the request target.
    pub target_bytes: Option<usize>,
    /// Of an HTTP/2 connection.
    pub streams: Option<u32>,
    /// Of a request body.
    pub body_bytes: Option<u64>,
    /// Between two reads of a request body.
    pub body_gap: Option<Duration>,
    /// For one write to a client.
    pub client_write: Option<Duration>,
    /// Bytes a second of a client.
    pub client_rate: Option<u64>,
    /// Over how long that rate is taken.
    pub client_window: Option<Duration>,
}

impl ListenerLimits {
    /// The limits of this listener, where the edge has those.
    pub fn over(&self, limits: &Limits) -> Limits {
        let edge = limits.clone();
        Limits {
            // Both hold: they are counted for the listener, and for the edge.
            connections: self.connections.unwrap_or(edge.connections),
            connections_per_client: self.connections_per_client.or(edge.connections_per_client),
            tls_handshake: self.tls_handshake.unwrap_or(edge.tls_handshake),
            head: self.head.unwrap_or(edge.head),
            keep_alive: self.keep_alive.unwrap_or(edge.keep_alive),
            head_bytes: self.head_bytes.unwrap_or(edge.head_bytes),
            target_bytes: self.target_bytes.unwrap_or(edge.target_bytes),
            streams: self.streams.unwrap_or(edge.streams),
            body_bytes: self.body_bytes.unwrap_or(edge.body_bytes),
            body_gap: self.body_gap.unwrap_or(edge.body_gap),
            client_write: self.client_write.unwrap_or(edge.client_write),
            client_rate: self.client_rate.unwrap_or(edge.client_rate),
            client_window: self.client_window.unwrap_or(edge.client_window),
            ..edge
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_of_a_listener_takes_the_place_of_the_edges() {
        let (time, edge) = (|number| Some(Duration::from_secs(number)), Limits::default());
        // All of them are named here.
        let own = ListenerLimits {
            connections: Some(1),
            connections_per_client: Some(2),
            tls_handshake: time(3),
            head: time(4),
            keep_alive: time(5),
            head_bytes: Some(6),
            target_bytes: Some(7),
            streams: Some(8),
            body_bytes: Some(9),
            body_gap: time(10),
            client_write: time(11),
            client_rate: Some(12),
            client_window: time(13),
        };
        let over = own.over(&edge);
        let counts = (over.connections, over.connections_per_client, over.streams);
        assert_eq!(counts, (1, Some(2), 8));
        let sizes = (over.head_bytes, over.target_bytes, over.body_bytes, over.client_rate);
        assert_eq!(sizes, (6, 7, 9, 12));
        let times =
            [over.tls_handshake, over.head, over.keep_alive, over.body_gap, over.client_write, over.client_window];
        assert_eq!(times.map(|time| time.as_secs()), [3, 4, 5, 10, 11, 13]);
        assert_eq!(over.hold, edge.hold, "the others are the edge's");
        let same = ListenerLimits::default().over(&edge);
        assert_eq!(format!("{same:?}"), format!("{edge:?}"));
    }
}
