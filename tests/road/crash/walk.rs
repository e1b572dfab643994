//! The whole list of crash points: each is reached in one scenario, and nothing goes on from there.

use std::sync::atomic::{AtomicUsize, Ordering};

use dormouse_control::crash::{Crash, points};
use dormouse_control::engine::fake::Availability;
use tokio::time::{Instant, timeout};

use super::{order, times};
use crate::source::Source;
use crate::world::{SOON, World};

/// Worlds at one time.
const LANES: usize = 3;

#[test]
fn c20_after_a_crash_at_any_point_all_comes_to_order() {
    let points = points();
    let next = AtomicUsize::new(0);
    std::thread::scope(|lanes| {
        for _ in 0..LANES {
            lanes.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let runtime = runtime.expect("a runtime");
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    runtime.block_on(crash_at_each_passing(point));
                }
            });
        }
    });
}

/// The first passing; in the long form also the second, and so on to the last.
async fn crash_at_each_passing(point: &str) {
    let all = times("DORMOUSE_PASSINGS", 1);
    for passing in 1..=all {
        if !crash_at(point, passing).await {
            assert!(passing > 1, "nothing passed the point {point:?}");
            return;
        }
    }
}

/// Whether there was such a passing.
async fn crash_at(point: &str, passing: u32) -> bool {
    let _told = Told { point, passing };
    let crash = Crash::standstill(point, passing).expect("the point is known");
    let mut world = World::crashing(crash.clone()).await;
    tokio::select! {
        () = crash.reached() => {}
        () = everything(&world) => return false,
    }
    world.kill();
    let left = order::whole_store(&world).await;
    let began = Instant::now();
    world.begin();
    order::comes(&world, left, began).await;
    // And it goes on as ever.
    world.api("POST", "/apps", Some(serde_json::json!({ "name": "shop" }))).await;
    world.pushed_by("after", "shop", &Source::says("after the crash")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("after the crash"));
    true
}

mod docker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c20_after_the_program_crashed_in_a_push_all_comes_to_order() {
        for point in ["ref moved", "image built", "after launch", "before swap", "after swap"] {
            let _told = Told { point, passing: 1 };
            let mut world = World::crashing_program(point).await;
            world.create("shop").await;
            // Whatever it said before it was cut off.
            world.push("shop", &Source::says("the version")).await;
            world.crashed();
            let left = order::whole_store(&world).await;
            let began = Instant::now();
            world.begin();
            order::comes(&world, left, began).await;
            assert!(world.get("shop-test.localhost").await.body.contains("the version"));
        }
    }

    /// What is asked of an application that runs on Test.
    #[derive(Clone, Copy)]
    enum Asked {
        Live,
        Again,
        Sleep,
        Wake,
        Delete,
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c20_after_the_program_crashed_in_something_else_all_comes_to_order() {
        let mut world = World::program().await;
        world.deployed("shop", "the version").await;
        for (point, asked) in [
            // Its row is there, and its container is not.
            ("after begin starting", Asked::Live),
            // Requests go to the new one, and the old one runs.
            ("before remove", Asked::Again),
            ("after close", Asked::Sleep),
            // It is stopped, and noted as closing.
            ("after stop", Asked::Sleep),
            // Noted as waking, it is stopped.
            ("after wake", Asked::Wake),
            ("before serve", Asked::Wake),
            // Of two environments, one has no container.
            ("after remove", Asked::Delete),
        ] {
            let _told = Told { point, passing: 1 };
            if matches!(asked, Asked::Wake) {
                assert!(world.put_to_sleep("shop", "test").await.ok);
            }
            world.stop().await;
            world.begin_crashing(point);
            // Whatever it says before it is cut off.
            match asked {
                Asked::Live => world.try_api("POST", "/apps/shop/environments/live/deploy").await,
                Asked::Again => world.try_api("POST", "/apps/shop/environments/test/deploy").await,
                Asked::Sleep => world.try_api("POST", "/apps/shop/environments/test/sleep").await,
                Asked::Wake => drop(world.visitor().get("shop-test.localhost", "/").await),
                Asked::Delete => world.try_api("DELETE", "/apps/shop").await,
            }
            world.crashed();
            let left = order::whole_store(&world).await;
            let began = Instant::now();
            world.begin();
            order::comes(&world, left, began).await;
        }
        assert_eq!(world.get("shop-test.localhost").await.status, 404, "it is deleted");
    }
}

