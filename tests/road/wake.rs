//! Sleep and wake: idle Test is stopped, and woken once by however many come.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::on_both_engines;
use crate::source::Source;
use crate::world::World;

on_both_engines!(
    p80_a_hundred_requests_to_a_sleeper_start_it_once_and_are_all_answered,
    an_idle_environment_falls_asleep_by_itself_and_wakes_for_a_request,
    sleep_and_wake_by_command,
    p89_a_slow_start_is_waited_for_and_a_browser_sees_a_waking_page,
    a_woken_application_can_sleep_and_wake_again_and_again,
    p84_no_request_is_lost_to_a_sleep_that_begins_as_it_comes,
);

/// Sleeps that are asked for while a request runs or comes.
const ROUNDS_FAKE: u32 = 60;
const ROUNDS_DOCKER: u32 = 12;

/// How long such a request runs, in milliseconds.
const RUNS: u64 = 80;

/// Requests at one time.
const REQUESTS: usize = 100;

/// How often the application was started, by what it wrote or by the engine's own count.
async fn starts(world: &World) -> usize {
    match &world.fake {
        Some(fake) => usize::try_from(fake.starts()).expect("a small number"),
        None => world.logs("shop", "test").await.iter().filter(|line| line.contains("listening on port")).count(),
    }
}

/// How many POST requests came to the application, by what it wrote or by the engine's own count. What the application dropped
/// when it was told to stop came, too.
async fn posts(world: &World) -> usize {
    if let Some(fake) = &world.fake {
        return usize::try_from(fake.posts()).expect("a small number");
    }
    let dropped = |line: &str| {
        let count = line.strip_suffix(" requests dropped")?.rsplit(' ').next()?;
        count.parse::<usize>().ok()
    };
    let lines = world.logs("shop", "test").await;
    lines.iter().map(|line| if line.contains(" POST /slow ") { 1 } else { dropped(line).unwrap_or(0) }).sum()
}

async fn p80_a_hundred_requests_to_a_sleeper_start_it_once_and_are_all_answered(world: World) {
    world.create("shop").await;
    world.pushed("shop", &Source::says("awake again").boots(100)).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let before = starts(&world).await;
    let visitor = world.visitor();
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let visitor = visitor.clone();
        visitors.spawn(async move { visitor.get("shop-test.localhost", "/").await.expect("an answer") });
    }
    for answer in visitors.join_all().await {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("awake again"));
        assert!(answer.headers["server-timing"].to_str().expect("text").starts_with("wake;dur="));
    }
    assert_eq!(starts(&world).await - before, 1, "exactly one container start");
}

async fn an_idle_environment_falls_asleep_by_itself_and_wakes_for_a_request(world: World) {
    world.deployed("shop", "the version").await;
    world.set("shop", "test", json!({ "sleep_after_ms": 1000 })).await;
    world.until("shop", "test", "asleep").await;
    let before = starts(&world).await;
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
    assert_eq!(starts(&world).await - before, 1);
    world.until("shop", "test", "asleep").await;
}

async fn sleep_and_wake_by_command(world: World) {
    world.create("shop").await;
    let (status, answer) = world.api("POST", "/apps/shop/environments/test/sleep", None).await;
    assert_eq!(status, 422, "nothing is deployed: {answer}");
    world.pushed("shop", &Source::says("the version")).await;
    for _ in 0..2 {
        assert!(world.put_to_sleep("shop", "test").await.ok);
        assert_eq!(world.environment("shop", "test").await["state"], "asleep");
    }
    for _ in 0..2 {
        assert!(world.wake("shop", "test").await.ok);
        assert_eq!(world.environment("shop", "test").await["state"], "ready");
    }
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
}

async fn p89_a_slow_start_is_waited_for_and_a_browser_sees_a_waking_page(world: World) {
    world.create("shop").await;
    world.pushed("shop", &Source::says("slow but sure").boots(4500)).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let visitor = world.visitor();
    let (page, answer) = tokio::join!(visitor.navigate("shop-test.localhost"), visitor.get("shop-test.localhost", "/"));
    let page = page.expect("a page");
    assert_eq!(page.status, 503, "a browser is not left without a sign of life");
    assert!(page.headers.contains_key("retry-after"));
    assert!(page.body.contains("<html"), "{}", page.body);
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.body.contains("slow but sure")), (200, true), "{}", answer.body);
}

