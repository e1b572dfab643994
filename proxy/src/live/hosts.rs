//! A map by host name, of which readers see each change whole, and pay little for its size.
//!
//! It lies in many shards; a reader loads one, and a change copies one. A shard is a list in the order of hashes, which are
//! spread evenly: where a name is in it can be guessed to within a few places. Names and values lie in the list itself, a line
//! of the processor's cache each, so a look-up touches the shard and some lines beside each other. There is one writer. Values
//! are small and cheap to copy.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

/// Shards of a map. At a million hosts a shard has about 60.
const SHARDS: usize = 16 << 10;
/// Bytes of a name that is kept inside its slot; with its length it makes four words.
const SHORT_MAX: usize = 30;

/// See the module.
pub(crate) struct Hosts<V> {
    hash: RandomState,
    shards: Box<[ArcSwapOption<Vec<Slot<V>>>]>,
}

/// With a value of three words, a whole line.
#[derive(Clone)]
#[repr(align(64))]
struct Slot<V> {
    /// What is left of the hash behind the number of the shard.
    order: u64,
    name: Name,
    value: V,
}

#[derive(Clone)]
enum Name {
    Short(u8, [u8; SHORT_MAX]),
    Long(Arc<str>),
}

/// A shard as it was when it was looked at.
pub(crate) struct Look<'n, V> {
    shard: Guard<Option<Arc<Vec<Slot<V>>>>>,
    order: u64,
    name: &'n str,
}

impl<V: Clone> Hosts<V> {
    pub(crate) fn new() -> Self {
        Self::of(SHARDS)
    }

    fn of(shards: usize) -> Self {
        let shards = std::iter::repeat_with(ArcSwapOption::empty).take(shards).collect();
        Self { hash: RandomState::new(), shards }
    }

    /// Looks for a normalised name.
    pub(crate) fn look<'n>(&self, name: &'n str) -> Look<'n, V> {
        let (shard, order) = self.place(name);
        Look { shard: self.shards[shard].load(), order, name }
    }

    /// Sets or removes what a name has.
    pub(crate) fn set(&self, name: &str, value: Option<V>) {
        self.set_all(vec![(name, value)]);
    }

    /// Sets or removes what many names have, each shard once; of one name that comes twice the last counts.
    pub(crate) fn set_all(&self, changes: Vec<(&str, Option<V>)>) {
        let mut placed: Vec<_> = changes.into_iter().map(|(name, value)| (self.place(name), name, value)).collect();
        placed.sort_by_key(|(place, ..)| *place);
        let mut placed = placed.into_iter().peekable();
        while let Some(&((shard, _), ..)) = placed.peek() {
            let before = self.shards[shard].load();
            let before = before.as_ref().map_or(&[][..], |slots| &slots[..]);
            let mut slots: Vec<_> = Vec::with_capacity(before.len() + 1);
            slots.extend(before.iter().cloned());
            while let Some(((_, order), name, value)) = placed.next_if(|((other, _), ..)| *other == shard) {
                let begin = slots.partition_point(|slot| slot.order < order);
                let same = slots[begin..].iter().take_while(|slot| slot.order == order);
                let found = same.enumerate().find(|(_, slot)| slot.name.is(name)).map(|(at, _)| begin + at);
                match (found, value) {
                    (Some(at), Some(value)) => slots[at].value = value,
                    (Some(at), None) => drop(slots.remove(at)),
                    (None, Some(value)) => slots.insert(begin, Slot { order, name: Name::of(name), value }),
                    (None, None) => {}
                }
            }
            slots.shrink_to_fit();
            self.shards[shard].store((!slots.is_empty()).then(|| Arc::new(slots)));
        }
    }

    /// The shard of a name, and its order there.
    fn place(&self, name: &str) -> (usize, u64) {
        let spread = u128::from(self.hash.hash_one(name)) * self.shards.len() as u128;
        ((spread >> u64::BITS) as usize, spread as u64)
    }

    /// What a normalised name has.
    pub(crate) fn get(&self, name: &str) -> Option<V> {
        self.look(name).value().cloned()
    }
}

impl<V> Look<'_, V> {
    /// What the name has.
    pub(crate) fn value(&self) -> Option<&V> {
        let slots = &self.shard.as_deref()?[..];
        let guess = (u128::from(self.order) * slots.len() as u128) >> u64::BITS;
        // From the guess to the first one of that order, whichever way it is.
        let mut at = usize::try_from(guess).unwrap_or_default();
        while at > 0 && slots[at - 1].order >= self.order {
            at -= 1;
        }
        while slots.get(at)?.order < self.order {
            at += 1;
        }
        let mut same = slots[at..].iter().take_while(|slot| slot.order == self.order);
        same.find(|slot| slot.name.is(self.name)).map(|slot| &slot.value)
    }
}

impl Name {
    fn of(name: &str) -> Self {
        let mut bytes = [0; SHORT_MAX];
        match (u8::try_from(name.len()), bytes.get_mut(..name.len())) {
            (Ok(len), Some(short)) => {
                short.copy_from_slice(name.as_bytes());
                Self::Short(len, bytes)
            }
            _ => Self::Long(name.into()),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)) == Some(name.as_bytes()),
            Self::Long(own) => **own == *name,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

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

    #[test]
    fn whoever_looks_keeps_what_was_there() {
        let hosts = Hosts::new();
        hosts.set("a", Some(1));
        let look = hosts.look("a");
        hosts.set("a", Some(2));
        assert_eq!((look.value(), hosts.get("a")), (Some(&1), Some(2)));
    }

    proptest! {
        #[test]
        fn it_has_what_a_plain_map_has(
            changes in proptest::collection::vec(("[ab]{0,3}|[ab]{29,32}", proptest::option::of(0..9)), 0..200),
            batch in 1_usize..50,
        ) {
            let (hosts, mut plain) = (Hosts::of(5), HashMap::new());
            for changes in changes.chunks(batch) {
                hosts.set_all(changes.iter().map(|(name, value)| (name.as_str(), *value)).collect());
                for (name, value) in changes {
                    match value {
                        Some(value) => plain.insert(name.clone(), *value),
                        None => plain.remove(name),
                    };
                }
                for (name, _) in changes {
                    prop_assert_eq!(hosts.get(name), plain.get(name).copied());
                }
            }
        }
    }

    #[test]
    fn it_is_right_in_full_shards_too() {
        let hosts = Hosts::of(3);
        let names: Vec<_> = (0..2000).map(|number| format!("h{number}")).collect();
        let value = |number: u32| (!number.is_multiple_of(3)).then_some(number);
        hosts.set_all(names.iter().map(|name| (name.as_str(), Some(0))).collect());
        hosts.set_all(names.iter().zip(0..).map(|(name, number)| (name.as_str(), value(number))).collect());
        for (name, number) in names.iter().zip(0..) {
            assert_eq!(hosts.get(name), value(number));
            assert_eq!(hosts.get(&format!("{name}x")), None);
        }
    }
}
