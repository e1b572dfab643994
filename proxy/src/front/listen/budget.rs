//! What all connections together may take: descriptors, places for each client, handshakes.
//!
//! What does not fit is closed at once, counted, and logged once a second at most. Handshakes are the first to go: they cost
//! the most, and nothing was promised to anybody yet.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::config::Limits;
use crate::decide::refuse::Reason;

/// A client with IPv6 has all addresses that share so many bits.
const IPV6_CLIENT_BITS: u8 = 64;
/// Parts of the map of clients, each with a lock of its own.
const SHARDS: usize = 16;

/// See the module.
pub(crate) struct Budget {
    connections_max: usize,
    open: AtomicUsize,
    clients: Option<Clients>,
    refused: Refused,
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
    pub(crate) fn new(limits: &Limits, connections_max: usize) -> Arc<Self> {
        let clients = limits.connections_per_client.map(Clients::new);
        Arc::new(Self { connections_max, open: AtomicUsize::new(0), clients, refused: Refused::default() })
    }

    /// One more connection.
    pub(super) fn connection(self: &Arc<Self>) -> Result<Place, Spent> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Spent::Connections);
        }
        Ok(Place { budget: Arc::clone(self), client: None })
    }

    /// One more stream of a connection that has one: both may need a connection to an instance.
    pub(in crate::front) fn stream(self: &Arc<Self>) -> Result<Place, Reason> {
        self.connection().map_err(|_| {
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
        json!({
            "open": self.open.load(Ordering::Relaxed),
            "limit": self.connections_max,
            "refused": {
                "connections": self.refused.connections.load(Ordering::Relaxed),
                "clients": self.refused.clients.load(Ordering::Relaxed),
                "handshakes": self.refused.handshakes.load(Ordering::Relaxed),
                "streams": self.refused.streams.load(Ordering::Relaxed),
            },
        })
    }
}

/// A connection's, or a further stream's, part of the budget; freed with its drop.
pub(in crate::front) struct Place {
    budget: Arc<Budget>,
    client: Option<IpAddr>,
}

impl Place {
    /// Counts the connection for its client, once that is known.
    pub(super) fn of_client(&mut self, client: Option<IpAddr>) -> Result<(), Spent> {
        let (Some(clients), Some(client)) = (&self.budget.clients, client) else { return Ok(()) };
        let client = key(client);
        clients.enter(client)?;
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.open.fetch_sub(1, Ordering::Relaxed);
        if let (Some(clients), Some(client)) = (&self.budget.clients, self.client) {
            clients.leave(client);
        }
    }
}

/// Connections by client; only those that have some.
struct Clients {
    most: u32,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: RandomState,
}

impl Clients {
    fn new(most: u32) -> Self {
        Self { most, shards: Default::default(), hasher: RandomState::new() }
    }

    fn shard(&self, client: IpAddr) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32>> {
        let at = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or_default();
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, client: IpAddr) -> Result<(), Spent> {
        let mut shard = self.shard(client);
        match shard.entry(client) {
            Entry::Occupied(count) if *count.get() >= self.most => Err(Spent::Client),
            Entry::Occupied(mut count) => {
                *count.get_mut() += 1;
                Ok(())
            }
            Entry::Vacant(_) if self.most == 0 => Err(Spent::Client),
            Entry::Vacant(none) => {
                none.insert(1);
                Ok(())
            }
        }
    }

    fn leave(&self, client: IpAddr) {
        if let Entry::Occupied(mut count) = self.shard(client).entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who counts as one client.
fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(dormouse_link::masked_v6(address, IPV6_CLIENT_BITS)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(connections: usize, per_client: Option<u32>) -> Arc<Budget> {
        Budget::new(&Limits { connections_per_client: per_client, ..Limits::default() }, connections)
    }

    fn of(budget: &Arc<Budget>, client: &str) -> Result<Place, Spent> {
        let mut place = budget.connection()?;
        place.of_client(client.parse().ok())?;
        Ok(place)
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ended() {
        let budget = budget(2, None);
        let places = [budget.connection(), budget.connection()].map(|place| place.expect("there is room"));
        assert_eq!(budget.connection().err(), Some(Spent::Connections));
        drop(places);
        assert_eq!(budget.open.load(Ordering::Relaxed), 0);
        assert!(budget.connection().is_ok());
    }

    #[test]
    fn a_client_has_its_places_and_with_ipv6_its_whole_network_has() {
        let budget = budget(100, Some(2));
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
        let clients = budget.clients.as_ref().expect("limited");
        assert!(clients.shards.iter().all(|shard| shard.lock().expect("not poisoned").is_empty()), "nobody is kept");
        assert_eq!(budget.open.load(Ordering::Relaxed), 0, "a refused one takes no place");
    }
}
