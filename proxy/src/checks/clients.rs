//! Something for each client of an environment: in shards, and never for more than [`CLIENTS_MAX`] of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dormouse_link::masked_v6;

/// Clients of one environment that are remembered at a time. Beyond them one is forgotten for each that comes: whoever has so
/// many addresses is not to be limited by address.
pub(super) const CLIENTS_MAX: usize = 64 << 10;
/// Parts with a lock of their own.
const SHARDS: usize = 16;
/// The first bits of an IPv6 address that are one client's.
const IPV6_CLIENT_BITS: u8 = 64;

/// Who counts as one client: an address, a /64 of IPv6, or everybody who comes through a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client(Option<IpAddr>);

impl Client {
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(masked_v6(address, IPV6_CLIENT_BITS)),
            address => address,
        }))
    }
}

/// By client. A lock is held for one look at one map.
#[derive(Debug)]
pub(super) struct Clients<V> {
    shards: [Mutex<HashMap<Client, V>>; SHARDS],
    hasher: RandomState,
}

impl<V> Default for Clients<V> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl<V> Clients<V> {
    pub(super) fn shard(&self, client: Client) -> MutexGuard<'_, HashMap<Client, V>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("no test panics with it").len()).sum()
    }
}

/// Makes room for one more: those that `is_idle` go, and if there are none, anyone does.
pub(super) fn make_room<V>(shard: &mut HashMap<Client, V>, is_idle: impl Fn(&V) -> bool) {
    if shard.len() < CLIENTS_MAX / SHARDS {
        return;
    }
    shard.retain(|_, value| !is_idle(value));
    // All at once, so that the next sweep is not due with the next client.
    while shard.len() > CLIENTS_MAX / SHARDS * 15 / 16 {
        let Some(any) = shard.keys().next().copied() else { return };
        shard.remove(&any);
    }
}
