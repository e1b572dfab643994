//! The end of a build that nobody needs, beside somebody who comes to need it.

use std::sync::Mutex;

use dormouse_link::{Certificate, EnvironmentId};
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::authority::Authority;
use crate::control::testing;
use crate::crash::Crash;
use crate::engine::Engine;
use crate::engine::fake::Fake;
use crate::inventory::Inventory;
use crate::journal::Journal;
use crate::model::{Deployment, DeploymentState, new_id};
use crate::pokes::Pokes;
use crate::signals::Signals;
use crate::store::{Addresses, NewApp, NewEnvironment, Runs, Store};
use crate::task::Tasks;

/// A world without loops, so that only the test does anything in it.
async fn world(folder: &std::path::Path) -> Arc<World> {
    let engine = Arc::new(Fake::new());
    let network = engine.prepare().await.expect("a network");
    Arc::new(World {
        store: Store::open(&folder.join("dormouse.db")).await.expect("a store"),
        inventory: Inventory::new(engine.clone()),
        engine,
        signals: Signals::new(now()),
        journal: Journal::open(folder).expect("a journal"),
        authority: Authority::open_or_create(folder, std::time::SystemTime::now()).expect("an authority"),
        zone: "localhost".parse().expect("a host"),
        repositories: folder.join("git"),
        addresses: Mutex::new(Addresses::of(&network)),
        pokes: Pokes::default(),
        build_poke: Notify::new(),
        publish_poke: Notify::new(),
        sweep_poke: Notify::new(),
        starts: Semaphore::new(1),
        build_deadline: BUILD_DEADLINE,
        crash: Crash::default(),
        mending: tokio::sync::Mutex::default(),
        tasks: Tasks::new(),
    })
}

/// The environment of a new application.
async fn environment(world: &World) -> (String, EnvironmentId) {
    let app = NewApp {
        id: new_id(),
        name: "shop".parse().expect("a label"),
        branch: "develop".parse().expect("a branch"),
        environments: vec![NewEnvironment {
            name: "test".parse().expect("a label"),
            certificate: Certificate {
                host: "shop-test.localhost".parse().expect("a host"),
                chain: "chain".into(),
                key: "key".into(),
            },
            sleep_after: None,
            ready_within: Duration::from_secs(60),
        }],
    };
    world.store.create_app(&app, 1).await.expect("an application");
    let environment = world.store.environments_of(&app.id).await.expect("it has one").remove(0);
    (app.id, environment.id)
}

/// A deployment of the one commit, which waits for its build.
async fn deployed(world: &World, app: &str, environment: &EnvironmentId) -> Deployment {
    let commit = "1".repeat(40).parse().expect("a commit");
    let asked = world.store.ask_deployment(environment, Runs::Commit(commit), 1).await.expect("a deployment");
    world.store.begin_building(&asked, app, 1).await.expect("a build");
    world.store.deployment(&asked.id).await.expect("a row").expect("it is there")
}

#[tokio::test]
async fn a_build_that_is_stopped_as_unneeded_is_begun_again_for_who_needs_it_by_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let (app, environment) = environment(&world).await;
    let first = deployed(&world, &app, &environment).await;
    let build = world.store.needed_builds().await.expect("builds").remove(0);
    let ends_unneeded = async || {
        assert!(world.store.begin_build(&build.id, 1).await.expect("it begins"));
        let needed = CancellationToken::new();
        needed.cancel();
        build_one(&world, &build, &needed).await.expect("its end is written");
        world.store.build(&build.id).await.expect("a row").expect("it is there")
    };
    let superseded = DeploymentState::Superseded;
    world.store.end_deployment(&first.id, superseded, "a newer one", &[], 1).await.expect("its end");
    let second = deployed(&world, &app, &environment).await;
    assert_eq!(second.build_id.as_ref(), Some(&build.id), "it joins what is about to be stopped");
    assert_eq!(ends_unneeded().await.state, BuildState::Queued);
    world.store.end_deployment(&second.id, superseded, "a newer one", &[], 1).await.expect("its end");
    let ended = ends_unneeded().await;
    assert_eq!(ended.state, BuildState::Failed);
    assert!(ended.reason.is_some_and(|reason| reason.contains("nobody needs")));
}

#[tokio::test]
async fn a_store_that_cannot_be_read_fails_no_build_for_good() {
    let (world, _data) = testing::world().await;
    let build = Build {
        id: "b1".to_owned(),
        app_id: "a1".to_owned(),
        commit: "a".repeat(40).parse().unwrap(),
        state: BuildState::Running,
        image_id: None,
        exposed: Vec::new(),
        image_port: None,
        reason: None,
        created_at: now(),
    };
    let built = image(&world, &build).await;
    assert!(matches!(&built, Err(NoImage::Failed(why)) if why == "the application was deleted"));
    world.store.close().await;
    assert!(matches!(image(&world, &build).await, Err(NoImage::Later(_))));
}
