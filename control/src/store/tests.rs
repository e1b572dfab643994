//! What the store promises: whole writes, one holder a host, generations that only rise.

use dormouse_link::{Base, Certificate, ObjectId, State, Table};

use super::*;
use crate::engine::Network;
use crate::model::{DeploymentState, Environment, EnvironmentState, new_id};

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("dormouse.db")).await.expect("a store");
    (folder, store)
}

fn new_environment(name: &str, host: &str) -> NewEnvironment {
    NewEnvironment {
        name: name.parse().expect("a label"),
        certificate: Certificate { host: host.parse().expect("a host"), chain: "chain".into(), key: "key".into() },
        sleep_after: (name == "test").then_some(Duration::from_secs(900)),
        ready_within: Duration::from_secs(60),
    }
}

fn new_app(name: &str) -> NewApp {
    NewApp {
        id: new_id(),
        name: name.parse().expect("a label"),
        branch: "develop".parse().expect("a branch"),
        environments: vec![
            new_environment("test", &format!("{name}-test.localhost")),
            new_environment("live", &format!("{name}.localhost")),
        ],
    }
}

async fn made(store: &Store, name: &str) -> Vec<Environment> {
    let new = new_app(name);
    store.create_app(&new, 1).await.expect("an application");
    store.environments_of(&new.id).await.expect("its environments")
}

