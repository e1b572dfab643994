//! What the engine may do to us, at moments that only a scripted one can choose.

use dormouse_control::engine::Status;
use dormouse_control::engine::fake::{Availability, Fault, Operation};
use dormouse_control::model::{Environment, EnvironmentState};
use dormouse_link::InstanceId;
use tokio::time::{Duration, Instant};

use crate::source::Source;
use crate::world::World;

async fn serving(world: &World) -> InstanceId {
    let all = world.engine.instances().await.expect("the engine answers");
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].id.clone()
}

fn fake(world: &World) -> dormouse_control::engine::fake::Fake {
    world.fake.clone().expect("the scripted engine")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_whose_container_dies_is_started_again() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    let before = fake(&world).starts();
    for observed in world.engine.instances().await.expect("the engine answers") {
        fake(&world).kill(&observed.id);
    }
    // Soon after it became ready it counts as a failure: it comes back after a short back-off. Test waits for a request.
    world.until_served("shop.localhost").await;
    assert_eq!(fake(&world).starts() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_whose_containers_are_pruned_wakes_all_the_same() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let id = serving(&world).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    fake(&world).lose(&id);
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
    assert_eq!(serving(&world).await, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_awake_test_whose_sandbox_dies_sleeps_and_nothing_of_it_runs_on() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let id = serving(&world).await;
    fake(&world).lose_sandbox(&id);
    world.until("shop", "test", "asleep").await;
    let all = world.engine.instances().await.expect("the engine answers");
    assert_eq!(all[0].status, Status::Broken, "its application does not live on");
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c21_a_live_that_failed_before_the_clock_was_set_back_comes_back_soon() {
    let mut world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    world.stop().await;
    let store = dormouse_control::open_store(world.data()).await.expect("the store opens");
    let environments = store.environments().await.expect("the store reads");
    let live = environments.iter().find(|found| found.name.as_str() == "live").expect("live");
    let failed_at = dormouse_control::model::now() + 3_600_000;
    let failed = |live: &mut Environment| {
        live.state = EnvironmentState::Failed;
        (live.state_since, live.retry_at, live.failures) = (failed_at, failed_at + 1000, 1);
    };
    store.change_environment(&live.id, failed_at, failed).await.expect("it is written");
    store.close().await;
    world.start().await;
    world.until_served("shop.localhost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_whose_image_is_lost_is_built_again_from_its_commit() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let id = serving(&world).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let commit = world.environment("shop", "test").await["serving"]["commit"].as_str().expect("a commit").to_owned();
    fake(&world).lose(&id);
    world.engine.remove_image(&format!("dormouse/shop:{commit}")).await.expect("it is removed");
    assert_eq!(world.get("shop-test.localhost").await.status, 503, "it says that it cannot be woken");
    world.until_served("shop-test.localhost").await;
    assert_eq!(fake(&world).builds(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_serves_goes_on_while_the_engine_is_away_and_a_push_waits_for_it() {
    let world = World::fake().await;
    world.deployed("shop", "old version").await;
    fake(&world).set_available(Availability::Down);
    assert!(world.get("shop-test.localhost").await.body.contains("old version"));
    let source = Source::says("new version");
    let back = async {
        world.until_latest("shop", "queued").await;
        fake(&world).set_available(Availability::Up);
    };
    tokio::join!(world.pushed("shop", &source), back);
    assert!(world.get("shop-test.localhost").await.body.contains("new version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p82_a_wake_that_fails_is_told_and_tried_again_after_a_back_off() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let before = fake(&world).starts();
    fake(&world).fail_next(Operation::Start, Fault::Start("no such file".into()));
    let answer = world.get("shop-test.localhost").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.body.contains("fake"), "no internals: {}", answer.body);
    let environment = world.environment("shop", "test").await;
    assert!(environment["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{environment}");
    // Visitors keep asking; the next try is the back-off's.
    world.until_served("shop-test.localhost").await;
    assert_eq!(fake(&world).starts() - before, 1, "refused once by script, started once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_fails_in_the_middle_of_a_deployment_delays_it() {
    let world = World::fake().await;
    world.deployed("shop", "old version").await;
    for _ in 0..3 {
        fake(&world).fail_next(Operation::Start, Fault::Unavailable);
    }
    world.pushed("shop", &Source::says("new version")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("new version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_engine_restarted_live_comes_back_and_test_waits_for_a_request() {
    let mut world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    world.stop().await;
    fake(&world).restart();
    world.start().await;
    // Both were ready a moment ago: what is seen first is a failure, with its back-off.
    world.until("shop", "live", "ready").await;
    assert_ne!(world.environment("shop", "test").await["state"], "ready");
    world.until_served("shop-test.localhost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_whose_engine_goes_away_waits_for_it() {
    let world = World::fake().await;
    world.create("shop").await;
    fake(&world).fail_next(Operation::Build, Fault::Unavailable);
    let push = world.pushed("shop", &Source::says("the version")).await;
    assert!(push.said.contains("the build waits for it"), "{}", push.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_was_cleared_by_hand_is_made_again() {
    let world = World::fake().await;
    world.deployed("shop", "old version").await;
    let before = fake(&world).calls(Operation::Prepare);
    fake(&world).fail_next(Operation::Start, Fault::Refused("network not found".into()));
    world.pushed("shop", &Source::says("new version")).await;
    assert_eq!(fake(&world).calls(Operation::Prepare) - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_on_a_network_whose_subnet_was_taken_moves_to_the_new_one() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    fake(&world).renumber();
    world.until_served("shop-test.localhost").await;
    world.until_served("shop.localhost").await;
    world.pushed("shop", &Source::says("new version")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("new version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_engine_refuses_fails_the_deployment_and_the_next_one_goes() {
    let world = World::fake().await;
    world.deployed("shop", "old version").await;
    for _ in 0..2 {
        fake(&world).fail_next(Operation::Start, Fault::Refused("no space left on device".into()));
    }
    let push = world.push("shop", &Source::says("new version")).await;
    assert!(push.said.contains("FAILED") && push.said.contains("no space left"), "{}", push.said);
    assert!(world.get("shop-test.localhost").await.body.contains("old version"));
    assert!(world.deploy("shop", "test").await.ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_cut_off_goes_on_at_the_next_start() {
    let mut world = World::fake().await;
    world.deployed("shop", "the version").await;
    fake(&world).set_available(Availability::Down);
    let cut_off = tokio::time::timeout(std::time::Duration::from_millis(300), world.follow("DELETE", "/apps/shop"));
    assert!(cut_off.await.is_err(), "without the engine it is not done");
    assert_eq!(world.get("shop-test.localhost").await.status, 404, "but nobody is served any more");
    let push = world.push("shop", &Source::says("too late")).await;
    assert!(!push.ok, "{}", push.said);
    world.stop().await;
    fake(&world).set_available(Availability::Up);
    world.start().await;
    world.until_gone("shop").await;
    assert_eq!(world.engine.instances().await.expect("the engine answers"), []);
    world.create("shop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_in_the_middle_of_another_takes_its_place() {
    let world = World::fake().await;
    world.deployed("shop", "old version").await;
    let slow = Source::says("never seen").builds_in(20_000);
    let newest = Source::says("new version");
    let second = async {
        world.until_latest("shop", "building").await;
        world.pushed_by("another developer", "shop", &newest).await
    };
    let (first, _) = tokio::join!(world.push("shop", &slow), second);
    assert!(first.ok && first.said.contains("superseded") && !first.said.contains("Mend it"), "{}", first.said);
    assert!(world.get("shop-test.localhost").await.body.contains("new version"));
    assert_eq!(fake(&world).builds(), 2, "the build that nobody needs any more was stopped");
}

/// A wake without the engine: 503 within 10 s.
async fn a_wake_fails(world: &World) {
    let begun = tokio::time::Instant::now();
    let answer = world.get("shop-test.localhost").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(answer.headers.contains_key("retry-after"));
    let environment = world.environment("shop", "test").await;
    let reason = environment["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the engine is away"), "{environment}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_without_the_engine_fails_soon_and_goes_as_soon_as_it_is_back() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    fake(&world).set_available(Availability::Down);
    a_wake_fails(&world).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(world.get("shop-test.localhost").await.status, 503, "the next one is told at once");
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    fake(&world).set_available(Availability::Up);
    let back = tokio::time::Instant::now();
    world.until_served("shop-test.localhost").await;
    assert!(back.elapsed() < std::time::Duration::from_secs(5), "{:?}", back.elapsed());
    assert_eq!(fake(&world).starts(), 2, "of its deployment, and of the wake");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_after_the_engines_return_is_served_however_long_it_was_away() {
    /// Every sleeper has seen that it is away, and lets nobody wait for it any more.
    const AWAY: Duration = Duration::from_secs(12);
    const SLEEPERS: [&str; 4] = ["shop", "blog", "wiki", "mail"];
    let world = World::fake().await;
    for app in SLEEPERS {
        world.deployed(app, app).await;
        assert!(world.put_to_sleep(app, "test").await.ok);
    }
    fake(&world).set_available(Availability::Down);
    tokio::time::sleep(AWAY).await;
    fake(&world).set_available(Availability::Up);
    let hosts = SLEEPERS.map(|app| format!("{app}-test.localhost"));
    let answers = futures_util::future::join_all(hosts.iter().map(|host| world.get(host))).await;
    for (app, answer) in SLEEPERS.iter().zip(answers) {
        let row = world.environment(app, "test").await;
        assert_eq!(answer.status, 200, "{app}: {}; {row}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_that_goes_with_the_engine_again_and_again_is_not_taken_for_failing() {
    /// With a back-off for each, the last return would take it for at least 6 s.
    const GOES: usize = 4;
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    assert!(world.deploy("shop", "live").await.ok);
    for _ in 0..GOES {
        for observed in world.engine.instances().await.expect("the engine answers") {
            fake(&world).kill(&observed.id);
        }
        let (looks, deadline) = (fake(&world).calls(Operation::Instances), Instant::now() + crate::world::SOON);
        fake(&world).set_available(Availability::Down);
        while fake(&world).calls(Operation::Instances) < looks + 5 {
            assert!(Instant::now() < deadline, "nobody looks for the engine");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fake(&world).set_available(Availability::Up);
        let back = Instant::now();
        world.until_served("shop.localhost").await;
        assert!(back.elapsed() < RECOVERS_WITHIN, "{:?}", back.elapsed());
        world.until("shop", "live", "ready").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_an_engine_fails_soon_and_is_not_its_applications_failure() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    // It can be looked at, but starts nothing.
    for _ in 0..100 {
        fake(&world).fail_next(Operation::Start, Fault::Unavailable);
    }
    a_wake_fails(&world).await;
    fake(&world).restart();
    let told = world.wake("shop", "test").await;
    assert!(!told.ok && told.text.contains("the engine is away"), "{told:?}");
}

/// What waits is served again within this time of the engine's return.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// Asks Test to sleep, and returns as soon as it closes.
async fn closes(world: &World) {
    let asked = world.put_to_sleep("shop", "test");
    tokio::select! {
        end = asked => panic!("{end:?}"),
        _ = world.until("shop", "test", "closing") => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_closes_without_the_engine_and_still_runs_opens_at_once_for_who_comes() {
    let world = World::fake().await;
    world.create("shop").await;
    world.pushed("shop", &Source::says("the version").answers_after(6000)).await;
    let (visitor, other) = (world.visitor(), world.visitor());
    let early = async { visitor.get("shop-test.localhost", "/").await.expect("an answer").status };
    let late = async {
        until_in_flight(&world).await;
        closes(&world).await;
        fake(&world).set_available(Availability::Down);
        let begun = Instant::now();
        let answer = other.get("shop-test.localhost", "/").await.expect("an answer");
        // It is not left to wait for as long as an engine's absence is borne with.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        answer.status
    };
    assert_eq!(tokio::join!(early, late), (200, 200));
    fake(&world).set_available(Availability::Up);
    assert_eq!(world.environment("shop", "test").await["state"], "ready");
    assert!(world.put_to_sleep("shop", "test").await.ok);
}

/// Waits until a request runs on Test: then it was seen just now.
async fn until_in_flight(world: &World) {
    let before = world.environment("shop", "test").await["last_active_at"].as_i64();
    let deadline = Instant::now() + crate::world::SOON;
    while world.environment("shop", "test").await["last_active_at"].as_i64() == before {
        assert!(Instant::now() < deadline, "nobody was seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_to_stop_without_the_engine_is_not_offered_and_wakes_when_it_is_back() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    let before = fake(&world).calls(Operation::Stop);
    fake(&world).fail_next(Operation::Stop, Fault::AnswerLost);
    let asked = world.put_to_sleep("shop", "test");
    let told = async {
        while fake(&world).calls(Operation::Stop) == before {
            tokio::task::yield_now().await;
        }
        // It does stop, but nobody hears that it has.
        fake(&world).set_available(Availability::Down);
    };
    tokio::select! {
        end = asked => panic!("{end:?}"),
        () = told => {}
    }
    assert_eq!(world.environment("shop", "test").await["state"], "closing");
    a_wake_fails(&world).await;
    fake(&world).set_available(Availability::Up);
    let back = Instant::now();
    world.until_served("shop-test.localhost").await;
    assert!(back.elapsed() < RECOVERS_WITHIN, "{:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_wake_in_which_the_engine_goes_away_is_told_and_served_when_it_is_back() {
    /// Long enough for the engine to go away meanwhile.
    const BOOT: u64 = 3000;
    let world = World::fake().await;
    world.create("shop").await;
    world.pushed("shop", &Source::says("the version").boots(BOOT)).await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let goes = async {
        world.until("shop", "test", "waking").await;
        fake(&world).set_available(Availability::Down);
    };
    tokio::join!(a_wake_fails(&world), goes);
    fake(&world).set_available(Availability::Up);
    let back = Instant::now();
    world.until_served("shop-test.localhost").await;
    assert!(back.elapsed() < RECOVERS_WITHIN + Duration::from_millis(BOOT), "{:?}", back.elapsed());
}
