//! How many requests are let through in a time, of an environment and of each client.
//!
//! The generic cell rate algorithm: of each there is one moment, up to which its requests are paid for. A request moves it on
//! by what one costs, and is let through unless it lies more than a burst ahead. So a rate is even, a burst is exact, and
//! nothing is to be refilled.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dormouse_link::policy::{Limits, Rate};
use tokio::time::Instant;

use crate::clients::{Client, Clients, make_room};
use crate::decide::refuse::Reason;

/// A rate, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Of one request.
    cost: u64,
    /// How far requests may be paid for ahead.
    ahead: u64,
}

impl Pace {
    fn of(rate: Rate) -> Self {
        let cost = u64::from(rate.per_seconds.get()) * 1_000_000_000 / u64::from(rate.requests.get());
        Self { cost, ahead: cost * u64::from(rate.burst.unwrap_or(rate.requests).get()) }
    }

    /// The moment up to which requests are paid for after one more at `now`, of one up to which they are; or how long to wait.
    pub(super) fn pay(self, paid: u64, now: u64) -> Result<u64, Duration> {
        let next = paid.max(now) + self.cost;
        match (next - now).checked_sub(self.ahead) {
            None | Some(0) => Ok(next),
            Some(over) => Err(Duration::from_nanos(over)),
        }
    }
}

/// The rates of an environment, and how far they are used.
#[derive(Debug)]
pub(super) struct Rates {
    of: [Option<Rate>; 2],
    start: Instant,
    all: AtomicU64,
    clients: Clients<u64>,
}

impl Rates {
    pub(super) fn new(limits: Option<&Limits>) -> Self {
        Self { of: said(limits), start: Instant::now(), all: AtomicU64::new(0), clients: Clients::default() }
    }

    /// Whether they are those of `limits`.
    pub(super) fn are_of(&self, limits: Option<&Limits>) -> bool {
        self.of == said(limits)
    }

    /// Counts a request. What is refused for its client's rate does not count for the environment's.
    pub(super) fn count(&self, now: Instant, client: Option<IpAddr>) -> Result<(), Reason> {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let [all, per_client] = self.of.map(|rate| rate.map(Pace::of));
        let too_many = |retry_after| Reason::TooManyRequests { retry_after };
        if let Some(pace) = per_client {
            self.pay_of(pace, Client::of(client), now).map_err(too_many)?;
        }
        let Some(pace) = all else { return Ok(()) };
        let mut paid = self.all.load(Ordering::Relaxed);
        loop {
            let next = pace.pay(paid, now).map_err(too_many)?;
            match self.all.compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => paid = other,
            }
        }
    }

    fn pay_of(&self, pace: Pace, client: Client, now: u64) -> Result<(), Duration> {
        let mut shard = self.clients.shard(client);
        if let Some(paid) = shard.get_mut(&client) {
            *paid = pace.pay(*paid, now)?;
            return Ok(());
        }
        make_room(&mut shard, |paid| *paid <= now);
        shard.insert(client, pace.pay(now, now)?);
        Ok(())
    }
}

fn said(limits: Option<&Limits>) -> [Option<Rate>; 2] {
    limits.map_or([None; 2], |limits| [limits.rate, limits.rate_per_client])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clients::CLIENTS_MAX;

    fn rate(requests: u32, per_seconds: u32, burst: u32) -> Rate {
        let number = |number: u32| number.try_into().expect("not 0");
        Rate { requests: number(requests), per_seconds: number(per_seconds), burst: Some(number(burst)) }
    }

    fn rates(all: Option<Rate>, client: Option<Rate>) -> Rates {
        Rates::new(Some(&Limits { rate: all, rate_per_client: client, ..Limits::default() }))
    }

    fn is_let(rates: &Rates, millis: u64, client: &str) -> bool {
        rates.count(rates.start + Duration::from_millis(millis), client.parse().ok()).is_ok()
    }

    #[test]
    fn a_burst_is_exact_and_then_requests_come_evenly() {
        let rates = rates(Some(rate(10, 1, 3)), None);
        let let_at = |millis| is_let(&rates, millis, "192.0.2.1");
        assert_eq!(
            [0, 0, 0, 0, 99, 100, 100, 199, 200].map(let_at),
            [true, true, true, false, false, true, false, false, true]
        );
        assert_eq!(
            [60_000, 60_000, 60_000, 60_000].map(let_at),
            [true, true, true, false],
            "a burst is not saved up twice"
        );
    }

    #[test]
    fn the_wait_that_is_told_is_enough_and_no_shorter_one_is() {
        let pace = Pace::of(rate(3, 10, 2));
        let paid = pace.pay(pace.pay(0, 0).expect("one"), 0).expect("two");
        let wait = u64::try_from(pace.pay(paid, 0).expect_err("three").as_nanos()).expect("short");
        assert!(pace.pay(paid, wait).is_ok() && pace.pay(paid, wait - 1).is_err());
    }

    #[test]
    fn a_clients_requests_are_its_own_and_a_64_of_ipv6_is_one_client() {
        let rates = rates(None, Some(rate(1, 1, 1)));
        for (one, same, other) in
            [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1")]
        {
            assert!(is_let(&rates, 0, one) && !is_let(&rates, 0, same) && is_let(&rates, 0, other), "{one}");
        }
    }

    #[test]
    fn who_is_over_its_own_rate_takes_nothing_of_the_others() {
        let rates = rates(Some(rate(10, 1, 10)), Some(rate(1, 1, 1)));
        let flood = (0..1000).filter(|_| is_let(&rates, 0, "192.0.2.1")).count();
        let others = (0..100).filter(|n| is_let(&rates, 0, &format!("198.51.100.{n}"))).count();
        assert_eq!((flood, others), (1, 9));
    }

    #[test]
    fn no_more_clients_are_remembered_than_the_limit_and_newcomers_are_served() {
        let rates = rates(None, Some(rate(1, 3600, 1)));
        for number in 0..u32::try_from(2 * CLIENTS_MAX).expect("small") {
            let client = std::net::Ipv4Addr::from_bits(number);
            assert!(rates.count(rates.start, Some(client.into())).is_ok(), "{client}");
        }
        assert!(rates.clients.len() <= CLIENTS_MAX);
    }

    proptest! {
        /// In no span of time more is let through than a burst, and what the rate makes of the span.
        #[test]
        fn never_more_than_a_burst_and_the_rate(
            steps in proptest::collection::vec(0u64..500, 1..200),
            (requests, per_seconds, burst) in (1u32..50, 1u32..5, 1u32..20),
        ) {
            let pace = Pace::of(rate(requests, per_seconds, burst));
            let (mut paid, mut now, mut passed) = (0, 0, Vec::new());
            for step in steps {
                now += step * 1_000_000;
                if let Ok(next) = pace.pay(paid, now) {
                    paid = next;
                    passed.push(now);
                }
            }
            for (first, &begin) in passed.iter().enumerate() {
                for (last, &end) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (end - begin) / pace.cost;
                    let (count, span) = ((last - first) as u64 + 1, (end - begin) / 1_000_000);
                    prop_assert!(count <= most, "{} within {} ms", count, span);
                }
            }
        }
    }
}
