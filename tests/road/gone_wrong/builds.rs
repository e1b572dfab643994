//! Builds that fail, hang, flood, and that nobody needs any more: what runs for them on the engine ends with them.

use std::process::Command;

use serde_json::json;
use tokio::time::Instant;

use super::{Duration, fails, saw_only, told, visitors, with_an_old_version};
use crate::on_both_engines;
use crate::source::Source;
use crate::world::{SOON, World};

on_both_engines!(
    a_build_that_fails,
    a_build_that_hangs_is_stopped_at_its_deadline,
    a_build_that_floods_its_log,
    a_build_that_a_second_push_supersedes_is_stopped,
    a_build_whose_application_is_deleted_is_stopped,
    a_build_that_the_programs_end_cut_off_is_stopped_and_begun_again,
);

/// A build that hangs is given up after this time.
const DEADLINE: Duration = Duration::from_secs(8);

/// What Docker has of this world's builds: containers of steps, and layers that nothing is made from.
struct Steps(Option<String>);

impl Steps {
    /// The world has one instance at least, which tells whose it is.
    async fn of(world: &World) -> Self {
        if world.fake.is_some() {
            return Self(None);
        }
        let id = world.engine.instances().await.expect("the engine answers").remove(0).id;
        let label = format!("label=dormouse.instance={id}");
        let found = docker(&["ps", "--all", "--filter", &label, "--format", "{{.Label \"dormouse.installation\"}}"]);
        Self(Some(found.lines().next().expect("a container").to_owned()))
    }

    fn all(&self, what: &[&str]) -> String {
        let Some(installation) = &self.0 else { return String::new() };
        let ours = format!("label=dormouse.installation={installation}");
        docker(&[what, &["--quiet", "--filter", &ours, "--filter", "label=dormouse.part=layer"]].concat())
    }

    fn containers(&self) -> String {
        self.all(&["ps", "--all"])
    }

    fn layers(&self) -> String {
        self.all(&["images", "--filter", "dangling=true"])
    }

    /// Waits until a step runs.
    async fn begun(&self, world: &World) {
        world.until_latest("shop", "building").await;
        until("a step runs", || self.0.is_none() || !self.containers().is_empty()).await;
    }

    /// Waits until nothing is left.
    async fn gone(&self) {
        until("containers of steps are gone", || self.containers().is_empty()).await;
        until("layers are gone", || self.layers().is_empty()).await;
    }
}

async fn until(what: &str, true_now: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !tokio::task::block_in_place(&true_now) {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn a_build_that_fails(world: World) {
    with_an_old_version(&world, json!({})).await;
    fails(&world, &Source::cannot_be_built(), "nothing").await;
    let lines = told(&world, "nothing").await;
    assert!(lines.iter().any(|line| line.starts_with("Step 1/")), "{lines:?}");
    Steps::of(&world).await.gone().await;
}

async fn a_build_that_hangs_is_stopped_at_its_deadline(world: World) {
    let world = world.but(|config| config.build_deadline = DEADLINE).await;
    with_an_old_version(&world, json!({})).await;
    fails(&world, &Source::builds_for_ever(), "took longer than 8 s").await;
    Steps::of(&world).await.gone().await;
}

async fn a_build_that_floods_its_log(world: World) {
    with_an_old_version(&world, json!({})).await;
    let push = fails(&world, &Source::floods_its_build(40), "nothing").await;
    assert!(push.said.len() < 12 * 1024 * 1024, "{}", push.said.len());
    assert_eq!(push.said.matches("the log is full").count(), 1);
    assert!(push.said.contains("Its last lines were:"));
    let lines = told(&world, "nothing").await;
    assert!(lines.iter().any(|line| line.contains("The build failed")), "{lines:?}");
    let of_builds = std::fs::read_dir(world.data().join("logs")).expect("a folder").flatten();
    let largest = of_builds.filter_map(|file| file.metadata().ok()).map(|file| file.len()).max();
    assert!(largest.is_some_and(|length| length < 9 * 1024 * 1024), "{largest:?}");
    Steps::of(&world).await.gone().await;
}

async fn a_build_that_a_second_push_supersedes_is_stopped(world: World) {
    with_an_old_version(&world, json!({})).await;
    let steps = Steps::of(&world).await;
    let (slow, newest) = (Source::builds_for_ever(), Source::says("new version"));
    let visitors = visitors(&world);
    let second = async {
        steps.begun(&world).await;
        world.pushed_by("another developer", "shop", &newest).await
    };
    let (first, _) = tokio::join!(world.push("shop", &slow), second);
    assert!(first.ok && first.said.contains("superseded"), "{}", first.said);
    saw_only(visitors, &["old version", "new version"]).await;
    steps.gone().await;
}

async fn a_build_whose_application_is_deleted_is_stopped(world: World) {
    with_an_old_version(&world, json!({})).await;
    let steps = Steps::of(&world).await;
    let source = Source::builds_for_ever();
    let deleted = async {
        steps.begun(&world).await;
        let end = world.follow("DELETE", "/apps/shop").await;
        assert!(end.ok, "{end:?}");
    };
    let (push, ()) = tokio::join!(world.push("shop", &source), deleted);
    assert!(!push.said.contains("succeeded"), "{}", push.said);
    assert_eq!(world.get(super::TEST).await.status, 404);
    world.until_instances(0).await;
    steps.gone().await;
    let left: Vec<_> =
        ["git", "logs"].map(|name| world.data().join(name)).into_iter().flat_map(std::fs::read_dir).collect();
    assert!(left.into_iter().flatten().flatten().next().is_none());
}

async fn a_build_that_the_programs_end_cut_off_is_stopped_and_begun_again(mut world: World) {
    with_an_old_version(&world, json!({})).await;
    let steps = Steps::of(&world).await;
    let source = Source::builds_for_ever();
    {
        let push = world.push("shop", &source);
        tokio::pin!(push);
        tokio::select! {
            push = &mut push => panic!("{}", push.said),
            () = steps.begun(&world) => {}
        }
        // The developer is gone, too.
    }
    world.stop().await;
    until("containers of steps are gone", || steps.containers().is_empty()).await;
    world.start().await;
    steps.begun(&world).await;
    world.until_served(super::TEST).await;
    assert!(world.get(super::TEST).await.body.contains("old version"));
    world.pushed_by("another developer", "shop", &Source::says("new version")).await;
    steps.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_layers_of_a_build_that_was_killed_are_removed_after_the_next_start() {
    let mut world = World::program().await;
    with_an_old_version(&world, json!({})).await;
    let steps = Steps::of(&world).await;
    let source = Source::builds_for_ever();
    {
        let push = world.push("shop", &source);
        tokio::pin!(push);
        tokio::select! {
            push = &mut push => panic!("{}", push.said),
            () = steps.begun(&world) => {}
        }
    }
    world.kill();
    until("containers of steps are gone", || steps.containers().is_empty()).await;
    assert!(!steps.layers().is_empty(), "it was killed in the middle");
    world.begin();
    steps.begun(&world).await;
    world.pushed_by("another developer", "shop", &Source::says("new version")).await;
    steps.gone().await;
    assert!(world.get(super::TEST).await.body.contains("new version"));
}
