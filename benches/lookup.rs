//! What a request pays for a large table, and what a change of it costs. Ratios and figures: docs/benchmarks.md.
//!
//!     cargo bench --features measuring --bench lookup

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "figures are the result, and time is what is measured"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use dormouse_link::{
    Base, Body, Endpoint, EnvironmentId, Epoch, Generation, Host, InstanceId, Object, OrganisationId, Policy, Route,
    State, Term, Update,
};
use dormouse_proxy::measuring::{Asked, Believed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hosts of a table.
const SIZES: [u64; 3] = [1_000, 100_000, 1_000_000];
/// Look-ups that are timed together.
const LOOKUPS: u64 = 2_000_000;
/// Rounds of them; the median counts.
const ROUNDS: usize = 5;
/// Changes that are timed one by one.
const CHANGES: u64 = 2_000;

/// The word that starts the bench as a table that is weighed.
const ROLE: &str = "be-weighed";

/// What the hosts of a table that is weighed lead to.
#[derive(Clone, Copy, Debug)]
enum Leads {
    /// All to one environment.
    Shared,
    /// Each to one of its own, that sleeps.
    Asleep,
    /// Each to one of its own, with an endpoint.
    Served,
}

impl Leads {
    const ALL: [Self; 3] = [Self::Shared, Self::Asleep, Self::Served];

    fn objects(self, size: u64) -> Vec<Object> {
        let of = |number| match self {
            Self::Shared => (0, None),
            Self::Asleep => (number, Some(asleep(number))),
            Self::Served => (number, Some(served(number))),
        };
        let both = |number| {
            let (environment, cell) = of(number);
            [Some(route(number, environment)), cell]
        };
        (0..size).flat_map(both).flatten().collect()
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let words: Vec<String> = std::env::args().collect();
    if let [_, role, size, leads] = &words[..]
        && role == ROLE
    {
        let (size, leads) = (size.parse().expect("a number"), Leads::ALL[leads.parse::<usize>().expect("a number")]);
        let mut table = Believed::default();
        let before = dirty_bytes();
        runtime.block_on(table.take(snapshot(leads.objects(size))));
        return println!("{:.0}", (dirty_bytes() - before) / size as f64);
    }
    println!(
        "hosts | uniform ns | Zipf ns | unknown ns | decided ns | a change us | all us a host | B a host | B with an environment | B with one that is served"
    );
    for size in SIZES {
        let [plain, asleep, served] = Leads::ALL.map(|leads| weighed(size, leads));
        let mut table = Believed::default();
        let first = snapshot(Leads::Asleep.objects(size));
        let began = Instant::now();
        runtime.block_on(table.take(first));
        let load = began.elapsed().as_secs_f64() * 1e6 / size as f64;
        let uniform = lookups(size, |host| table.finds(host), |random| random % size);
        let zipf = lookups(size, |host| table.finds(host), |random| zipf(random, size));
        let unknown = lookups(size, |host| !table.finds(host), |random| size + random % size);
        let asked: Vec<_> = (0..64.min(size)).map(asked).collect();
        let decided = median((0..ROUNDS).map(|_| {
            let began = Instant::now();
            for at in 0..LOOKUPS {
                assert!(table.decides(black_box(&asked[at as usize % asked.len()])));
            }
            began.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
        }));
        let change = median((0..CHANGES).map(|number| {
            let generation = 2 + number;
            let object = Object { version: Generation(generation), ..route(number * 7919 % size, number % 7) };
            let change = update(generation, Base::Since(Generation(generation - 1)), vec![object]);
            let began = Instant::now();
            runtime.block_on(table.take(change));
            began.elapsed().as_secs_f64() * 1e6
        }));
        println!(
            "{size} | {uniform:.0} | {zipf:.0} | {unknown:.0} | {decided:.0} | {change:.1} | {load:.2} | {plain} | {asleep} | {served}"
        );
    }
}

/// Nanoseconds of one look-up, without what it takes to spell the host.
fn lookups(size: u64, found: impl Fn(&str) -> bool, pick: impl Fn(u64) -> u64) -> f64 {
    let run = |found: &dyn Fn(&str) -> bool| {
        let (mut host, mut random) = (String::with_capacity(64), size);
        let began = Instant::now();
        for _ in 0..LOOKUPS {
            random = next(random);
            host.clear();
            spell(&mut host, pick(random));
            assert!(found(black_box(&host)));
        }
        began.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
    };
    median((0..ROUNDS).map(|_| run(&found) - run(&|_| true)))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// SplitMix64.
fn next(state: u64) -> u64 {
    let mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// The n-th host is asked for 1/n as often as the first one; which one that is, is scattered.
fn zipf(random: u64, size: u64) -> u64 {
    let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let rank = (size as f64).powf(uniform) as u64;
    rank.wrapping_mul(7919) % size
}

fn spell(host: &mut String, number: u64) {
    write!(host, "app-{number}.example.com").expect("a string takes it");
}

fn asked(number: u64) -> Asked {
    let text = format!("GET /a/path?q=1 HTTP/1.1\r\nHost: app-{number}.example.com\r\n\r\n");
    Asked::parse(&text).expect("a head")
}

fn object(body: Body) -> Object {
    Object { version: Generation(1), organisation: OrganisationId::new("organisation"), body }
}

fn route(number: u64, environment: u64) -> Object {
    let mut host = String::new();
    spell(&mut host, number);
    let host: Host = host.parse().expect("a host");
    object(Body::Route(Route::new(host, EnvironmentId::new(format!("environment-{environment}")))))
}

fn asleep(number: u64) -> Object {
    environment(number, State::Asleep, Vec::new())
}

fn served(number: u64) -> Object {
    let instance = InstanceId::new(format!("instance-{number}"));
    environment(number, State::Ready, vec![Endpoint::new(instance, SocketAddr::from(([10, 0, 0, 1], 80)))])
}

fn environment(number: u64, state: State, endpoints: Vec<Endpoint>) -> Object {
    object(Body::Environment(Box::new(dormouse_link::Environment {
        id: EnvironmentId::new(format!("environment-{number}")),
        app: "app".parse().expect("a label"),
        name: "test".parse().expect("a label"),
        deployment: 1,
        state,
        epoch: Epoch(1),
        endpoints,
        policy: Policy::default(),
    })))
}

fn snapshot(put: Vec<Object>) -> Update {
    update(1, Base::Snapshot, put)
}

fn update(generation: u64, base: Base, put: Vec<Object>) -> Update {
    Update { term: Term(1), generation: Generation(generation), base, put, remove: Vec::new() }
}

/// Bytes of a host in a table, in a process of its own that keeps no memory that it does not need.
fn weighed(size: u64, leads: Leads) -> String {
    let own = std::env::current_exe().expect("a path");
    let words = [ROLE.to_owned(), size.to_string(), (leads as usize).to_string()];
    let told = Command::new(own).args(words).env("MIMALLOC_PURGE_DELAY", "0").output().expect("it runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).trim().to_owned()
}

/// Memory that is this process's alone.
fn dirty_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).expect("a line of it");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024.0
}