/// The table of an edge that has applied everything.
async fn table(store: &Store, mut table: Table) -> Table {
    let base = if table.generation == Generation(0) { Base::Snapshot } else { Base::Since(table.generation) };
    let update = store.objects_since(base).await.expect("an update");
    assert_eq!(table.apply(update).expect("it follows"), []);
    table
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_wrote() {
    let (folder, store) = store().await;
    let installation = store.installation().to_owned();
    let environments = made(&store, "hello").await;
    store.close().await;
    let store = Store::open(&folder.path().join("dormouse.db")).await.expect("a store");
    assert_eq!(store.installation(), installation);
    assert_eq!(store.environments().await.expect("environments"), environments);
    let secrets: std::collections::HashSet<_> = environments.iter().map(|found| &found.secret_key).collect();
    assert_eq!(secrets.len(), 2, "each environment has a secret of its own");
}

#[tokio::test]
async fn search_engines_are_for_live_only() {
    let (_folder, store) = store().await;
    made(&store, "hello").await;
    let mut indexed = Vec::new();
    for object in table(&store, Table::default()).await.objects.into_values() {
        if let dormouse_link::Body::Environment(environment) = object.body {
            let policy = environment.policy;
            indexed.push((environment.name.to_string(), policy.access.is_none_or(|access| access.is_indexed())));
        }
    }
    indexed.sort_unstable();
    assert_eq!(indexed, [("live".to_owned(), true), ("test".to_owned(), false)]);
}

#[tokio::test]
async fn an_application_whose_host_is_held_is_not_half_made() {
    let (_folder, store) = store().await;
    made(&store, "a").await;
    assert!(matches!(store.create_app(&new_app("a"), 1).await, Err(StoreError::AppTaken(_))));
    // `a-test` Live would have the host of `a` Test.
    let error = store.create_app(&new_app("a-test"), 1).await.expect_err("the host is held");
    assert_eq!(error.to_string(), "the host a-test.localhost belongs to a test already");
    assert_eq!(store.apps().await.expect("apps").len(), 1);
    assert_eq!(store.environments().await.expect("environments").len(), 2);
    made(&store, "b").await;
}

#[tokio::test]
async fn edges_follow_by_updates_to_the_same_table_as_by_a_snapshot() {
    let (_folder, store) = store().await;
    let mut edge = table(&store, Table::default()).await;
    let hello = made(&store, "hello").await;
    edge = table(&store, edge).await;
    assert_eq!(edge.objects.len(), 6, "a route, a certificate and a cell for each environment");
    let to = |state| move |environment: &mut Environment| environment.state = state;
    store.change_environment(&hello[0].id, 2, to(EnvironmentState::Asleep)).await.expect("a change");
    edge = table(&store, edge).await;
    let before = edge.generation;
    store.change_environment(&hello[0].id, 3, |_| {}).await.expect("no change");
    assert_eq!(
        store.generation().await.expect("a generation"),
        before,
        "what edges would not see is no new generation"
    );
    let other = made(&store, "other").await;
    store.delete_app(&hello[0].app_id, 4).await.expect("a deletion");
    edge = table(&store, edge).await;
    assert_eq!(edge.objects.len(), 6);
    assert!(edge.objects.keys().all(|id| !matches!(id, ObjectId::Environment(id) if *id == hello[0].id)));
    assert_eq!(edge, table(&store, Table::default()).await);
    assert_eq!(other.len(), 2);
}

#[tokio::test]
async fn a_swap_offers_the_new_instance_and_retires_the_old_one_in_one_generation() {
    let (_folder, store) = store().await;
    let environment = made(&store, "hello").await.pop().expect("an environment");
    let network = Network { name: "n".into(), subnet: [10, 0, 0, 0].into(), prefix: 24, gateway: [10, 0, 0, 1].into() };
    let addresses = Addresses::of(&network);
    for (number, digit) in [(1_i64, "1"), (2, "2")] {
        let runs = Runs::Commit(digit.repeat(40).parse().expect("a commit"));
        let deployment = store.ask_deployment(&environment.id, runs, 1).await.expect("a deployment");
        assert_eq!(deployment.number, number.unsigned_abs());
        store.begin_building(&deployment, &environment.app_id, 1).await.expect("a build");
        let place = Place { addresses: &addresses, acked: Generation(0) };
        store.begin_starting(&deployment, 80, &Default::default(), place, number).await.expect("a start");
        store.swap(&deployment, 5).await.expect("a swap");
    }
    let instances = store.instances(&environment.id).await.expect("instances");
    assert_ne!(instances[0].address, instances[1].address);
    let found = store.environment(&environment.id).await.expect("a row").expect("an environment");
    assert_eq!(found.epoch.0, 2);
    let edge = table(&store, Table::default()).await;
    let object = &edge.objects[&ObjectId::Environment(environment.id.clone())];
    assert_eq!(object.version, found.generation);
    let dormouse_link::Body::Environment(cell) = &object.body else { panic!("a cell") };
    assert_eq!(cell.state, State::Ready);
    assert_eq!(cell.endpoints.len(), 1);
    assert_eq!(cell.endpoints[0].instance, instances[1].id);
    let retired = store.instances(&environment.id).await.expect("instances");
    assert_eq!(retired[0].retired, Some((found.generation, 5)));
    assert_eq!(retired[1].retired, None);
    store.remove_instance(&retired[0], 6).await.expect("a removal");
    assert_eq!(store.instances(&environment.id).await.expect("instances").len(), 1);
}

#[tokio::test]
async fn a_renewed_certificate_reaches_edges() {
    let (_folder, store) = store().await;
    made(&store, "hello").await;
    let edge = table(&store, Table::default()).await;
    let host: Host = "hello.localhost".parse().expect("a host");
    let renewed = Certificate { host: host.clone().into(), chain: "new".into(), key: "key".into() };
    store.certify(renewed, 9).await.expect("a renewal");
    assert!(store.hosts().await.expect("hosts").contains(&(host.clone(), 9)));
    let edge = table(&store, edge).await;
    let dormouse_link::Body::Certificate(found) = &edge.objects[&ObjectId::Certificate(host.into())].body else {
        panic!()
    };
    assert_eq!(&*found.chain, "new");
}

#[tokio::test]
async fn a_head_is_deployed_once_however_many_look_at_it_and_again_by_command() {
    let (_folder, store) = store().await;
    let environment = made(&store, "hello").await.pop().expect("an environment");
    let head: crate::git::Commit = "a".repeat(40).parse().expect("a commit");
    assert!(store.ask_unseen(&environment.id, head.clone(), 1).await.expect("a row").is_some());
    assert!(store.ask_unseen(&environment.id, head.clone(), 1).await.expect("a row").is_none());
    store.ask_deployment(&environment.id, Runs::Commit(head), 1).await.expect("a deployment");
    assert_eq!(store.deployments_of(&environment.id).await.expect("rows").len(), 2);
}

#[tokio::test]
async fn only_builds_that_somebody_needs_are_built_the_newest_first() {
    let (_folder, store) = store().await;
    let environment = made(&store, "hello").await.pop().expect("an environment");
    let mut builds = Vec::new();
    for (at, digit) in [(1, "1"), (2, "2"), (3, "3")] {
        let runs = Runs::Commit(digit.repeat(40).parse().expect("a commit"));
        let deployment = store.ask_deployment(&environment.id, runs, at).await.expect("a deployment");
        store.begin_building(&deployment, &environment.app_id, at).await.expect("a build");
        let deployment = store.deployment(&deployment.id).await.expect("a row").expect("it");
        builds.push((deployment.build_id.clone().expect("a build"), deployment));
    }
    let needed = async || -> Vec<String> {
        store.needed_builds().await.expect("rows").into_iter().map(|build| build.id).collect()
    };
    assert_eq!(needed().await, [&*builds[2].0, &builds[1].0, &builds[0].0]);
    let (first, superseded) = &builds[0];
    store.end_deployment(&superseded.id, DeploymentState::Superseded, "newer", &[], 4).await.expect("an end");
    assert_eq!(needed().await, [&*builds[2].0, &builds[1].0], "nobody needs {first} any more");
    assert!(store.begin_build(&builds[2].0, 5).await.expect("a row"));
    store.requeue_builds(&[builds[2].0.clone()]).await.expect("rows");
    assert!(store.builds_run(&environment.app_id).await.expect("rows"), "it is ours");
    store.requeue_builds(&[]).await.expect("rows");
    assert!(!store.builds_run(&environment.app_id).await.expect("rows"), "a crash left it");
    store.delete_app(&environment.app_id, 6).await.expect("a deletion");
    assert_eq!(needed().await, [""; 0]);
}

#[tokio::test]
async fn a_commit_is_built_once_and_a_failed_one_again() {
    let (_folder, store) = store().await;
    let environment = made(&store, "hello").await.pop().expect("an environment");
    let mut builds = Vec::new();
    for outcome in ["fails", "succeeds", "is there"] {
        let runs = Runs::Commit("a".repeat(40).parse().expect("a commit"));
        let deployment = store.ask_deployment(&environment.id, runs, 1).await.expect("a deployment");
        store.begin_building(&deployment, &environment.app_id, 1).await.expect("a build");
        let build = store.deployment(&deployment.id).await.expect("a row").expect("it").build_id.expect("a build");
        let image = crate::engine::Image { id: "sha256:1".into(), exposed: vec![80], port: None };
        match outcome {
            "fails" => store.end_build(&build, Err("no"), 2).await.expect("an end"),
            "succeeds" => {
                assert!(store.begin_build(&build, 2).await.expect("a row"));
                assert!(!store.begin_build(&build, 2).await.expect("a row"), "c20: no two builders take one build");
                store.end_build(&build, Ok(&image), 3).await.expect("an end");
            }
            _ => {}
        }
        builds.push(build);
    }
    assert_ne!(builds[0], builds[1]);
    assert_eq!(builds[1], builds[2]);
}

#[tokio::test]
async fn a_write_that_begins_with_reading_waits_for_another_program_to_end_its_own() {
    let (folder, store) = store().await;
    let id = made(&store, "hello").await[0].id.clone();
    let other = Store::open(&folder.path().join("dormouse.db")).await.expect("a second handle");
    let mut held = other.begin().await.expect("the lock");
    let mut environment = held.environment(id.as_str()).await.expect("it reads").expect("it is there");
    environment.retry_at = 9;
    held.save(&mut environment, 1).await.expect("it is written");
    let write = store.change_environment(&id, 1, |environment| environment.failures = 7);
    let (written, ()) = tokio::join!(write, async {
        // Long enough for the other one to come to the lock; if it is slower, it does not have to wait.
        tokio::time::sleep(Duration::from_millis(200)).await;
        held.commit().await.expect("it is written");
    });
    let written = written.expect("it waited, and did not fail");
    assert_eq!((written.failures, written.retry_at), (7, 9), "nothing of the other one's is lost");
    assert_eq!(other.environment(&id).await.expect("it reads").expect("it is there").failures, 7);
}
