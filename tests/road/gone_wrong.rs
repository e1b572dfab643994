//! Deployments that go wrong, in every way that came to mind: whoever visits has the old version all the time, and whoever
//! deployed is told why, in the push, by `status` and by `logs`.

mod builds;

use std::time::Duration;

use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::on_both_engines;
use crate::source::Source;
use crate::world::{Push, SOON, World};

on_both_engines!(
    one_that_exits_at_once,
    one_that_exits_with_its_first_answer,
    one_that_never_answers,
    one_that_answers_502,
    one_that_answers_too_late,
    one_that_answers_slowly_but_in_time_serves,
    one_that_exits_after_the_swap_is_told_of_and_the_next_one_serves,
    of_two_at_once_one_serves_and_the_other_is_superseded,
    nothing_is_deployed_of_what_is_deleted,
);

const TEST: &str = "shop-test.localhost";

/// How long a container may take that is to be given up, in milliseconds.
const SHORT: u64 = 3000;

const MIB: u64 = 1024 * 1024;

/// Visitors of Test, with all that each visit got.
fn visitors(world: &World) -> Crowd<String> {
    Crowd::begin(world, |visitor| async move {
        match visitor.get(TEST, "/").await {
            Ok(answer) => format!("{} {}", answer.status, answer.body),
            Err(error) => format!("{error:?}"),
        }
    })
}

/// Each of them saw one of these versions.
async fn saw_only(visitors: Crowd<String>, versions: &[&str]) {
    let seen = visitors.end().await;
    let served = |seen: &&String| seen.starts_with("200 ") && versions.iter().any(|version| seen.contains(version));
    let others: Vec<&String> = seen.iter().filter(|seen| !served(seen)).collect();
    assert!(others.is_empty(), "of {}: {others:#?}", seen.len());
}

/// The old version serves, with these settings for the next one.
async fn with_an_old_version(world: &World, settings: Value) {
    world.deployed("shop", "old version").await;
    world.set("shop", "test", settings).await;
}

/// A push whose deployment fails beside the old version, and why is said everywhere.
async fn fails(world: &World, source: &Source, why: &str) -> Push {
    let visitors = visitors(world);
    let push = world.push("shop", source).await;
    assert!(push.ok, "a failed deployment does not undo the push: {}", push.said);
    for said in ["FAILED", "The version before it serves on.", why] {
        assert!(push.said.contains(said), "the push says {said:?}: {}", push.said);
    }
    saw_only(visitors, &["old version"]).await;
    told(world, why).await;
    world.until_instances(1).await;
    push
}

/// `status` and `logs` say why the newest deployment failed, with its last lines; they are returned.
async fn told(world: &World, why: &str) -> Vec<String> {
    let environment = world.environment("shop", "test").await;
    assert_eq!(environment["latest"]["state"], "failed", "{environment}");
    assert_eq!(environment["serving"]["number"], 1, "{environment}");
    let reason = environment["latest"]["reason"].as_str().expect("a reason");
    assert!(reason.contains(why), "{reason}");
    let lines: Vec<String> = serde_json::from_value(environment["latest"]["last_lines"].clone()).expect("lines");
    assert!(lines.len() <= 50, "{lines:?}");
    let logs = world.logs("shop", "test").await;
    for line in lines.iter().map(String::as_str).chain([why]) {
        assert!(logs.iter().any(|written| written.contains(line)), "{line:?} is in the logs: {logs:?}");
    }
    lines
}

async fn one_that_exits_at_once(world: World) {
    with_an_old_version(&world, json!({})).await;
    let push = fails(&world, &Source::exits(3), "exited with code 3").await;
    let lines = told(&world, "exited with code 3").await;
    assert!(!lines.is_empty() && lines.iter().all(|line| push.said.contains(line)), "{lines:?}: {}", push.said);
}

async fn one_that_exits_with_its_first_answer(world: World) {
    with_an_old_version(&world, json!({})).await;
    fails(&world, &Source::exits_when_it_answers(), "exited with code 1").await;
    assert!(!told(&world, "exited with code 1").await.is_empty());
}

async fn one_that_never_answers(world: World) {
    with_an_old_version(&world, json!({ "ready_within_ms": SHORT })).await;
    fails(&world, &Source::says("never seen").answers_after(60_000), "no answer to GET / came within 3 s").await;
}

async fn one_that_answers_502(world: World) {
    with_an_old_version(&world, json!({ "ready_within_ms": SHORT })).await;
    fails(&world, &Source::answers(502), "502").await;
}

async fn one_that_answers_too_late(world: World) {
    with_an_old_version(&world, json!({ "ready_within_ms": SHORT })).await;
    fails(&world, &Source::says("never seen").answers_after(SHORT + 2000), "no answer to GET / came within 3 s").await;
}

