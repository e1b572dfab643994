//! The engine works, but its stream of events does not: what happens is found all the same, within the period.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dormouse_control::engine::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::{SOON, World};

/// The engine of this machine.
const ENGINE: &str = "/var/run/docker.sock";

/// What no event tells is found within this time, and seen within so much more on a busy machine.
const PERIOD: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(10);

/// What becomes of a question for events.
#[derive(Clone, Copy)]
enum Events {
    /// Its connection ends.
    Cut,
    /// It is never answered.
    Unanswered,
}

/// A way to the engine on which nobody hears events.
struct Deaf {
    folder: tempfile::TempDir,
    cut: Arc<AtomicUsize>,
    _ways: JoinSet<()>,
}

impl Deaf {
    fn begin(events: Events) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("sock")).expect("a socket");
        let cut = Arc::new(AtomicUsize::new(0));
        let (mut ways, count) = (JoinSet::new(), cut.clone());
        ways.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                ways.spawn(way(client, events, count.clone()));
            }
        });
        Self { folder, cut, _ways: ways }
    }

    fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }
}

/// One connection, up to the first question for events.
async fn way(client: UnixStream, events: Events, cut: Arc<AtomicUsize>) {
    let engine = UnixStream::connect(ENGINE).await.expect("the engine");
    let (mut asks, mut hears) = client.into_split();
    let (mut answers, mut to) = engine.into_split();
    let there = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = asks.read(&mut bytes).await {
            let line = bytes[..count].split(|byte| *byte == b'\r').next().unwrap_or_default();
            if line.starts_with(b"GET /") && String::from_utf8_lossy(line).contains("/events?") {
                cut.fetch_add(1, Ordering::SeqCst);
                match events {
                    Events::Cut => return,
                    Events::Unanswered => std::future::pending().await,
                }
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        // It has asked all it wants, and hears the rest.
        let _ended = to.shutdown().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = there => {}
        _ = copy(&mut answers, &mut hears) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_p88_live_that_dies_while_the_events_are_cut_is_found_and_started_again() {
    live_dies_unheard(Events::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_p88_live_that_dies_while_the_events_hang_is_found_and_started_again() {
    live_dies_unheard(Events::Unanswered).await;
}

async fn live_dies_unheard(events: Events) {
    let deaf = Deaf::begin(events);
    let world = World::docker_at(&deaf.address()).await;
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    assert!(deaf.cut.load(Ordering::SeqCst) > 0, "it has asked for events");
    let all = world.engine.instances().await.expect("the engine answers");
    let live = all.into_iter().find(|found| found.status == Status::Running).expect("live runs").id;
    let label = format!("label=dormouse.instance={live}");
    let find = ["ps", "--quiet", "--filter", &label, "--filter", "label=dormouse.part=app"];
    let docker = |arguments: &[&str]| {
        let output = std::process::Command::new("docker").args(arguments).output().expect("docker runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    docker(&["kill", &docker(&find)]);
    // Nobody visits: else the edge would tell.
    let died = Instant::now();
    while world.environment("shop", "live").await["state"] == "ready" {
        assert!(died.elapsed() < PERIOD + SLACK, "it was not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("found after {:?}", died.elapsed());
    world.until("shop", "live", "ready").await;
    assert_eq!(world.get("shop.localhost").await.status, 200);
    assert!(died.elapsed() < SOON);
}