async fn a_woken_application_can_sleep_and_wake_again_and_again(world: World) {
    world.deployed("shop", "the version").await;
    let visitor = world.visitor();
    for _ in 0..5 {
        assert!(world.put_to_sleep("shop", "test").await.ok);
        let answer = tokio::time::timeout(Duration::from_secs(20), visitor.get("shop-test.localhost", "/")).await;
        assert_eq!(answer.expect("in time").expect("an answer").status, 200);
    }
}

/// A request that is lost is one that runs when its container is stopped: so this application drops what runs then. One
/// round has a request in flight when the sleep is asked for, the next two send one at another moment of the closing.
async fn p84_no_request_is_lost_to_a_sleep_that_begins_as_it_comes(world: World) {
    world.create("shop").await;
    world.pushed("shop", &Source::says("the version").answers_after(RUNS).drops()).await;
    let path = format!("/slow?ms={RUNS}");
    let rounds = if world.fake.is_some() { ROUNDS_FAKE } else { ROUNDS_DOCKER };
    let before = starts(&world).await;
    let (kept, fleeting) = (world.visitor(), world.fleeting_visitor());
    // How long a sleep takes that nothing holds up, so that the moments lie in it on a slow machine, too.
    let mut closing = Duration::from_millis(30);
    let mut slept = 0;
    for round in 0..rounds {
        let visitor = if round % 4 < 2 { &kept } else { &fleeting };
        assert_eq!(visitor.get("shop-test.localhost", "/health").await.expect("an answer").status, 200);
        let send = async |after: Duration| {
            tokio::time::sleep(after).await;
            visitor.post("shop-test.localhost", &path, vec![b'x'; 100]).await
        };
        let sleep = async |after: Duration| {
            tokio::time::sleep(after).await;
            let began = Instant::now();
            (world.put_to_sleep("shop", "test").await.ok, began.elapsed())
        };
        let runs = Duration::from_millis(RUNS);
        let (answer, ok) = if round % 3 == 0 {
            let (answer, (ok, _)) = tokio::join!(send(Duration::ZERO), sleep(runs / 3));
            (answer, ok)
        } else {
            // From a while before to its end, in steps that do not divide the whole: no moment comes twice.
            let moment = closing.mul_f64(f64::from(round) * 0.754 % 2.0);
            let (answer, (ok, took)) = tokio::join!(send(moment), sleep(closing));
            if ok {
                closing = took.min(runs * 2);
            }
            (answer, ok)
        };
        let answer = answer.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        assert_eq!(answer.status, 200, "round {round}: {}", answer.body);
        slept += u32::from(ok);
    }
    assert_eq!(posts(&world).await, rounds as usize, "each came to the application once, and none twice");
    assert!(slept > 0, "it slept now and then");
    assert!(starts(&world).await > before, "and was woken");
}

mod soak {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::crash::times;

    /// Sleeps in a row, a visitor after each: several worlds at one time, and programs that are started beside them, which for
    /// a moment have copies of all that this process has open.
    #[test]
    fn a_request_after_a_sleep_is_always_answered() {
        const LANES: u32 = 6;
        let rounds = times("DORMOUSE_SLEEPS", 600);
        let left = AtomicU32::new(LANES);
        std::thread::scope(|lanes| {
            for _ in 0..LANES {
                lanes.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                    let _left = Left(&left);
                    runtime.expect("a runtime").block_on(sleeps(rounds / LANES));
                });
            }
            lanes.spawn(|| {
                while left.load(Ordering::SeqCst) > 0 {
                    assert!(std::process::Command::new("true").status().expect("it runs").success());
                }
            });
        });
    }

    /// Counts a lane until it ends, however.
    struct Left<'c>(&'c AtomicU32);

    impl Drop for Left<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn sleeps(rounds: u32) {
        let world = World::fake().await;
        world.deployed("shop", "the version").await;
        for round in 0..rounds {
            if round % 5 == 0 {
                assert!(world.deploy("shop", "test").await.ok);
            }
            let began = Instant::now();
            let end = world.put_to_sleep("shop", "test").await;
            assert!(end.ok, "round {round}: {}", end.text);
            let slept = began.elapsed();
            let woken = world.get("shop-test.localhost").await;
            let row = world.environment("shop", "test").await;
            let took = began.elapsed();
            assert_eq!(woken.status, 200, "round {round}, {slept:?}, {took:?}: {} {row}", woken.body);
        }
    }
}