async fn one_that_answers_slowly_but_in_time_serves(world: World) {
    with_an_old_version(&world, json!({ "ready_within_ms": 60_000 })).await;
    let visitors = visitors(&world);
    world.pushed("shop", &Source::says("slow version").answers_after(1500)).await;
    saw_only(visitors, &["old version", "slow version"]).await;
}

async fn one_that_exits_after_the_swap_is_told_of_and_the_next_one_serves(world: World) {
    with_an_old_version(&world, json!({})).await;
    if let Some(fake) = &world.fake {
        world.pushed("shop", &Source::says("short-lived").logs("it has seen enough")).await;
        for observed in world.engine.instances().await.expect("the engine answers") {
            fake.kill(&observed.id);
        }
    } else {
        let source = Source::says("short-lived").tries("EXIT_AFTER_ANSWER_MS=1500");
        world.pushed("shop", &source).await;
    }
    let failed = world.until("shop", "test", "failed").await;
    let reason = failed["reason"].as_str().expect("a reason");
    assert!(reason.contains("soon after it had become ready"), "{reason}");
    let logs = world.logs("shop", "test").await;
    assert!(logs.iter().any(|line| line.contains("soon after it had become ready")), "{logs:?}");
    // Its last words are read after its state is told.
    let deadline = tokio::time::Instant::now() + SOON;
    while world.environment("shop", "test").await["serving"]["last_lines"].as_array().is_none_or(Vec::is_empty) {
        assert!(tokio::time::Instant::now() < deadline, "no last words");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.pushed("shop", &Source::says("the next version")).await;
    world.until_served(TEST).await;
    assert!(world.get(TEST).await.body.contains("the next version"));
}

async fn of_two_at_once_one_serves_and_the_other_is_superseded(world: World) {
    with_an_old_version(&world, json!({})).await;
    let visitors = visitors(&world);
    let (one, other) = tokio::join!(world.deploy("shop", "test"), world.deploy("shop", "test"));
    assert!(one.ok || other.ok, "{one:?} {other:?}");
    for end in [&one, &other] {
        assert!(end.ok || end.text.contains("superseded"), "{end:?}");
    }
    saw_only(visitors, &["old version"]).await;
    let environment = world.environment("shop", "test").await;
    assert_eq!((&environment["latest"]["number"], &environment["serving"]["number"]), (&json!(3), &json!(3)));
    world.until_instances(1).await;
}

async fn nothing_is_deployed_of_what_is_deleted(world: World) {
    world.deployed("shop", "old version").await;
    let deploy = "/apps/shop/environments/test/deploy";
    let deleted = async {
        let end = world.follow("DELETE", "/apps/shop").await;
        assert!(end.ok, "{end:?}");
    };
    let deployed = async {
        // Whenever it comes: what was begun is given up, and later there is nothing.
        let mut status = 200;
        while status != 404 {
            status = world.api("POST", deploy, None).await.0;
            assert!([200, 404, 409].contains(&status), "{status}");
        }
    };
    tokio::join!(deleted, deployed);
    assert_eq!(world.engine.instances().await.expect("the engine answers"), []);
    let push = world.push("shop", &Source::says("too late")).await;
    assert!(!push.ok, "{}", push.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_one_that_eats_its_memory() {
    let world = World::docker().await;
    with_an_old_version(&world, json!({ "memory_bytes": 64 * MIB })).await;
    fails(&world, &Source::says("never seen").tries("ALLOCATE_AT_START_MB=200"), "out of memory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_one_that_forks_until_it_may_no_more() {
    let world = World::docker().await;
    with_an_old_version(&world, json!({ "processes": 64, "ready_within_ms": SHORT })).await;
    // Nothing is left for the thread that would serve.
    fails(&world, &Source::says("never seen").tries("FORK_AT_START=1000"), "exited with code 134").await;
    let lines = told(&world, "exited with code 134").await;
    assert!(lines.iter().any(|line| line.contains("temporarily unavailable")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_one_that_logs_a_gigabyte_and_exits() {
    let world = World::docker().await;
    with_an_old_version(&world, json!({ "ready_within_ms": 300_000 })).await;
    let source = Source::says("never seen").tries("CHATTER_AT_START_MB=1024\nEXIT_AT_START=3");
    fails(&world, &source, "exited with code 3").await;
    assert_eq!(told(&world, "exited with code 3").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_one_that_ignores_sigterm() {
    let world = World::docker().await;
    with_an_old_version(&world, json!({ "ready_within_ms": SHORT })).await;
    fails(&world, &Source::never_listens().tries("IGNORE_SIGTERM=1"), "nothing listened on port 80").await;
}
