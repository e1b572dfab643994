//! A push becomes an image, the image serves, the same image goes Live; what fails changes nothing for visitors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::http::Visitor;
use crate::on_both_engines;
use crate::source::Source;
use crate::world::World;

on_both_engines!(
    a_push_is_served_and_the_next_one_replaces_it_without_a_failed_request,
    live_gets_the_very_image_that_test_runs,
    a_deployment_that_exits_leaves_the_old_version_serving_and_says_why,
    a_deployment_that_never_listens_leaves_the_old_version_serving_and_says_why,
    a_deployment_that_answers_502_fails_and_one_that_answers_500_serves,
    a_build_that_fails_says_which_step,
    a_commit_without_a_dockerfile_is_told_what_to_do,
    a_port_that_cannot_be_known_is_told_what_to_do,
    an_application_is_told_where_it_runs,
    a_deleted_application_leaves_nothing,
);

/// Requests during the swaps.
const REQUESTS: usize = 2000;

/// Swaps after the first, and those beside a single visitor on the scripted engine.
const SWAPS: usize = 4;
const SWAPS_FAKE: usize = 16;

/// How long a request runs, in milliseconds. The application drops what runs when it is stopped: so one that is stopped
/// before it is drained shows.
const RUNS: u64 = 20;

/// Visitors at one time; every other one with a new connection for each request.
const VISITORS: usize = 8;

async fn a_push_is_served_and_the_next_one_replaces_it_without_a_failed_request(world: World) {
    world.create("shop").await;
    let push = world.pushed("shop", &Source::says("first version").answers_after(RUNS).drops()).await;
    for said in ["remote: Building commit", "remote: Built image", "remote: Requests go to deployment 1 now."] {
        assert!(push.said.contains(said), "the push shows {said:?}: {}", push.said);
    }
    let answer = world.get("shop-test.localhost").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("first version"), "{}", answer.body);

    let crowd = Crowd { visitors: VISITORS, requests: REQUESTS };
    let failed = crowd.asks_during(&world, async {
        world.pushed("shop", &Source::says("second version").answers_after(RUNS).drops()).await;
        let answer = world.get("shop-test.localhost").await;
        assert!(answer.body.contains("second version"), "{}", answer.body);
        swaps(&world, SWAPS).await;
    });
    assert_eq!(failed.await, [""; 0], "in a crowd");
    // In a crowd there is always another request in flight, which makes the drain wait for one that was not counted, too.
    let lonely = Crowd { visitors: 1, requests: 1 };
    let count = if world.fake.is_some() { SWAPS_FAKE } else { SWAPS };
    assert_eq!(lonely.asks_during(&world, swaps(&world, count)).await, [""; 0], "alone");
}

async fn swaps(world: &World, count: usize) {
    for _ in 0..count {
        let end = world.deploy("shop", "test").await;
        assert!(end.ok, "{end:?}");
    }
    world.until_instances(1).await;
}

/// Visitors who ask again and again.
#[derive(Clone, Copy)]
struct Crowd {
    visitors: usize,
    /// So many requests at least.
    requests: usize,
}

impl Crowd {
    /// Asks until `work` is done; returns what failed.
    async fn asks_during(self, world: &World, work: impl Future<Output = ()>) -> Vec<String> {
        let done = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let mut visitors = tokio::task::JoinSet::new();
        for number in 0..self.visitors {
            let visitor = if number % 2 == 0 { world.visitor() } else { world.fleeting_visitor() };
            visitors.spawn(self.asks(visitor, done.clone(), count.clone()));
        }
        work.await;
        done.store(true, Ordering::SeqCst);
        let failed = visitors.join_all().await.concat();
        assert!(count.load(Ordering::SeqCst) >= self.requests);
        failed
    }

    async fn asks(self, visitor: Visitor, done: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Vec<String> {
        let (host, path) = ("shop-test.localhost", format!("/slow?ms={RUNS}"));
        let mut failed = Vec::new();
        while !done.load(Ordering::SeqCst) || count.load(Ordering::SeqCst) < self.requests {
            let answer = match count.fetch_add(1, Ordering::SeqCst) % 4 {
                0 => visitor.get(host, "/").await,
                1 => visitor.post(host, "/count", vec![b'x'; 1000]).await,
                _ => visitor.post(host, &path, vec![b'x'; 1000]).await,
            };
            match answer {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => failed.push(format!("{} {}", answer.status, answer.body)),
                Err(error) => failed.push(format!("{error:?}")),
            }
        }
        failed
    }
}

async fn live_gets_the_very_image_that_test_runs(world: World) {
    world.create("shop").await;
    let (status, answer) = world.api("POST", "/apps/shop/environments/live/deploy", None).await;
    assert_eq!(status, 422, "nothing to promote: {answer}");
    world.pushed("shop", &Source::says("the version")).await;
    assert_eq!(world.get("shop.localhost").await.status, 503, "nothing is deployed on Live yet");
    let end = world.deploy("shop", "live").await;
    assert!(end.ok && end.text.contains("it serves shop.localhost"), "{end:?}");
    assert!(end.lines.iter().any(|line| line.contains("built already")), "{:?}", end.lines);
    assert!(world.get("shop.localhost").await.body.contains("the version"));
    let commit = |environment: serde_json::Value| environment["serving"]["commit"].clone();
    let (test, live) = (world.environment("shop", "test").await, world.environment("shop", "live").await);
    assert_eq!(commit(test), commit(live));
    if let Some(fake) = &world.fake {
        assert_eq!(fake.builds(), 1);
    }
}

/// How long a container may take that is to be given up, and one that is to serve, in milliseconds.
const SHORT: u64 = 3000;
const LONG: u64 = 60_000;

async fn fails_and_the_old_version_serves(world: &World, source: &Source, within: u64, why: &[&str]) {
    world.deployed("shop", "old version").await;
    world.set("shop", "test", json!({ "ready_within_ms": within })).await;
    let push = world.push("shop", source).await;
    assert!(push.ok, "a failed deployment does not undo the push: {}", push.said);
    for why in ["FAILED", "The version before it serves on."].iter().chain(why) {
        assert!(push.said.contains(why), "the push says {why:?}: {}", push.said);
    }
    let answer = world.get("shop-test.localhost").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("old version"), "{}", answer.body);
    let environment = world.environment("shop", "test").await;
    assert_eq!(environment["latest"]["state"], "failed", "{environment}");
    assert_eq!(environment["serving"]["number"], 1, "{environment}");
    // The failed one is removed.
    world.until_instances(1).await;
    world.set("shop", "test", json!({ "ready_within_ms": LONG })).await;
}

