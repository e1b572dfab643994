//! P71: addresses go from one application to another, and no answer goes with them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::crash::times;
use crate::http::Visitor;
use crate::narrow::ADDRESSES;
use crate::source::Source;
use crate::world::{SOON, World};

const APPS: [&str; 2] = ["shop", "blog"];

/// Visitors of each application; every other one with a new connection for each request.
const VISITORS: usize = 4;

/// How long a request runs, in milliseconds.
const RUNS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p71_an_address_that_another_application_had_brings_none_of_its_visitors() {
    take_turns(World::narrow_fake().await, times("DORMOUSE_TURNS", 16)).await;
}

mod docker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p71_an_address_that_another_application_had_brings_none_of_its_visitors() {
        take_turns(World::narrow_docker().await, times("DORMOUSE_TURNS_DOCKER", 12)).await;
    }
}

/// What visitors and the scenario share.
#[derive(Default)]
struct Crowd {
    /// Nobody asks this application.
    calm: [AtomicBool; APPS.len()],
    done: AtomicBool,
    asked: AtomicUsize,
}

/// Both applications are deployed again and again, beside each other, and fall asleep in between and are woken.
async fn take_turns(world: World, turns: u32) {
    for app in APPS {
        world.create(app).await;
        world.pushed(app, &Source::says(&says(app)).answers_after(RUNS).drops()).await;
    }
    let crowd = Arc::new(Crowd::default());
    let mut visitors = tokio::task::JoinSet::new();
    for number in 0..APPS.len() * VISITORS {
        let visitor = if number % 4 < 2 { world.visitor() } else { world.fleeting_visitor() };
        visitors.spawn(ask(visitor, number, crowd.clone()));
    }
    let (shop, blog) = tokio::join!(turns_of(&world, 0, turns, &crowd), turns_of(&world, 1, turns, &crowd));
    crowd.done.store(true, Ordering::SeqCst);
    let wrong = visitors.join_all().await.concat();
    assert_eq!(wrong, [""; 0], "of {} requests", crowd.asked.load(Ordering::SeqCst));
    assert!(shop.union(&blog).count() <= ADDRESSES, "{shop:?} {blog:?}");
    assert!(shop.intersection(&blog).count() > 0, "none went from one to the other: {shop:?} {blog:?}");
}

/// Returns the addresses that the application had.
async fn turns_of(world: &World, app: usize, turns: u32, crowd: &Crowd) -> BTreeSet<String> {
    let (calm, app) = (&crowd.calm[app], APPS[app]);
    let mut addresses = BTreeSet::new();
    for turn in 0..turns {
        if turn % 4 == 0 {
            calm.store(true, Ordering::SeqCst);
            falls_asleep(world, app).await;
            calm.store(false, Ordering::SeqCst);
        } else if turn % 4 == 2 {
            // With visitors about it may stay awake.
            world.put_to_sleep(app, "test").await;
        }
        until_there_is_room(world).await;
        let end = world.deploy(app, "test").await;
        assert!(end.ok, "turn {turn}: {end:?}");
        let line = end.lines.iter().find_map(|line| line.strip_prefix("Starting a container")).expect("it is told");
        addresses.insert(line.rsplit("at ").next().expect("where").trim_end_matches('.').to_owned());
    }
    addresses
}

/// Waits until replaced instances have given back their addresses, on a machine that is slow to drain them.
async fn until_there_is_room(world: &World) {
    let deadline = Instant::now() + SOON;
    while world.engine.instances().await.expect("the engine answers").len() > ADDRESSES / 2 {
        assert!(Instant::now() < deadline, "no instance was removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn says(app: &str) -> String {
    format!("this is {app} and no other")
}

async fn falls_asleep(world: &World, app: &str) {
    let deadline = Instant::now() + SOON;
    while !world.put_to_sleep(app, "test").await.ok {
        assert!(Instant::now() < deadline, "{app} did not fall asleep");
    }
}

/// Asks until it is over; returns what was not as it should be.
async fn ask(visitor: Visitor, number: usize, crowd: Arc<Crowd>) -> Vec<String> {
    let app = APPS[number % APPS.len()];
    let host = format!("{app}-test.localhost");
    let mut wrong = Vec::new();
    for turn in 0_u64.. {
        if crowd.done.load(Ordering::SeqCst) {
            break;
        }
        // Pauses of different lengths, long enough to fall asleep in.
        tokio::time::sleep(Duration::from_millis((turn * 37 + number as u64 * 11) % 90)).await;
        if crowd.calm[number % APPS.len()].load(Ordering::SeqCst) {
            continue;
        }
        crowd.asked.fetch_add(1, Ordering::SeqCst);
        match visitor.get(&host, "/").await {
            Ok(answer) if answer.status == 200 && answer.body.contains(&says(app)) => {}
            Ok(answer) => wrong.push(format!("{app} was asked: {} {}", answer.status, answer.body)),
            Err(error) => wrong.push(format!("{app} was asked: {error:?}")),
        }
    }
    wrong
}
