//! Git's own programs are processes, too: one may outlive the program, or be killed with it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::process::Command;
use tokio::time::Instant;

use super::order;
use crate::source::Source;
use crate::world::World;

/// The repository of the world's only application.
fn repository(world: &World) -> PathBuf {
    let all = std::fs::read_dir(world.data().join("git")).expect("the folder is there");
    all.flatten().map(|found| found.path()).next().expect("an application")
}

async fn git(world: &World, words: &[&str]) -> String {
    let output = Command::new("git").arg("--git-dir").arg(repository(world)).args(words).output().await;
    let output = output.expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ref_that_a_git_moves_after_the_next_start_is_deployed() {
    let mut world = World::fake().await;
    world.deployed("shop", "old version").await;
    let old = git(&world, &["rev-parse", "develop"]).await;
    world.pushed("shop", &Source::says("new version")).await;
    let new = git(&world, &["rev-parse", "develop"]).await;
    git(&world, &["update-ref", "refs/heads/develop", &old]).await;
    assert!(world.deploy("shop", "test").await.ok);
    world.kill();
    let left = order::whole_store(&world).await;
    let began = Instant::now();
    // A start looks at the refs before it is done, and finds nothing new.
    world.begin();
    tokio::time::timeout(Duration::from_millis(500), world.until_latest("shop", "queued"))
        .await
        .expect_err("nothing is new");
    git(&world, &["update-ref", "refs/heads/develop", &new]).await;
    order::comes(&world, left, began).await;
    assert!(world.get("shop-test.localhost").await.body.contains("new version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_a_killed_git_left_refuses_no_push_for_ever() {
    let mut world = World::fake().await;
    world.deployed("shop", "old version").await;
    world.kill();
    let lock = std::fs::File::create(repository(&world).join("refs/heads/develop.lock")).expect("a lock");
    lock.set_modified(SystemTime::now() - Duration::from_secs(120)).expect("it is old");
    world.begin();
    world.pushed("shop", &Source::says("new version")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("new version"));
}
