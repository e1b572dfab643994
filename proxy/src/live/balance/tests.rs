use std::collections::HashMap;
use std::time::Duration;

use dormouse_link::{Balance, EnvironmentId, Epoch, InstanceId, Label, Percent, Policy, State};
use proptest::prelude::*;

use std::sync::atomic::Ordering;

use super::*;
use crate::config::Limits;
use crate::dice::Dice;
use crate::live::signals::Signals;
use crate::live::sticky::StickySecret;

/// So many picks that a share is met to a hundredth or two.
const PICKS: usize = 20_000;

struct World {
    environment: Environment,
    plan: Plan,
    instances: Vec<Arc<Instance>>,
    dice: Dice,
    signals: Arc<Signals>,
    tried: Vec<usize>,
}

impl World {
    fn new(balance: Balance, weights: &[u16]) -> Self {
        let names: Vec<_> = (0..weights.len()).map(|number| format!("instance-{number}")).collect();
        let endpoint = |(name, weight): (&String, &u16)| Endpoint {
            weight: *weight,
            ..Endpoint::new(InstanceId::new(name), ([127, 0, 0, 1], 9000).into())
        };
        Self::of(balance, names.iter().zip(weights).map(endpoint).collect())
    }

    fn of(balance: Balance, endpoints: Vec<Endpoint>) -> Self {
        let label = |text: &str| text.parse::<Label>().expect("a label");
        let environment = Environment {
            id: EnvironmentId::new("e"),
            app: label("a"),
            name: label("test"),
            deployment: 1,
            state: State::Ready,
            epoch: Epoch(1),
            endpoints,
            policy: Policy { balance: Some(Box::new(balance)), ..Policy::default() },
        };
        let plan = Plan::new(&environment, &StickyKey::new(&StickySecret::new([7; 32])));
        let instances = environment.endpoints.iter().map(|endpoint| Instance::new(endpoint.instance.clone()));
        let (instances, signals) = (instances.map(Arc::new).collect(), Signals::new().0);
        Self { environment, plan, instances, dice: Dice::default(), signals, tried: Vec::new() }
    }

    /// The same without one of its endpoints.
    fn without(&self, gone: usize) -> Self {
        let mut endpoints = self.environment.endpoints.clone();
        endpoints.remove(gone);
        Self::of(*self.environment.policy.balance.clone().expect("a policy"), endpoints)
    }

    fn pick(&self, wish: &Wish) -> Option<usize> {
        let tried = |index: usize| self.tried.contains(&index);
        let (instances, dice, signals) = (&self.instances[..], &self.dice, &*self.signals);
        self.plan.pick(&Ask { instances, wish, tried: &tried, dice, signals })
    }

    fn wish(&self, head: &str) -> Wish {
        self.plan.wish(None, Fields::Lines(head.as_bytes()))
    }

    fn name(&self, index: usize) -> &str {
        self.environment.endpoints[index].instance.as_str()
    }

    /// How often each is picked, of so many picks.
    fn shares(&self, wish: &Wish, picks: usize) -> Vec<f64> {
        let mut counts = vec![0.0; self.instances.len()];
        for _ in 0..picks {
            counts[self.pick(wish).expect("an endpoint")] += 1.0;
        }
        counts.into_iter().map(|count| count / picks as f64).collect()
    }

    /// Fails an instance until it is out, or may not be.
    fn fail(&self, index: usize) {
        let (limits, now) = (Limits::default(), self.signals.now());
        for _ in 0..limits.eject_after {
            let may_go = || self.plan.may_go(&self.instances, index, now);
            self.instances[index].health.failed(now, may_go, 0, &limits);
        }
    }

    fn out(&self) -> Vec<usize> {
        let now = self.signals.now();
        let is_out = |index: &usize| matches!(self.instances[*index].health.standing(now), Standing::Out(_));
        (0..self.instances.len()).filter(is_out).collect()
    }
}

fn by(by: By) -> Balance {
    Balance { by, canary: None }
}

fn canary(by: By, percent: u8) -> Balance {
    let sign = |name: &str, value: Option<&str>| {
        Some(Sign { name: name.parse().expect("a name"), value: value.map(ToOwned::to_owned) })
    };
    let canary = Canary {
        group: None,
        instances: vec![InstanceId::new("instance-0")],
        percent: Percent::try_from(percent).expect("a share"),
        header: sign("X-Canary", Some("yes")),
        cookie: sign("beta", None),
    };
    Balance { by, canary: Some(canary) }
}

fn near(share: f64, wanted: f64) -> bool {
    (share - wanted).abs() < 0.02
}

