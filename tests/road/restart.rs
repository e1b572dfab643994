//! The program stops and starts: it carries on where it was.

use crate::on_both_engines;
use crate::source::Source;
use crate::world::World;

on_both_engines!(after_a_restart_live_serves_sleepers_sleep_and_nothing_is_left_over);

async fn after_a_restart_live_serves_sleepers_sleep_and_nothing_is_left_over(mut world: World) {
    world.deployed("shop", "the version").await;
    assert!(world.deploy("shop", "live").await.ok);
    assert!(world.put_to_sleep("shop", "test").await.ok);
    let secret = world.environment("shop", "live").await;
    let before = world.engine.instances().await.expect("the engine answers");
    world.restart().await;
    assert_eq!(world.environment("shop", "test").await["state"], "asleep");
    assert!(world.get("shop.localhost").await.body.contains("the version"));
    let after = world.engine.instances().await.expect("the engine answers");
    let ids = |all: &[dormouse_control::engine::Observed]| {
        let mut ids: Vec<_> = all.iter().map(|found| (found.id.clone(), found.status.clone())).collect();
        ids.sort_by(|a, b| a.0.cmp(&b.0));
        ids
    };
    assert_eq!(ids(&before), ids(&after), "the very same containers, as they were");
    assert_eq!(world.environment("shop", "live").await["serving"], secret["serving"]);
    assert_eq!(world.get("shop-test.localhost").await.status, 200, "and wake as ever");
    world.pushed("shop", &Source::says("next version")).await;
    assert!(world.get("shop-test.localhost").await.body.contains("next version"));
}
