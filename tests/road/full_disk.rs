//! The disk of the data folder is full: visitors notice nothing, whoever wants something written is told so, and when there
//! is room again all goes on by itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::source::Source;
use crate::world::{SOON, World, git};

/// Room for a store, some pushes and their logs.
const DISK_BYTES: usize = 16 << 20;

/// A small disk of a test's own. It is taken away after what uses it has ended: declare it first.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes one; `None`, with a word, where this user may not mount.
    pub(crate) fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={DISK_BYTES},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => not_tested(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => not_tested(&error.to_string()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no room at all.
    pub(crate) fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("a file");
        for piece in [1 << 16, 1 << 10, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    /// Leaves so much room.
    fn fill_but(&self, bytes: u64) {
        self.fill();
        let ballast = File::options().write(true).open(self.ballast()).expect("it is there");
        let length = ballast.metadata().expect("its length").len();
        ballast.set_len(length - bytes).expect("a shorter file");
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).expect("it is there");
    }
}

fn not_tested(why: &str) -> Option<Disk> {
    crate::not_tested(&format!("a small disk of the test's own needs the right to mount: {}", why.trim()));
    None
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !std::thread::panicking() {
            assert!(unmounted.expect("umount runs").success());
        }
    }
}

/// The records of the access log.
fn records(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.data().join("access.log")).expect("a log");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c21_on_a_full_disk_live_is_served_and_whoever_writes_is_told_and_with_room_all_goes_on() {
    let Some(disk) = Disk::new() else { return };
    let world = World::fake_in(disk.path()).await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    disk.fill();

    let count = records(&world).len();
    for _ in 0..200 {
        let answer = world.get("shop.localhost").await;
        assert_eq!((answer.status, answer.body.contains("the version")), (200, true), "{}", answer.body);
    }
    let push = world.push("shop", &Source::says("the next version")).await;
    assert!(!push.ok, "{}", push.said);
    assert!(push.said.contains("the disk that holds Dormouse's data folder is full"), "{}", push.said);
    for (method, path, body) in [
        ("POST", "/apps", Some(json!({ "name": "other" }))),
        ("PATCH", "/apps/shop/environments/test", Some(json!({ "variables": { "A": "x".repeat(60_000) } }))),
        ("POST", "/apps/shop/environments/live/deploy", None),
    ] {
        let (status, answer) = world.api(method, path, body).await;
        assert_eq!(status, 507, "{method} {path}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|words| words.contains("disk")), "{answer}");
        assert!(answer["hint"].as_str().is_some_and(|words| words.contains("free some space")), "{answer}");
    }
    // What is only read, is.
    assert_eq!(world.environment("shop", "live").await["state"], "ready");
    assert_eq!(world.get("shop.localhost").await.status, 200);

    disk.free();
    let push = world.pushed("shop", &Source::says("the version after")).await;
    assert!(push.said.contains("succeeded"), "{}", push.said);
    assert!(world.get("shop-test.localhost").await.body.contains("the version after"));
    assert!(world.deploy("shop", "live").await.ok);
    assert!(world.get("shop.localhost").await.body.contains("the version after"));
    world.create("other").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    assert_eq!(world.get("shop-test.localhost").await.status, 200, "it wakes");
    let counted = |all: &[Value]| all.iter().filter_map(|record| record["lost_before"].as_u64()).sum::<u64>();
    let deadline = Instant::now() + SOON;
    loop {
        let all = records(&world);
        // Those that are there and those that are missed are all there were.
        if all.len() as u64 + counted(&all) >= count as u64 + 204 && counted(&all) > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{} records, {} lost", all.len(), counted(&all));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c21_a_push_that_fills_the_disk_half_way_gives_it_back_and_the_next_is_taken() {
    let Some(disk) = Disk::new() else { return };
    let world = World::fake_in(disk.path()).await;
    world.deployed("shop", "the version").await;
    disk.fill_but(2 << 20);
    let work = tempfile::tempdir().expect("a folder");
    Source::says("never seen").write(work.path());
    // Git cannot shrink it.
    let mut noise = vec![0; 6 << 20];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut noise)).expect("random bytes");
    fs::write(work.path().join("noise"), noise).expect("a file");
    git(work.path(), &["init", "--quiet", "--initial-branch", "develop"]).await;
    git(work.path(), &["add", "--all"]).await;
    git(work.path(), &["commit", "--quiet", "--message", "large"]).await;
    let push = git(work.path(), &["push", "--force", &world.remote("shop"), "develop"]).await;
    assert!(!push.ok && push.said.contains("the disk that holds Dormouse's data folder is full"), "{}", push.said);
    world.pushed("shop", &Source::says("the version after")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("the version after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c21_an_environment_that_cannot_be_woken_for_a_full_disk_wakes_when_there_is_room() {
    let Some(disk) = Disk::new() else { return };
    let world = World::fake_in(disk.path()).await;
    world.deployed("shop", "the version").await;
    assert!(world.put_to_sleep("shop", "test").await.ok);
    disk.fill();
    // Its request is held or refused, and given up: either way somebody wanted the environment.
    let _held = tokio::time::timeout(Duration::from_secs(3), world.visitor().get("shop-test.localhost", "/")).await;
    disk.free();
    world.until_served("shop-test.localhost").await;
}

#[test]
fn c21_a_start_on_a_full_disk_is_told_with_its_code() {
    let Some(disk) = Disk::new() else { return };
    let data = disk.path().join("data");
    disk.fill();
    let socket = format!("unix://{}/docker.sock", disk.path().display());
    crate::program::fails_on(&data, &["--engine", &socket], 73, &["the disk that holds", "is full", "free some space"]);
    disk.free();
    // Once there is room it gets as far as the engine, which is not there.
    crate::program::fails_on(&data, &["--engine", &socket], 69, &["docker.sock"]);
}
