//! What is done by hand to sandboxes and their network. One is killed under its visitors: its address is nobody's for a moment, and who
//! connects hears nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_control::engine::Status;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::{SOON, World};

/// Visitors at one time, each with a new connection for each request.
const VISITORS: usize = 8;

/// A visit to a dead address costs a look at the cell (1 s) and the new start, not what a connection may take. So much is for
/// a busy machine.
const COSTS_AT_MOST: Duration = Duration::from_secs(10);

/// It is the engine's events that tell of it, not the reconciler's period of 5 s.
const FOUND_WITHIN: Duration = Duration::from_secs(4);

fn docker(arguments: &[&str]) -> String {
    let output = std::process::Command::new("docker").args(arguments).output().expect("docker runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_an_awake_test_whose_sandbox_is_killed_sleeps_and_nothing_of_it_runs_on() {
    let world = World::docker().await;
    world.deployed("shop", "the version").await;
    let id = world.engine.instances().await.expect("the engine answers").remove(0).id;
    let label = format!("label=dormouse.instance={id}");
    let running = |part: &str| {
        let part = format!("label=dormouse.part={part}");
        tokio::task::block_in_place(|| docker(&["ps", "--no-trunc", "--quiet", "--filter", &label, "--filter", &part]))
    };
    let app = running("app");
    assert!(!app.is_empty());
    let sandbox = running("sandbox");
    tokio::task::block_in_place(|| docker(&["kill", &sandbox]));
    world.until("shop", "test", "asleep").await;
    assert_eq!(running("app"), "", "it is asleep");
    world.until_served("shop-test.localhost").await;
    assert_ne!(running("app"), app, "both were made anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_visitors_of_a_killed_sandbox_are_served_by_the_new_one_soon() {
    let world = World::docker().await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let all = world.engine.instances().await.expect("the engine answers");
    let live = all.into_iter().find(|found| found.status == Status::Running).expect("live runs").id;
    let label = format!("label=dormouse.instance={live}");
    let sandbox = ["ps", "--no-trunc", "--quiet", "--filter", &label, "--filter", "label=dormouse.part=sandbox"];
    let first = docker(&sandbox);
    let done = Arc::new(AtomicBool::new(false));
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        let (visitor, done) = (world.fleeting_visitor(), done.clone());
        visitors.spawn(async move {
            let mut visits = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let begun = Instant::now();
                let answer = visitor.get("shop.localhost", "/").await;
                visits.push((answer.map_or(0, |answer| answer.status), begun.elapsed()));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            visits
        });
    }
    world.until_served("shop.localhost").await;
    tokio::task::block_in_place(|| docker(&["kill", &first]));
    let killed = Instant::now();
    while world.environment("shop", "live").await["state"] == "ready"
        && ["", first.as_str()].contains(&tokio::task::block_in_place(|| docker(&sandbox)).as_str())
    {
        assert!(killed.elapsed() < FOUND_WITHIN, "only the period will tell");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let found = killed.elapsed();
    // Another one is there, and serves.
    loop {
        let now = tokio::task::block_in_place(|| docker(&sandbox));
        if !now.is_empty() && now != first {
            break;
        }
        assert!(killed.elapsed() < SOON, "there is no new sandbox");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let made = killed.elapsed();
    world.until("shop", "live", "ready").await;
    world.until_served("shop.localhost").await;
    let served = killed.elapsed();
    done.store(true, Ordering::SeqCst);
    let visits = visitors.join_all().await.concat();
    let longest = visits.iter().map(|(_, took)| *took).max().expect("visits");
    let failed = visits.iter().filter(|(status, _)| *status != 200).count();
    eprintln!(
        "found after {found:?}, made after {made:?}, served after {served:?}; of {} visits {failed} failed, the longest took {longest:?}",
        visits.len()
    );
    assert!(longest < COSTS_AT_MOST, "{longest:?}");
    // Only whom it had begun to answer gets no answer.
    assert!(failed <= VISITORS, "{failed} of {}", visits.len());
}

/// A network of somebody else's, until the end of its test.
struct Taken(String);

impl Drop for Taken {
    fn drop(&mut self) {
        // Where this fails, `docker network ls` shows it by name.
        let _ = std::process::Command::new("docker").args(["network", "rm", &self.0]).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_a_sleeper_whose_networks_subnet_was_taken_wakes_in_another() {
    let world = World::docker().await;
    world.deployed("shop", "the version").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let id = world.engine.instances().await.expect("the engine answers").remove(0).id;
    let network = world.engine.prepare().await.expect("a network");
    let taken = Taken(format!("{}-taken", network.name));
    tokio::task::block_in_place(|| {
        let containers = docker(&["ps", "--all", "--quiet", "--filter", &format!("label=dormouse.instance={id}")]);
        docker(&[&["rm", "--force"][..], &containers.lines().collect::<Vec<_>>()].concat());
        docker(&["network", "rm", &network.name]);
        let subnet = format!("--subnet={}/{}", network.subnet, network.prefix);
        docker(&["network", "create", &subnet, &taken.0]);
    });
    world.until_served("shop-test.localhost").await;
    assert_ne!(world.engine.prepare().await.expect("a network").subnet, network.subnet);
}