fn head(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn weights_are_shares_and_none_is_for_when_nobody_else_can() {
    for rule in [By::LeastBusy, By::RoundRobin, By::Sticky { cookie: None }, By::SourceHash { header: None }] {
        let world = World::new(by(rule.clone()), &[1, 3, 0, 6]);
        let shares = world.shares(&Wish::default(), PICKS);
        for (share, wanted) in shares.iter().zip([0.1, 0.3, 0.0, 0.6]) {
            assert!(near(*share, wanted), "{rule:?}: {shares:?}");
        }
        let world = World { tried: vec![0, 1, 3], ..world };
        assert_eq!(world.pick(&Wish::default()), Some(2), "{rule:?}");
        let world = World { tried: vec![0, 1, 2, 3], ..world };
        assert_eq!(world.pick(&Wish::default()), None);
        let zero = World::new(by(rule.clone()), &[0, 0]);
        assert!(near(zero.shares(&Wish::default(), PICKS)[0], 0.5), "{rule:?}");
    }
}

#[test]
fn requests_that_run_count_for_their_endpoints_weight() {
    let world = World::new(by(By::LeastBusy), &[1, 4]);
    for _ in 0..500 {
        let index = world.pick(&Wish::default()).expect("an endpoint");
        world.instances[index].in_flight.fetch_add(1, Ordering::Relaxed);
    }
    assert!((98..=102).contains(&world.instances[0].in_flight.load(Ordering::Relaxed)));
}

#[test]
fn of_equally_busy_ones_the_far_slower_gets_none_until_it_is_forgotten() {
    let world = World::new(by(By::LeastBusy), &[1, 1]);
    let now = world.signals.now();
    world.instances[0].latency.note(now, 5_000);
    world.instances[1].latency.note(now, 6_000);
    assert!(near(world.shares(&Wish::default(), PICKS)[0], 0.5), "much the same");
    world.instances[1].latency.note(now, 3_600_000_000);
    assert_eq!(world.shares(&Wish::default(), 100)[1], 0.0);
    world.instances[0].in_flight.fetch_add(1, Ordering::Relaxed);
    assert_eq!(world.shares(&Wish::default(), 100)[1], 1.0, "what runs counts first");
}

#[test]
fn round_robin_is_one_after_the_other_and_passes_over_who_cannot() {
    let world = World::new(by(By::RoundRobin), &[2, 2, 2]);
    let picks = || world.pick(&Wish::default()).expect("an endpoint");
    assert_eq!([picks(), picks(), picks(), picks()], [0, 1, 2, 0]);
    let world = World { tried: vec![1], ..world };
    let picks = || world.pick(&Wish::default()).expect("an endpoint");
    assert_eq!([picks(), picks(), picks(), picks()], [2, 0, 2, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn when_one_of_many_leaves_only_its_own_clients_move(
        count in 2usize..12, gone in 0usize..12, weights in prop::collection::vec(1u16..4, 12), salt: u32,
    ) {
        let gone = gone % count;
        let header = Some("X-User".parse().expect("a name"));
        let before = World::new(by(By::SourceHash { header }), &weights[..count]);
        let after = before.without(gone);
        let mut had = 0u32;
        for user in 0..500 {
            let head = head(&format!("x-user: {salt}-{user}\r\n"));
            let was = before.name(before.pick(&before.wish(&head)).expect("an endpoint")).to_owned();
            let is = after.name(after.pick(&after.wish(&head)).expect("an endpoint")).to_owned();
            let had_gone = was == before.name(gone);
            had += u32::from(had_gone);
            prop_assert!(had_gone || was == is, "{user} went from {was} to {is}");
        }
        // And they are as many as its weight says, which is how much moves.
        let share = f64::from(weights[gone]) / weights[..count].iter().copied().map(f64::from).sum::<f64>();
        prop_assert!((f64::from(had) / 500.0 - share).abs() < 0.12, "{had} of 500 for {share}");
    }

    #[test]
    fn at_most_half_are_left_out_whoever_fails(count in 2usize..9, fails in prop::collection::vec(0usize..9, 0..40)) {
        let world = World::new(by(By::LeastBusy), &vec![1; count]);
        for index in fails {
            world.fail(index % count);
            prop_assert!(world.out().len() <= count / 2);
            prop_assert!(world.pick(&Wish::default()).is_some());
        }
        let out = world.out();
        for _ in 0..50 {
            prop_assert!(!out.contains(&world.pick(&Wish::default()).expect("an endpoint")));
        }
    }
}

#[test]
fn even_if_more_than_half_were_sent_out_half_get_requests() {
    let (limits, endpoints) = (Limits { eject_after: 1, ..Limits::default() }, 5);
    for rule in [By::LeastBusy, By::RoundRobin] {
        let world = World::new(by(rule), &[1; 5]);
        // As two workers may at the same moment.
        for index in 0..endpoints {
            world.instances[index].health.failed(world.signals.now(), || true, 0, &limits);
        }
        let shares = world.shares(&Wish::default(), 2000);
        assert_eq!(shares.iter().filter(|share| **share > 0.0).count(), 3, "{shares:?}");
    }
}

#[test]
fn whoever_was_left_out_gets_one_request_to_see_how_it_is() {
    let world = World::new(by(By::RoundRobin), &[1, 1, 1]);
    let limits = Limits { eject_after: 1, eject: Duration::ZERO, ..Limits::default() };
    world.instances[1].health.failed(world.signals.now(), || true, 0, &limits);
    let picks: Vec<_> = (0..30).filter_map(|_| world.pick(&Wish::default())).collect();
    assert_eq!(picks.iter().filter(|&&index| index == 1).count(), 1, "{picks:?}");
    assert!(world.instances[1].health.answered(|| world.signals.now()));
    assert!(near(world.shares(&Wish::default(), 3000)[1], 1.0 / 3.0));
}

#[test]
fn a_client_keeps_its_endpoint_by_its_address_and_one_of_ipv6_by_its_network() {
    let world = World::new(by(By::SourceHash { header: Some("X-User".parse().expect("a name")) }), &[1; 8]);
    let of = |address: &str, fields: &str| {
        let wish = world.plan.wish(address.parse().ok(), Fields::Lines(head(fields).as_bytes()));
        world.pick(&wish).expect("an endpoint")
    };
    assert_eq!(of("192.0.2.1", ""), of("192.0.2.1", ""));
    assert_eq!(of("2001:db8::1", ""), of("2001:db8::ffff:1", ""));
    assert_eq!(of("192.0.2.1", "x-user: u\r\n"), of("192.0.2.2", "X-User: u\r\n"));
    let all: HashMap<_, u32> = (0..=255).map(|last| (of(&format!("192.0.2.{last}"), ""), 1)).collect();
    assert_eq!(all.len(), 8, "everybody gets some");
}

#[test]
fn a_canary_gets_its_share_and_whoever_asks_for_it() {
    for rule in [By::LeastBusy, By::RoundRobin] {
        let world = World::new(canary(rule, 10), &[1, 1, 1, 1]);
        let wish = world.wish(&head("x-canary: no\r\ncookie: betas=1\r\n"));
        let shares = world.shares(&wish, PICKS);
        for (share, wanted) in shares.iter().zip([0.1, 0.3, 0.3, 0.3]) {
            assert!(near(*share, wanted), "{shares:?}");
        }
        for asks in ["x-canary: yes\r\n", "Cookie: a=b; beta=anything\r\n"] {
            assert_eq!(world.shares(&world.wish(&head(asks)), 100)[0], 1.0, "{asks}");
        }
        let none = World::new(canary(By::LeastBusy, 0), &[1, 1]);
        assert_eq!(none.shares(&none.wish(&head("")), 500)[0], 0.0);
        let all = World::new(canary(By::LeastBusy, 100), &[1, 1]);
        assert_eq!(all.shares(&all.wish(&head("")), 500)[0], 1.0);
    }
}

#[test]
fn a_canary_that_fails_is_left_out_whole_and_the_others_are_not_for_it() {
    let world = World::new(canary(By::LeastBusy, 50), &[1, 1, 1]);
    world.fail(0);
    assert_eq!(world.out(), [0]);
    assert_eq!(world.shares(&world.wish(&head("x-canary: yes\r\n")), 200)[0], 0.0);
    world.fail(1);
    world.fail(2);
    assert_eq!(world.out(), [0, 1], "of the others at most half");
}

#[test]
fn by_hash_the_same_client_stays_on_its_side_of_a_canary() {
    let world = World::new(canary(By::SourceHash { header: Some("x-user".parse().expect("a name")) }, 20), &[1, 1, 1]);
    let pick = |user: u32| world.pick(&world.wish(&head(&format!("x-user: {user}\r\n")))).expect("an endpoint");
    let on_canary = (0..3000).filter(|user| {
        let first = pick(*user);
        assert_eq!(first, pick(*user));
        first == 0
    });
    assert!(near(on_canary.count() as f64 / 3000.0, 0.2));
}

#[test]
fn by_cookie_a_browser_comes_back_while_its_instance_is_there() {
    let world = World::new(by(By::Sticky { cookie: Some("shop".parse().expect("a name")) }), &[1, 1, 1, 0]);
    let set = world.plan.cookie(3, &Wish::default(), Scheme::Http).expect("a cookie");
    assert!(set.starts_with("shop="));
    let wish = world.wish(&head(&format!("Cookie: {}\r\n", set.split(';').next().expect("a pair"))));
    assert_eq!(world.shares(&wish, 200)[3], 1.0, "even without a weight: so it is drained");
    assert_eq!(world.plan.cookie(3, &wish, Scheme::Http), None);
    assert!(world.plan.cookie(0, &wish, Scheme::Http).is_some(), "where it went elsewhere");
    let world = World { tried: vec![3], ..world };
    assert_eq!(world.shares(&wish, 200)[3], 0.0);
    let world = World { tried: Vec::new(), ..world };
    world.fail(3);
    assert_eq!(world.shares(&wish, 200)[3], 0.0, "it is left out");
    let less = world.without(3);
    assert!(less.pick(&wish).is_some(), "it is gone");
    let one = less.without(2).without(1);
    assert!(one.plan.cookie(0, &Wish::default(), Scheme::Http).is_some(), "one becomes more");
}