/// Tells where it was when a promise was broken: several are under way.
struct Told<'p> {
    point: &'p str,
    passing: u32,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was passing {} of {:?}", self.passing, self.point);
        }
    }
}

/// Passes every point that there is.
async fn everything(world: &World) {
    let fake = world.fake.as_ref().expect("the scripted engine");
    world.deployed("shop", "first version").await;
    assert!(world.deploy("shop", "live").await.ok);
    world.pushed("shop", &Source::says("second version")).await;
    assert!(world.push("shop", &Source::exits(3)).await.said.contains("FAILED"));
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let woken = world.get("shop-test.localhost").await;
    assert_eq!(woken.status, 200, "{}: {}", woken.body, world.environment("shop", "test").await);
    assert!(world.deploy("shop", "live").await.ok);

    // A failure, forgotten after a long time.
    let live = environment_of(world, "live").await;
    let store = dormouse_control::open_store(world.data()).await.expect("the store opens");
    let failed = async || {
        store
            .change_environment(&live, 0, |live| {
                live.failures = 1;
                live.state_since = 0;
            })
            .await
    };
    // The program may be writing, too.
    while failed().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    fake.set_available(Availability::Up);
    let forgiven = async {
        while store.environment(&live).await.expect("it reads").expect("it is there").failures > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, forgiven).await.expect("it is forgiven");
    store.close().await;

    // A request comes before it sleeps.
    world.pushed("shop", &Source::says("slow version").answers_after(1500)).await;
    let deadline = Instant::now() + SOON;
    // On a busy machine it may come too late, and wake it: then once more.
    while comes_after_it_slept(world).await {
        assert!(Instant::now() < deadline, "every request came too late");
    }

    // A newer push takes the place of one that is built.
    let slow = Source::says("never seen").builds_in(5_000);
    let newest = Source::says("newest version");
    let second = async {
        world.until_latest("shop", "building").await;
        world.pushed_by("another developer", "shop", &newest).await
    };
    tokio::join!(world.push("shop", &slow), second);

    // It dies soon after it became ready.
    for observed in world.engine.instances().await.expect("the engine answers") {
        fake.kill(&observed.id);
    }
    world.until_served("shop.localhost").await;
    assert!(world.follow("DELETE", "/apps/shop").await.ok);
}

/// Sends a request while another one keeps the environment from its sleep. Both are answered; says whether the second came
/// too late, when it slept already.
async fn comes_after_it_slept(world: &World) -> bool {
    let visitor = world.visitor();
    let first = visitor.get("shop-test.localhost", "/");
    let second = async {
        while !["closing", "asleep"].map(Some).contains(&world.environment("shop", "test").await["state"].as_str()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        world.visitor().get("shop-test.localhost", "/").await
    };
    let (first, asked, second) = tokio::join!(first, world.put_to_sleep("shop", "test"), second);
    let (first, second) = (first.expect("an answer"), second.expect("an answer"));
    assert_eq!((first.status, second.status), (200, 200), "{} {} {}", first.body, second.body, asked.text);
    asked.ok
}

async fn environment_of(world: &World, name: &str) -> dormouse_link::EnvironmentId {
    let store = dormouse_control::open_store(world.data()).await.expect("the store opens");
    let all = store.environments().await.expect("it reads");
    store.close().await;
    all.into_iter().find(|found| found.name.as_str() == name).expect("it is there").id
}
