//! Which endpoint a request gets, of those that one version of a cell offers.
//!
//! The feed makes a [`Plan`] with each version; a request picks by it, reading counters of instances and writing none. In
//! this order: the endpoints of its set that have a weight and are not left out; those with weight 0; the other set; and
//! whoever is left, even one that is left out. An endpoint that could not be connected to by this request is never picked.
//!
//! Of a set at most half is left out ([`super::health`]), whatever the instances' words say: those that come back last. A
//! canary may be left out whole, for there are the others.

mod set;

use std::net::IpAddr;
use std::sync::Arc;

use dormouse_link::{By, Canary, Endpoint, Environment, FieldToken, Sign, masked_v6};

pub(crate) use set::Ask;
use set::{Fits, Set};

use super::cell::Instance;
use super::health::Standing;
use super::sticky::{Sticky, StickyKey, Tag};
use crate::decide::fields::Fields;
use crate::decide::headers::Scheme;

/// The bits of an IPv6 address that are one client's: the rest changes with each of its devices, and daily.
const V6_CLIENT_BITS: u8 = 64;
/// Steps of a sequence that comes near every share soon: the golden ratio, as a part of 2^64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// How the endpoints of one version are chosen among.
#[derive(Debug, Default)]
pub(crate) enum Plan {
    /// There is one, or none.
    #[default]
    Only,
    Spread(Box<Spread>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spread {
    rule: Rule,
    main: Set,
    canary: Option<(Set, Canary)>,
}

#[derive(Debug)]
enum Rule {
    LeastBusy,
    RoundRobin,
    SourceHash { header: Option<FieldToken>, seeds: Box<[u64]> },
    Sticky(Sticky),
}

/// What a request shows that matters for its endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Of what tells it apart.
    key: Option<u64>,
    /// The instance it had before.
    shown: Option<Tag>,
    /// It asks for the canary.
    canary: bool,
}

impl Plan {
    pub(crate) fn new(environment: &Environment, key: &StickyKey) -> Self {
        let endpoints = &environment.endpoints;
        let usual = Box::default();
        let balance = environment.policy.balance.as_ref().unwrap_or(&usual);
        if endpoints.len() < 2 && !matches!(balance.by, By::Sticky { .. }) {
            return Self::Only;
        }
        let rule = match &balance.by {
            By::LeastBusy => Rule::LeastBusy,
            By::RoundRobin => Rule::RoundRobin,
            By::SourceHash { header } => {
                let seeds = endpoints.iter().map(|endpoint| hash(endpoint.instance.as_str().as_bytes()));
                Rule::SourceHash { header: header.clone(), seeds: seeds.collect() }
            }
            By::Sticky { cookie } => Rule::Sticky(Sticky::new(key, &environment.id, endpoints, cookie.as_ref())),
        };
        let is_canary = |endpoint: &Endpoint| balance.canary.as_ref().is_some_and(|canary| canary.has(endpoint));
        let (canary, main): (Vec<_>, Vec<_>) = (0..endpoints.len()).partition(|&at| is_canary(&endpoints[at]));
        // Where all are, none is.
        let (canary, main) = if main.is_empty() { (main, canary) } else { (canary, main) };
        let out_max = main.len() / 2;
        let canary = balance.canary.as_ref().filter(|_| !canary.is_empty()).map(|said| {
            let all = canary.len();
            (Set::new(endpoints, canary, all), said.clone())
        });
        Self::Spread(Box::new(Spread { rule, main: Set::new(endpoints, main, out_max), canary }))
    }

    /// What a request shows.
    pub(crate) fn wish(&self, client: Option<IpAddr>, fields: Fields<'_>) -> Wish {
        match self {
            Self::Only => Wish::default(),
            Self::Spread(spread) => spread.wish(client, fields),
        }
    }

    /// The place of an endpoint.
    pub(crate) fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        match self {
            Self::Only => Some(0).filter(|&only| only < ask.instances.len() && !(ask.tried)(only)),
            Self::Spread(spread) => spread.pick(ask),
        }
    }

    /// Whether the endpoint at a place may be left out, beside those that are.
    pub(crate) fn may_go(&self, instances: &[Arc<Instance>], index: usize, now: u64) -> bool {
        let Self::Spread(spread) = self else { return false };
        let set = spread.set_of(index);
        let is_out = |at: &usize| matches!(instances[*at].health.standing(now), Standing::Out(_));
        set.all().filter(|&at| at != index).filter(is_out).count() < set.out_max
    }

