//! What happens to Docker itself, on an engine of the test's own: stopped, killed, hung, and changed by hand.
//!
//! Live is served wherever its process lives; a wake that cannot be fails soon, with a reason; all of it mends itself when the
//! engine is back. Each application says its own words, and nobody is ever answered in another's.

use std::time::Duration;

use tokio::time::Instant;

use crate::crowd::Crowd;
use crate::http::{Answer, Visitor};
use crate::private_engine::{LiveRestore, PrivateEngine};
use crate::world::{SOON, World};

/// A wake without an engine fails within this time.
const FAILS_WITHIN: Duration = Duration::from_secs(10);

/// What sleeps is woken again within this time of the engine's return.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// What ends after this time is not failing; the row's clock may be a little behind the visitor's.
const STEADY: Duration = dormouse_control::plan::STEADY.saturating_add(Duration::from_secs(2));

/// Where the engine itself is slow: after what it takes for so many containers by hand. What sleeps has two, which are
/// removed, made and started while as much is done for Live.
const STARTS_BY_HAND: u32 = 8;

/// Two applications: one with a Live that serves, both with a Test that sleeps.
async fn two_applications(engine: &PrivateEngine) -> World {
    let world = World::docker_at(&engine.address()).await;
    world.deployed("shop", "words of the shop").await;
    world.deployed("blog", "words of the blog").await;
    assert!(world.deploy("shop", "live").await.ok);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    assert!(world.put_to_sleep("blog", "test").await.ok);
    world
}

/// The words that only this host's application says.
fn words(host: &str) -> &'static str {
    if host.starts_with("shop") { "words of the shop" } else { "words of the blog" }
}

const HOSTS: [&str; 3] = ["shop.localhost", "shop-test.localhost", "blog-test.localhost"];

/// One visit; whatever is answered, it is not in another's words. Returns the status.
async fn visit(visitor: &Visitor, host: &str) -> u16 {
    visited(visitor, host).await.status
}

async fn visited(visitor: &Visitor, host: &str) -> Answer {
    let answer = visitor.get(host, "/").await.expect("an answer");
    if answer.status == 200 {
        assert!(answer.body.contains(words(host)), "{host} answered: {}", answer.body);
    }
    let others = HOSTS.iter().filter(|other| words(other) != words(host));
    for other in others {
        assert!(!answer.body.contains(words(other)), "{host} answered: {}", answer.body);
    }
    answer
}

/// The first visit is served: nobody has to come again.
async fn is_served(world: &World, host: &str) {
    let answer = visited(&world.visitor(), host).await;
    if answer.status != 200 {
        let app = host.split(['-', '.']).next().unwrap_or_default();
        let name = if host.contains("-test.") { "test" } else { "live" };
        panic!("{host} answered {}: {}; its row: {}", answer.status, answer.body, world.environment(app, name).await);
    }
}

/// Visitors of Live, with the status that each visit had.
fn visitors_of_live(world: &World) -> Crowd<u16> {
    Crowd::begin(world, |visitor| async move { visit(&visitor, "shop.localhost").await })
}

/// Each of them was served.
async fn were_served(visitors: Crowd<u16>) {
    let statuses = visitors.end().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// A wake fails soon, says why, and tells when to come again.
async fn a_wake_fails_soon(world: &World) {
    let begun = Instant::now();
    let answer = world.get("shop-test.localhost").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(begun.elapsed() < FAILS_WITHIN, "it took {:?}", begun.elapsed());
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.body.contains("sock"), "no internals: {}", answer.body);
    let environment = world.environment("shop", "test").await;
    assert!(environment["reason"].as_str().is_some_and(|reason| reason.contains("engine is away")), "{environment}");
}

