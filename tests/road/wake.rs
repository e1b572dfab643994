//! Sleep and wake: idle Test is stopped, and woken once by however many come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

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

/// Sleeps that are asked for while visitors come.
const SLEEPS: usize = 10;

/// Requests at one time.
const REQUESTS: usize = 100;

/// How often the application was started, by what it wrote or by the engine's own count.
async fn starts(world: &World) -> usize {
    match &world.fake {
        Some(fake) => usize::try_from(fake.starts()).expect("a small number"),
        None => world.logs("shop", "test").await.iter().filter(|line| line.contains("listening on port")).count(),
    }
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

async fn p84_no_request_is_lost_to_a_sleep_that_begins_as_it_comes(world: World) {
    world.deployed("shop", "the version").await;
    let before = starts(&world).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut visitors = tokio::task::JoinSet::new();
    for number in 0..4_u64 {
        let visitor = if number % 2 == 0 { world.visitor() } else { world.fleeting_visitor() };
        let done = done.clone();
        visitors.spawn(async move {
            let mut statuses = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let body = vec![b'x'; 100];
                statuses.push(visitor.post("shop-test.localhost", "/count", body).await.map(|answer| answer.status));
                // Pauses of different lengths, long enough to fall asleep in.
                tokio::time::sleep(Duration::from_millis(400 + 170 * number)).await;
            }
            statuses
        });
    }
    let mut slept = 0;
    for _ in 0..SLEEPS {
        world.until("shop", "test", "ready").await;
        slept += usize::from(world.put_to_sleep("shop", "test").await.ok);
    }
    done.store(true, Ordering::SeqCst);
    for status in visitors.join_all().await.into_iter().flatten() {
        assert_eq!(status.expect("an answer"), 200);
    }
    assert!(slept > 0, "it slept now and then");
    assert!(starts(&world).await > before, "and was woken");
}