    /// The field that is set so that the request's client comes back to an endpoint.
    pub(crate) fn cookie(&self, index: usize, wish: &Wish, scheme: Scheme) -> Option<String> {
        match self {
            Self::Spread(spread) => match &spread.rule {
                Rule::Sticky(sticky) => sticky.set(index, wish.shown.as_ref(), scheme),
                Rule::LeastBusy | Rule::RoundRobin | Rule::SourceHash { .. } => None,
            },
            Self::Only => None,
        }
    }
}

impl Spread {
    fn wish(&self, client: Option<IpAddr>, fields: Fields<'_>) -> Wish {
        let key = match &self.rule {
            Rule::SourceHash { header, .. } => {
                let named = header.as_ref().and_then(|name| fields.all(name.as_str()).next());
                named.map(hash).or_else(|| client.map(of_client))
            }
            Rule::LeastBusy | Rule::RoundRobin | Rule::Sticky(_) => None,
        };
        let shown = match &self.rule {
            Rule::Sticky(sticky) => sticky.shown(fields),
            Rule::LeastBusy | Rule::RoundRobin | Rule::SourceHash { .. } => None,
        };
        let canary = self.canary.as_ref().is_some_and(|(_, canary)| asks_for(canary, fields));
        Wish { key, shown, canary }
    }

    fn set_of(&self, index: usize) -> &Set {
        match &self.canary {
            Some((canary, _)) if canary.all().any(|at| at == index) => canary,
            _ => &self.main,
        }
    }

    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let canary = self.canary.as_ref().map(|(set, _)| set);
        if let Some(index) = self.had(ask)
            && !matches!(ask.fits(self.set_of(index), index), Fits::No)
        {
            return Some(index);
        }
        let sets = if self.goes_to_canary(ask) { [canary, Some(&self.main)] } else { [Some(&self.main), canary] };
        let picked = sets.into_iter().flatten().find_map(|set| self.pick_of(set, ask));
        picked.or_else(|| (0..ask.instances.len()).filter(|&at| !(ask.tried)(at)).min_by_key(|&at| ask.busy(at)))
    }

    /// The endpoint that its client had before, unless it asks for the canary now, and that is none.
    fn had(&self, ask: &Ask<'_>) -> Option<usize> {
        let Rule::Sticky(sticky) = &self.rule else { return None };
        let index = sticky.find(ask.wish.shown.as_ref()?)?;
        let is_canary = !std::ptr::eq(self.set_of(index), &self.main);
        (is_canary || !ask.wish.canary).then_some(index)
    }

    fn goes_to_canary(&self, ask: &Ask<'_>) -> bool {
        let Some((_, canary)) = &self.canary else { return false };
        let percent = u64::from(u8::from(canary.percent));
        let drawn = || match ask.wish.key {
            // The same client gets the same set.
            Some(key) => mix(key ^ GOLDEN) % 100,
            None => ask.dice.roll() % 100,
        };
        ask.wish.canary || (percent > 0 && drawn() < percent)
    }

    fn pick_of(&self, set: &Set, ask: &Ask<'_>) -> Option<usize> {
        let picked = match (&self.rule, ask.wish.key) {
            (Rule::RoundRobin, _) => set.next(ask),
            (Rule::SourceHash { seeds, .. }, Some(key)) => set.nearest(ask, seeds, key),
            _ => set.less_busy_of_two(ask),
        };
        picked.or_else(|| ask.least_busy(set, &set.members)).or_else(|| ask.least_busy(set, &set.spare))
    }
}

fn asks_for(canary: &Canary, fields: Fields<'_>) -> bool {
    let is = |sign: &Sign, value: &[u8]| sign.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == value);
    let header = canary.header.as_ref().is_some_and(|sign| fields.all(sign.name.as_str()).any(|value| is(sign, value)));
    let cookie = || {
        let sign = canary.cookie.as_ref()?;
        Some(is(sign, fields.cookie(sign.name.as_str())?))
    };
    header || cookie().unwrap_or(false)
}

fn of_client(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&masked_v6(address, V6_CLIENT_BITS).octets()),
    }
}

/// The same on every edge and in every version: FNV-1a, mixed.
fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)))
}

/// Each bit of the number in every bit of the result (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