async fn a_deployment_that_exits_leaves_the_old_version_serving_and_says_why(world: World) {
    fails_and_the_old_version_serves(&world, &Source::exits(3), LONG, &["exited with code 3", "last", "| "]).await;
    let environment = world.environment("shop", "test").await;
    let lines = environment["latest"]["last_lines"].as_array().expect("its last lines");
    assert!(!lines.is_empty(), "{environment}");
}

async fn a_deployment_that_never_listens_leaves_the_old_version_serving_and_says_why(world: World) {
    fails_and_the_old_version_serves(&world, &Source::never_listens(), SHORT, &["nothing listened on port 80"]).await;
}

async fn a_deployment_that_answers_502_fails_and_one_that_answers_500_serves(world: World) {
    fails_and_the_old_version_serves(&world, &Source::answers(502), SHORT, &["502"]).await;
    world.pushed("shop", &Source::answers(500)).await;
    assert_eq!(world.get("shop-test.localhost").await.status, 500);
}

async fn a_build_that_fails_says_which_step(world: World) {
    fails_and_the_old_version_serves(&world, &Source::cannot_be_built(), LONG, &["nothing"]).await;
}

async fn a_commit_without_a_dockerfile_is_told_what_to_do(world: World) {
    fails_and_the_old_version_serves(&world, &Source::without_dockerfile(), LONG, &["no Dockerfile", "add one"]).await;
}

async fn a_port_that_cannot_be_known_is_told_what_to_do(world: World) {
    fails_and_the_old_version_serves(&world, &Source::exposing(""), LONG, &["EXPOSE", "variable PORT"]).await;
    let push = world.push("shop", &Source::exposing("EXPOSE 80 81\n")).await;
    assert!(push.said.contains("several ports (80, 81)"), "{}", push.said);
    world.set("shop", "test", json!({ "variables": { "PORT": "80" } })).await;
    let end = world.deploy("shop", "test").await;
    assert!(end.ok, "the same commit goes once the port is said: {end:?}");
}

async fn an_application_is_told_where_it_runs(world: World) {
    world.deployed("shop", "the version").await;
    let end = world.deploy("shop", "live").await;
    assert!(end.ok, "{end:?}");
    if world.fake.is_some() {
        let body = world.get("shop.localhost").await.body;
        assert!(
            body.contains("STAGE=live") && world.get("shop-test.localhost").await.body.contains("STAGE=test"),
            "{body}"
        );
        return;
    }
    let told = |body: &str| serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    let visitor = world.visitor();
    let test = told(&visitor.get("shop-test.localhost", "/.json").await.expect("an answer").body);
    let live = told(&visitor.get("shop.localhost", "/.json").await.expect("an answer").body);
    assert_eq!((&test["stage"], &test["debug"]), (&json!("test"), &json!("True")));
    assert_eq!((&live["stage"], &live["debug"]), (&json!("live"), &json!("False")));
    assert_eq!((&test["domain"], &live["domain"]), (&json!("shop-test.localhost"), &json!("shop.localhost")));
    assert_eq!((&test["branch"], &test["deployment"]), (&json!("develop"), &json!("1")));
    assert_eq!(test["commit"], world.environment("shop", "test").await["serving"]["commit"]);
}

async fn a_deleted_application_leaves_nothing(world: World) {
    world.deployed("shop", "the version").await;
    world.deploy("shop", "live").await;
    let end = world.follow("DELETE", "/apps/shop").await;
    assert!(end.ok, "{end:?}");
    assert_eq!(world.get("shop.localhost").await.status, 404);
    assert_eq!(world.engine.instances().await.expect("the engine answers"), []);
    let repositories = std::fs::read_dir(world.data().join("git")).expect("a folder").count();
    let logs = std::fs::read_dir(world.data().join("logs")).expect("a folder").count();
    assert_eq!((repositories, logs), (0, 0));
    world.create("shop").await;
    assert_eq!(world.environment("shop", "test").await["state"], "empty");
}