/// A visitor who comes again and again is served soon after the engine is back. Returns how soon.
async fn it_recovers(world: &World, host: &str, back: Instant) -> Duration {
    let visitor = world.visitor();
    while visit(&visitor, host).await != 200 {
        assert!(back.elapsed() < SOON, "{host} is not served {:?} after the engine's return", back.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    back.elapsed()
}

/// As soon as promised, or as this engine can on a machine that is busy with something else: by what it takes at this
/// moment for a container that nobody but itself has to do with.
fn that_was_soon(engine: &PrivateEngine, recovered: &[(&str, Duration)]) {
    let image = engine.by_hand(&["inspect", "--format", "{{.Image}}", &part(engine, "shop-test", "app")]);
    let begun = Instant::now();
    let container = engine.by_hand(&["create", &image]);
    engine.by_hand(&["start", &container]);
    let by_hand = begun.elapsed();
    engine.by_hand(&["rm", "--force", &container]);
    for (host, took) in recovered {
        eprintln!("{host} is served {took:?} after the engine's return; a start by hand takes {by_hand:?}");
        assert!(
            *took < RECOVERS_WITHIN.max(by_hand * STARTS_BY_HAND),
            "{host} was served only after {took:?}; a start by hand takes {by_hand:?}"
        );
    }
}

/// Nothing is left but the instances of the three environments.
async fn nothing_is_left_over(world: &World) {
    world.until_instances(3).await;
}

/// The engine's processes by name, while no daemon listens to them.
#[derive(Clone, Copy, Debug)]
enum End {
    Stop,
    Kill,
}

async fn ends_and_starts(live_restore: LiveRestore, end: End) {
    let Some(mut engine) = PrivateEngine::start(live_restore) else { return };
    let world = two_applications(&engine).await;
    a_round(&mut engine, &world, live_restore, end).await;
}

async fn a_round(engine: &mut PrivateEngine, world: &World, live_restore: LiveRestore, end: End) {
    let mut live = visitors_of_live(world);
    match end {
        End::Stop => engine.stop(),
        End::Kill => engine.kill(),
    }
    a_wake_fails_soon(world).await;
    if matches!((live_restore, end), (LiveRestore::Off, End::Kill)) {
        // Nobody ended the containers; only when it returns it makes a clean sweep.
        were_served(live).await;
        live = visitors_of_live(world);
    }
    engine.begin();
    let back = Instant::now();
    let (of_live, of_test) =
        tokio::join!(it_recovers(world, "shop.localhost", back), it_recovers(world, "shop-test.localhost", back));
    match live_restore {
        LiveRestore::On => were_served(live).await,
        LiveRestore::Off => drop(live.end().await),
    }
    that_was_soon(engine, &[("shop.localhost", of_live), ("shop-test.localhost", of_test)]);
    world.until("blog", "test", "asleep").await;
    is_served(world, "blog-test.localhost").await;
    nothing_is_left_over(world).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    assert!(world.put_to_sleep("blog", "test").await.ok);
}

async fn hangs(live_restore: LiveRestore, at_least: Duration) {
    let Some(engine) = PrivateEngine::start(live_restore) else { return };
    let world = two_applications(&engine).await;
    a_hang(&engine, &world, at_least).await;
}

async fn a_hang(engine: &PrivateEngine, world: &World, at_least: Duration) {
    let live = visitors_of_live(world);
    engine.hang();
    let hung = Instant::now();
    a_wake_fails_soon(world).await;
    assert_eq!(world.environment("blog", "test").await["state"], "asleep");
    tokio::time::sleep_until(hung + at_least).await;
    engine.go_on();
    let of_test = it_recovers(world, "shop-test.localhost", Instant::now()).await;
    that_was_soon(engine, &[("shop-test.localhost", of_test)]);
    were_served(live).await;
    is_served(world, "blog-test.localhost").await;
    nothing_is_left_over(world).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    assert!(world.put_to_sleep("blog", "test").await.ok);
}

/// The one container of an environment's instance that is this part of it.
fn part(engine: &PrivateEngine, name: &str, part: &str) -> String {
    let named = format!("name=-{name}-");
    let part = format!("label=dormouse.part={part}");
    engine.by_hand(&["ps", "--all", "--quiet", "--filter", &named, "--filter", &part])
}

async fn changed_by_hand() {
    let Some(engine) = PrivateEngine::start(LiveRestore::Off) else { return };
    let world = two_applications(&engine).await;
    // Sleepers, whose containers anybody may take for unused.
    engine.by_hand(&["container", "prune", "--force"]);
    assert_eq!(visit(&world.visitor(), "shop-test.localhost").await, 200);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    engine.by_hand(&["restart", &part(&engine, "shop-test", "sandbox")]);
    assert_eq!(visit(&world.visitor(), "shop-test.localhost").await, 200, "in its sandbox's new network");
    // It is awake, and nobody visits it: it sleeps, and nothing of it runs on in a dead network.
    engine.by_hand(&["kill", &part(&engine, "shop-test", "sandbox")]);
    world.until("shop", "test", "asleep").await;
    let app = ["--filter", "name=-shop-test-", "--filter", "label=dormouse.part=app"];
    assert_eq!(engine.by_hand(&[&["ps", "--quiet"][..], &app].concat()), "");
    assert_eq!(visit(&world.visitor(), "shop-test.localhost").await, 200);
    // Whoever visits meanwhile may be told that it fails, but soon Live is back.
    let live: [&[&str]; 6] =
        [&["kill"], &["restart", "--time=0"], &["rm", "--force"], &["pause"], &["stop", "--time=0"], &["kill"]];
    for (number, command) in live.iter().enumerate() {
        let which = if number < 3 { "sandbox" } else { "app" };
        let container = part(&engine, "shop-live", which);
        engine.by_hand(&[command, &[container.as_str()][..]].concat());
        let begun = Instant::now();
        world.until_served("shop.localhost").await;
        // Served once is not enough: it may have been the one that is about to end.
        world.until("shop", "live", "ready").await;
        world.until_served("shop.localhost").await;
        eprintln!("{command:?} of the {which}: served after {:?}", begun.elapsed());
        visit(&world.visitor(), "shop.localhost").await;
    }
    // Its image, too: it is built again from its commit.
    let images = engine.by_hand(&["images", "--quiet", "--filter", "reference=*/shop*"]);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    engine.by_hand(&["container", "prune", "--force"]);
    for image in images.lines() {
        engine.by_hand(&["rmi", "--force", image]);
    }
    world.until_served("shop-test.localhost").await;
    assert_eq!(visit(&world.visitor(), "blog-test.localhost").await, 200);
    nothing_is_left_over(&world).await;
}

/// The same to a Test that is awake.
async fn test_changed_by_hand() {
    let Some(engine) = PrivateEngine::start(LiveRestore::Off) else { return };
    let world = two_applications(&engine).await;
    let changes: [(&str, &[&str]); 6] = [
        ("sandbox", &["kill"]),
        ("sandbox", &["rm", "--force"]),
        ("sandbox", &["restart", "--time=0"]),
        ("app", &["pause"]),
        ("app", &["stop", "--time=0"]),
        ("app", &["kill"]),
    ];
    for (which, command) in changes {
        world.until_served("shop-test.localhost").await;
        world.until("shop", "test", "ready").await;
        let container = part(&engine, "shop-test", which);
        engine.by_hand(&[command, &[container.as_str()]].concat());
        let begun = Instant::now();
        if command == ["pause"] {
            is_served(&world, "shop-test.localhost").await;
        } else if which == "sandbox" {
            // A request that is sent before, over a connection of before, may wait in vain for an answer out of a network
            // that is no more.
            until_noticed(&engine, &world, which, &container).await;
            is_served(&world, "shop-test.localhost").await;
        } else {
            // As it ended by itself soon after it had become ready: that is told, and not for long.
            world.until_served("shop-test.localhost").await;
        }
        eprintln!("{command:?} of the {which}: served after {:?}", begun.elapsed());
    }
    is_served(&world, "blog-test.localhost").await;
    nothing_is_left_over(&world).await;
}

/// Waits until shop's Test is not taken for running in this container any more: it is not ready, or has another one. That
/// the container is gone is not noticed yet.
async fn until_noticed(engine: &PrivateEngine, world: &World, which: &str, container: &str) {
    let begun = Instant::now();
    let is_as_before = |now: String| now.is_empty() || now == container;
    while world.environment("shop", "test").await["state"] == "ready" && is_as_before(part(engine, "shop-test", which))
    {
        assert!(begun.elapsed() < SOON, "nobody notices what happened to the {which}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An application that has been up for long and is ended by hand is not taken for failing.
async fn steady_test_ended_by_hand() {
    let Some(engine) = PrivateEngine::start(LiveRestore::Off) else { return };
    let world = two_applications(&engine).await;
    let ends: [(&str, &[&str]); 2] = [("shop-test", &["stop"]), ("blog-test", &["kill"])];
    for (name, _) in ends {
        is_served(&world, &format!("{name}.localhost")).await;
    }
    tokio::time::sleep(STEADY).await;
    for (name, command) in ends {
        engine.by_hand(&[command, &[part(&engine, name, "app").as_str()]].concat());
        is_served(&world, &format!("{name}.localhost")).await;
    }
    nothing_is_left_over(&world).await;
}

/// The short form.
mod docker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_live_comes_back_with_the_engine_and_wakes_fail_soon() {
        ends_and_starts(LiveRestore::Off, End::Kill).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn with_live_restore_live_is_served_while_the_engine_is_away_or_hangs() {
        let Some(mut engine) = PrivateEngine::start(LiveRestore::On) else { return };
        let world = two_applications(&engine).await;
        a_round(&mut engine, &world, LiveRestore::On, End::Stop).await;
        a_hang(&engine, &world, Duration::ZERO).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_somebody_does_by_hand_is_mended() {
        changed_by_hand().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_somebody_does_by_hand_to_a_test_that_is_awake_is_mended() {
        test_changed_by_hand().await;
    }
}

/// The long form: `make soak`.
mod soak {
    use super::*;

    /// How often the engine goes and comes back under the same applications.
    const ROUNDS: usize = 5;

    /// As long as the engine hangs.
    const HANGS_FOR: Duration = Duration::from_secs(15);

    async fn rounds(live_restore: LiveRestore) {
        let Some(mut engine) = PrivateEngine::start(live_restore) else { return };
        let world = two_applications(&engine).await;
        for _ in 0..ROUNDS {
            a_round(&mut engine, &world, live_restore, End::Stop).await;
            a_round(&mut engine, &world, live_restore, End::Kill).await;
            a_hang(&engine, &world, HANGS_FOR).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn docker_goes_and_comes_back_again_and_again() {
        rounds(LiveRestore::Off).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn docker_with_live_restore_goes_and_comes_back_again_and_again() {
        rounds(LiveRestore::On).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn docker_test_that_was_up_for_long_and_is_ended_by_hand_wakes_for_the_next_visit() {
        steady_test_ended_by_hand().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn docker_hangs_without_live_restore() {
        hangs(LiveRestore::Off, HANGS_FOR).await;
    }
}
