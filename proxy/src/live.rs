//! The one table that requests are served by.
//!
//! A request reads one shard and one cell: no lock, no allocation, no copy of more than a pointer. The feed is the only
//! writer; a change costs its own size, however large the table is.

pub(crate) mod balance;
pub(crate) mod cell;
pub(crate) mod drain;
pub(crate) mod feed;
pub(crate) mod health;
pub(crate) mod judge;
pub(crate) mod latency;
pub(crate) mod retries;
pub(crate) mod signals;
pub(crate) mod sticky;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use cell::Cell;
use sticky::StickyKey;

use crate::front::tls::certificates::Certificates;

/// Shards of a host map; a change copies one. At a million hosts a shard has about 60.
const SHARDS: usize = 16 << 10;

/// Everything that requests look up.
pub(crate) struct Live {
    /// Host → environment.
    pub(crate) routes: Hosts<Arc<Cell>>,
    /// Host → what it proves itself with.
    pub(crate) certificates: Certificates,
    /// What cookies are signed with.
    pub(crate) sticky: StickyKey,
}

impl Live {
    pub(crate) fn new(sticky: StickyKey) -> Self {
        Self { routes: Hosts::new(), certificates: Certificates::new(), sticky }
    }
}

/// A map by host name, of which readers see each change whole.
pub(crate) struct Hosts<V> {
    hash: RandomState,
    shards: Box<[Shard<V>]>,
}

type Shard<V> = ArcSwapOption<HashMap<Box<str>, V, RandomState>>;

impl<V: Clone> Hosts<V> {
    pub(crate) fn new() -> Self {
        let shards = std::iter::repeat_with(ArcSwapOption::empty).take(SHARDS).collect();
        Self { hash: RandomState::new(), shards }
    }

    /// What a normalised host has.
    pub(crate) fn get(&self, host: &str) -> Option<V> {
        self.shard(host).load().as_ref()?.get(host).cloned()
    }

    /// Sets or removes what a host has.
    pub(crate) fn set(&self, host: &str, value: Option<V>) {
        let shard = self.shard(host);
        let mut map = match shard.load().as_ref() {
            Some(map) => HashMap::clone(map),
            None => HashMap::with_hasher(self.hash.clone()),
        };
        match value {
            Some(value) => map.insert(host.into(), value),
            None => map.remove(host),
        };
        shard.store((!map.is_empty()).then(|| Arc::new(map)));
    }

    fn shard(&self, host: &str) -> &Shard<V> {
        &self.shards[self.hash.hash_one(host) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_what_was_set_last() {
        let hosts = Hosts::new();
        for number in 0..1000 {
            hosts.set(&format!("h{number}.example"), Some(number));
        }
        hosts.set("h7.example", Some(8));
        hosts.set("h9.example", None);
        assert_eq!(hosts.get("h7.example"), Some(8));
        assert_eq!(hosts.get("h9.example"), None);
        assert_eq!(hosts.get("h999.example"), Some(999));
        assert_eq!(hosts.get("other.example"), None);
    }
}
