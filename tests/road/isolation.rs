//! How far an application gets, tried from inside of its container; and what becomes of one that wants more than its limits.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::source::Source;
use crate::world::{Push, SOON, World};

/// CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID and NET_BIND_SERVICE, as the kernel writes them.
const CAPABILITIES: &str = "00000000000004eb";

const MIB: u64 = 1024 * 1024;

crate::on_both_engines!(a_version_runs_with_the_limits_it_was_deployed_with);

/// An application on Test that can be asked to try things.
async fn trying(world: &World, app: &str) -> Push {
    world.create(app).await;
    world.pushed(app, &Source::says("it tries").tries("")).await
}

async fn ask(world: &World, host: &str, path: &str) -> String {
    let answer = world.visitor().get(host, path).await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

/// Where a deployment's instance listens, as its push told.
fn endpoint(push: &Push) -> String {
    let told = push.said.split("Starting a container").nth(1).and_then(|rest| rest.split("at ").nth(1));
    let told = told.and_then(|rest| rest.split_whitespace().next()).expect("the push says where");
    told.trim_end_matches('.').to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_an_application_has_few_capabilities_and_gets_no_more() {
    let world = World::docker().await;
    trying(&world, "shop").await;
    let said = ask(&world, "shop-test.localhost", "/caps").await;
    let of = |name: &str| {
        said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    assert_eq!([of("CapEff:"), of("CapPrm:"), of("CapBnd:")], [CAPABILITIES; 3].map(str::to_owned), "{said}");
    assert_eq!(of("NoNewPrivs:"), "1", "{said}");
    assert_eq!(of("Seccomp:"), "2", "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_an_application_cannot_reach_another_one() {
    let world = World::docker().await;
    let own = endpoint(&trying(&world, "shop").await);
    let other = endpoint(&trying(&world, "blog").await);
    assert_ne!(own, other);
    let connect = async |to: &str| ask(&world, "shop-test.localhost", &format!("/try?connect={to}")).await;
    assert_eq!(connect(&own).await, "open\n");
    assert_eq!(world.get("blog-test.localhost").await.status, 200, "from outside it can be reached");
    let sandbox = format!("{}:16441", other.split(':').next().expect("an address"));
    for closed in [&other, &sandbox] {
        let said = connect(closed).await;
        assert!(said.starts_with("unreachable"), "{closed}: {said}");
    }
}

async fn a_version_runs_with_the_limits_it_was_deployed_with(world: World) {
    world.create("shop").await;
    let environment = world.environment("shop", "test").await;
    let limits = ["memory_bytes", "cpus_milli", "processes"].map(|name| environment[name].as_u64());
    assert_eq!(limits, [Some(512 * MIB), Some(2000), Some(512)]);
    world.set("shop", "test", json!({ "processes": 64, "cpus_milli": 500 })).await;
    world.pushed("shop", &Source::says("the version").tries("")).await;
    world.set("shop", "test", json!({ "processes": 400, "memory_bytes": 256 * MIB })).await;
    // Even made anew, it is what was deployed.
    let first = world.engine.instances().await.expect("the engine answers").remove(0).id;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    world.engine.remove(&first).await.expect("it is removed");
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
    assert_limits(&world, 64).await;
    assert!(world.deploy("shop", "test").await.ok);
    world.until_instances(1).await;
    assert_limits(&world, 400).await;
}

/// What runs has room for so many processes.
async fn assert_limits(world: &World, processes: u64) {
    if let Some(fake) = &world.fake {
        let all = world.engine.instances().await.expect("the engine answers");
        let given = fake.instance(&all[0].id).expect("it is there").limits;
        let memory_bytes = if processes == 400 { 256 * MIB } else { 512 * MIB };
        assert_eq!((given.processes, given.cpus_milli, given.memory_bytes), (processes, 500, memory_bytes));
        return;
    }
    let said = ask(world, "shop-test.localhost", "/fork?n=1000").await;
    let (count, error) = said.split_once('\n').expect("how many, and why no more");
    let count: u64 = count.parse().expect("a number");
    // The program itself, its threads, and the one above it need a few.
    assert!(count < processes && count + 20 > processes, "{count} of {processes}");
    assert!(error.contains("temporarily unavailable"), "{error}");
    // It is none the worse for it.
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_a_version_that_eats_its_memory_fails_and_the_old_one_stays() {
    let world = World::docker().await;
    world.deployed("shop", "old version").await;
    world.set("shop", "test", json!({ "memory_bytes": 64 * MIB })).await;
    let push = world.push("shop", &Source::says("never seen").tries("ALLOCATE_AT_START_MB=200")).await;
    assert!(push.said.contains("FAILED") && push.said.contains("out of memory"), "{}", push.said);
    assert!(push.said.contains("environment set --memory"), "{}", push.said);
    assert!(push.said.contains("taking 200 MiB of memory"), "its last lines: {}", push.said);
    assert!(world.get("shop-test.localhost").await.body.contains("old version"));
    // With more, the same one serves.
    world.set("shop", "test", json!({ "memory_bytes": 300 * MIB })).await;
    assert!(world.deploy("shop", "test").await.ok);
    assert!(world.get("shop-test.localhost").await.body.contains("never seen"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_live_that_eats_its_memory_is_said_to_and_comes_back() {
    let world = World::docker().await;
    trying(&world, "shop").await;
    world.set("shop", "live", json!({ "memory_bytes": 64 * MIB })).await;
    assert!(world.deploy("shop", "live").await.ok);
    let eater = world.visitor();
    let eaten = async {
        let answer = eater.get("shop.localhost", "/allocate?mb=200").await.expect("an answer");
        assert!(answer.status >= 500, "{answer:?}");
    };
    // Whether it "ran out of memory" for certain is for the engine to tell, and it misses it now and then.
    tokio::join!(eaten, until_reason(&world, "out of memory"));
    world.until_served("shop.localhost").await;
    assert_eq!(world.get("shop-test.localhost").await.status, 200, "its neighbour has not noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_that_runs_out_of_memory_is_said_to_and_comes_back() {
    let world = World::fake().await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    let fake = world.fake.clone().expect("the scripted engine");
    for observed in world.engine.instances().await.expect("the engine answers") {
        fake.run_out_of_memory(&observed.id);
    }
    until_reason(&world, "ran out of memory").await;
    world.until_served("shop.localhost").await;
}

/// Waits until Live says why it is not there.
async fn until_reason(world: &World, words: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let live = world.environment("shop", "live").await;
        if live["reason"].as_str().is_some_and(|reason| reason.contains(words)) {
            return;
        }
        assert!(Instant::now() < deadline, "{words:?} was never the reason: {live}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_who_writes_a_lot_is_not_held_up_and_fills_no_disk() {
    let world = World::docker().await;
    trying(&world, "shop").await;
    let begun = Instant::now();
    let took = ask(&world, "shop-test.localhost", "/chatter?mb=200").await;
    assert!(begun.elapsed() < SOON, "{took}");
    assert_eq!(world.get("shop-test.localhost").await.status, 200);
    // The newest of it is there to be read.
    assert!(!world.logs("shop", "test").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_who_does_not_hear_sigterm_is_killed_after_its_grace() {
    let world = World::docker().await;
    world.create("shop").await;
    world.pushed("shop", &Source::says("the version").tries("IGNORE_SIGTERM=1")).await;
    let begun = Instant::now();
    let end = world.put_to_sleep("shop", "test").await;
    assert!(end.ok, "{end:?}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(world.get("shop-test.localhost").await.status, 200, "it wakes all the same");
}
