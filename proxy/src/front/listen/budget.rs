//! What all connections together may take, and those of one listener: descriptors, places for each client, handshakes.
//!
//! What does not fit is closed at once, counted, and logged once a second at most. Handshakes are the first to go: they cost
//! the most, and nothing was promised to anybody yet.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::clients::{self, Client, Full};
use crate::config::ListenerLimits;
use crate::decide::refuse::Reason;

/// See the module.
pub(crate) struct Budget {
    connections_max: usize,
    open: AtomicUsize,
    /// Of each listener.
    rooms: Vec<Arc<Room>>,
    refused: Refused,
}

/// What the connections of one listener may take of it.
pub(crate) struct Room {
    listener: String,
    connections_max: usize,
    open: AtomicUsize,
    /// Its own, or those of all listeners that have none of their own.
    clients: Option<Arc<Clients>>,
}

impl Room {
    /// For a listener of that name; `clients` are those of the edge.
    pub(crate) fn new(listener: &str, own: &ListenerLimits, clients: Option<&Arc<Clients>>) -> Arc<Self> {
        Arc::new(Self {
            listener: listener.to_owned(),
            connections_max: own.connections.unwrap_or(usize::MAX),
            open: AtomicUsize::new(0),
            clients: Clients::limited(own.connections_per_client).or_else(|| clients.map(Arc::clone)),
        })
    }
}

/// Counts one more unless there are `max`.
fn enter(open: &AtomicUsize, max: usize) -> Result<(), Spent> {
    if open.fetch_add(1, Ordering::Relaxed) >= max {
        open.fetch_sub(1, Ordering::Relaxed);
        return Err(Spent::Connections);
    }
    Ok(())
}

/// Connections that were closed at once, and streams that were answered instead.
#[derive(Default)]
struct Refused {
    connections: AtomicU64,
    clients: AtomicU64,
    handshakes: AtomicU64,
    streams: AtomicU64,
}

/// What was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    Connections,
    Client,
    Handshakes,
    Streams,
}

impl Budget {
    pub(crate) fn new(connections_max: usize, rooms: Vec<Arc<Room>>) -> Arc<Self> {
        Arc::new(Self { connections_max, open: AtomicUsize::new(0), rooms, refused: Refused::default() })
    }

    /// One more connection of a listener.
    pub(super) fn connection(self: &Arc<Self>, room: &Arc<Room>) -> Result<Place, Spent> {
        let mut place = self.place()?;
        enter(&room.open, room.connections_max)?;
        place.room = Some(Arc::clone(room));
        Ok(place)
    }

    fn place(self: &Arc<Self>) -> Result<Place, Spent> {
        enter(&self.open, self.connections_max)?;
        Ok(Place { budget: Arc::clone(self), room: None, client: None })
    }

    /// One more stream of a connection that has one: both may need a connection to an instance.
    pub(in crate::front) fn stream(self: &Arc<Self>) -> Result<Place, Reason> {
        self.place().map_err(|_| {
            self.note(Spent::Streams);
            Reason::Busy
        })
    }

