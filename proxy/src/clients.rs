//! Who counts as one client, and something for each of them: how many of what it has, or how far its rate is used.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dormouse_link::masked_v6;

/// Clients that are remembered at a time, where nothing else bounds them. Beyond them one is forgotten for each that comes:
/// whoever has so many addresses is not to be limited by address.
pub(crate) const CLIENTS_MAX: usize = 64 << 10;
/// Parts with a lock of their own.
const SHARDS: usize = 16;
/// The first bits of an IPv6 address that are one client's.
const IPV6_CLIENT_BITS: u8 = 64;

/// Who counts as one client: an address, a /64 of IPv6, or everybody who comes through a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(Option<IpAddr>);

impl Client {
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(masked_v6(address, IPV6_CLIENT_BITS)),
            address => address,
        }))
    }
}

/// A client has as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// By client. A lock is held for one look at one map.
#[derive(Debug)]
pub(crate) struct Clients<V> {
    shards: [Mutex<HashMap<Client, V>>; SHARDS],
    hasher: RandomState,
}

impl<V> Default for Clients<V> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl<V> Clients<V> {
    pub(crate) fn shard(&self, client: Client) -> MutexGuard<'_, HashMap<Client, V>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("no test panics with it").len()).sum()
    }
}

impl Clients<u32> {
    /// Counts one more of a client, unless it has `most`. Clients that have none are not remembered.
    pub(crate) fn enter(&self, client: Client, most: u32) -> Result<(), Full> {
        let mut shard = self.shard(client);
        match shard.get_mut(&client) {
            Some(count) if *count >= most => return Err(Full),
            Some(count) => *count += 1,
            None if most == 0 => return Err(Full),
            None => drop(shard.insert(client, 1)),
        }
        Ok(())
    }

    /// Counts one less of a client that was counted.
    pub(crate) fn leave(&self, client: Client) {
        if let Entry::Occupied(mut count) = self.shard(client).entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Makes room for one more: those that `is_idle` go, and if there are none, anyone does.
pub(crate) fn make_room<V>(shard: &mut HashMap<Client, V>, is_idle: impl Fn(&V) -> bool) {
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
