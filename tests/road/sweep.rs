//! What nobody owns goes, and one thing that cannot be removed keeps none of the others.

use std::time::Duration;

use dormouse_control::engine::Instance;
use dormouse_control::engine::fake::{Fault, Operation};
use dormouse_link::InstanceId;
use serde_json::json;
use tokio::time::Instant;

use crate::world::{SOON, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_be_removed_keeps_no_other() {
    let mut world = World::fake().await;
    world.deployed("shop", "the version").await;
    let fake = world.fake.clone().expect("the scripted engine");
    let own = world.engine.instances().await.expect("the engine answers").remove(0).id;
    let own = fake.instance(&own).expect("it is there");
    world.stop().await;
    for (id, last) in [("stray-1", 201), ("stray-2", 202), ("stray-3", 203)] {
        let std::net::IpAddr::V4(address) = own.address else { panic!("{own:?}") };
        let [a, b, c, _] = address.octets();
        let stray = Instance { id: InstanceId::new(id), address: [a, b, c, last].into(), ..own.clone() };
        world.engine.start(stray).await.expect("it starts");
    }
    fake.fail_next(Operation::Remove, Fault::Refused("device or resource busy".into()));
    // It is swept once before the start is over, and then not for a while.
    world.start().await;
    assert_eq!(world.engine.instances().await.expect("the engine answers").len(), 2, "its own, and the busy one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_whose_image_cannot_be_removed_keeps_no_other() {
    let world = World::fake().await;
    world.deployed("blog", "the version").await;
    world.create("shop").await;
    let fake = world.fake.clone().expect("the scripted engine");
    for _ in 0..100 {
        fake.fail_next(Operation::RemoveImage, Fault::Refused("image is in use".into()));
    }
    // They are looked at by their names, one after the other.
    for app in ["blog", "shop"] {
        let path = format!("/apps/{app}");
        // The first one does not end.
        tokio::select! {
            _end = world.follow("DELETE", &path) => {}
            () = until_without_environments(&world, app) => {}
        }
    }
    world.until_gone("shop").await;
    assert_eq!(world.api("GET", "/apps/blog", None).await.0, 200, "its image is still there");
}

async fn until_without_environments(world: &World, app: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let (status, found) = world.api("GET", &format!("/apps/{app}"), None).await;
        if status == 404 || found["environments"] == json!([]) {
            return;
        }
        assert!(Instant::now() < deadline, "{found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