    /// Counts what did not fit.
    pub(super) fn note(&self, spent: Spent) {
        let counter = match spent {
            Spent::Connections => &self.refused.connections,
            Spent::Client => &self.refused.clients,
            Spent::Handshakes => &self.refused.handshakes,
            Spent::Streams => &self.refused.streams,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// For operators.
    pub(crate) fn shown(&self) -> Value {
        let rooms = self.rooms.iter().map(|room| {
            let limit = room.connections_max.min(self.connections_max);
            json!({"name": room.listener, "open": room.open.load(Ordering::Relaxed), "limit": limit})
        });
        json!({
            "open": self.open.load(Ordering::Relaxed),
            "limit": self.connections_max,
            "refused": {
                "connections": self.refused.connections.load(Ordering::Relaxed),
                "clients": self.refused.clients.load(Ordering::Relaxed),
                "handshakes": self.refused.handshakes.load(Ordering::Relaxed),
                "streams": self.refused.streams.load(Ordering::Relaxed),
            },
            "listeners": rooms.collect::<Vec<_>>(),
        })
    }
}

/// A connection's, or a further stream's, part of the budget; freed with its drop.
pub(in crate::front) struct Place {
    budget: Arc<Budget>,
    /// A stream's has none.
    room: Option<Arc<Room>>,
    client: Option<Client>,
}

impl Place {
    /// Counts the connection for its client, once that is known.
    pub(super) fn of_client(&mut self, client: Option<IpAddr>) -> Result<(), Spent> {
        // Who has no address came through a Unix socket, as everybody there does.
        let (Some(clients), Some(_)) = (self.clients(), client) else { return Ok(()) };
        let client = Client::of(client);
        clients.counts.enter(client, clients.most).map_err(|Full| Spent::Client)?;
        self.client = Some(client);
        Ok(())
    }

    fn clients(&self) -> Option<&Clients> {
        self.room.as_ref()?.clients.as_deref()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.open.fetch_sub(1, Ordering::Relaxed);
        if let (Some(clients), Some(client)) = (self.clients(), self.client) {
            clients.counts.leave(client);
        }
        if let Some(room) = &self.room {
            room.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Connections by client, where they are limited.
pub(crate) struct Clients {
    most: u32,
    counts: clients::Clients<u32>,
}

impl Clients {
    /// Nobody is counted where there is no limit.
    pub(crate) fn limited(most: Option<u32>) -> Option<Arc<Self>> {
        most.map(|most| Arc::new(Self { most, counts: clients::Clients::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of listeners that have these limits.
    fn budget(connections: usize, per_client: Option<u32>, listeners: &[ListenerLimits]) -> Arc<Budget> {
        let clients = Clients::limited(per_client);
        let rooms = listeners.iter().map(|own| Room::new("some", own, clients.as_ref())).collect();
        Budget::new(connections, rooms)
    }

    /// A connection to the first listener.
    fn of(budget: &Arc<Budget>, client: &str) -> Result<Place, Spent> {
        at(budget, 0, client)
    }

    fn at(budget: &Arc<Budget>, listener: usize, client: &str) -> Result<Place, Spent> {
        let mut place = budget.connection(&budget.rooms[listener])?;
        place.of_client(client.parse().ok())?;
        Ok(place)
    }

    /// How many connections are counted, of the edge and of each listener.
    fn open(budget: &Budget) -> (usize, Vec<usize>) {
        let rooms = budget.rooms.iter().map(|room| room.open.load(Ordering::Relaxed));
        (budget.open.load(Ordering::Relaxed), rooms.collect())
    }

    #[test]
    fn a_listeners_own_limits_hold_beside_those_of_the_edge() {
        let own = |connections, connections_per_client| ListenerLimits {
            connections,
            connections_per_client,
            ..ListenerLimits::default()
        };
        let budget = budget(5, Some(2), &[own(Some(3), Some(1)), own(None, None), own(None, None)]);
        let (one, two) = ("192.0.2.1", "192.0.2.2");
        let mut places = vec![at(&budget, 0, one).expect("the first")];
        assert_eq!(at(&budget, 0, one).err(), Some(Spent::Client), "one for each client");
        places.push(at(&budget, 1, one).expect("not counted there"));
        places.push(at(&budget, 2, one).expect("the second of two"));
        assert_eq!(at(&budget, 1, one).err(), Some(Spent::Client), "both share the edge's");
        places.push(at(&budget, 0, two).expect("somebody else"));
        places.push(at(&budget, 0, "192.0.2.3").expect("the third"));
        assert_eq!(at(&budget, 0, "192.0.2.4").err(), Some(Spent::Connections));
        assert_eq!(open(&budget), (5, vec![3, 1, 1]));
        places.remove(0);
        places.push(at(&budget, 1, two).expect("a place was freed"));
        assert_eq!(
            at(&budget, 0, "192.0.2.4").err(),
            Some(Spent::Connections),
            "the edge has none, if the listener has"
        );
        drop(places);
        assert_eq!(open(&budget), (0, vec![0, 0, 0]));
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ended() {
        let budget = budget(2, None, &[ListenerLimits::default()]);
        let one = || budget.connection(&budget.rooms[0]);
        let places = [one(), one()].map(|place| place.expect("there is room"));
        assert_eq!(one().err(), Some(Spent::Connections));
        assert!(budget.stream().is_err());
        drop(places);
        assert_eq!(open(&budget), (0, vec![0]));
        let stream = budget.stream().expect("there is room");
        assert_eq!(open(&budget), (1, vec![0]), "a stream has no place at its listener");
        drop(stream);
        assert!(one().is_ok());
    }

    #[test]
    fn a_client_has_its_places_and_with_ipv6_its_whole_network_has() {
        let budget = budget(100, Some(2), &[ListenerLimits::default()]);
        for (one, two, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8"),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ] {
            let places = [of(&budget, one), of(&budget, two)].map(|place| place.expect("there is room"));
            assert_eq!(of(&budget, one).err(), Some(Spent::Client), "{one}");
            assert!(of(&budget, other).is_ok(), "{other}");
            drop(places);
            assert!(of(&budget, two).is_ok(), "{two}");
        }
        let clients = budget.rooms[0].clients.as_ref().expect("limited");
        assert_eq!(clients.counts.len(), 0, "nobody is kept");
        assert_eq!(open(&budget), (0, vec![0]), "a refused one takes no place");
    }
}
