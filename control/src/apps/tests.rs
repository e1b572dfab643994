//! How long a change waits for edges.

use dormouse_link::{Generation, ObjectId, Rejected, Report};

use super::*;
use crate::control::testing;

#[tokio::test]
async fn an_edge_that_does_not_take_a_change_is_not_waited_for_for_ever() {
    let (world, _data) = testing::world().await;
    create(&world, "shop".parse().expect("a name")).await.expect("it is made");
    let (_, environment) = find_environment(&world, "shop", "test").await.expect("it is there");
    assert_eq!(taken(&world, &environment).await, Taken::Applied, "there is nobody to wait for");
    world.signals.join(7);
    tokio::time::pause();
    assert_eq!(taken(&world, &environment).await, Taken::Kept);
    world.signals.hear(7, &Report::Acked { generation: environment.generation, rejected: Vec::new() }, now());
    assert_eq!(taken(&world, &environment).await, Taken::Applied);
}

/// Or else its owner would rely on what nobody serves by, be it who is let in.
#[tokio::test]
async fn a_change_that_an_edge_refused_is_not_told_as_taken() {
    let (world, _data) = testing::world().await;
    create(&world, "shop".parse().expect("a name")).await.expect("it is made");
    let (_, environment) = find_environment(&world, "shop", "test").await.expect("it is there");
    let generation = environment.generation;
    let id = ObjectId::Environment(environment.id.clone());
    let rejected = vec![Rejected { id, version: generation, reason: "it cannot be trusted".to_owned() }];
    world.signals.join(7);
    world.signals.hear(7, &Report::Acked { generation, rejected }, now());
    assert_eq!(taken(&world, &environment).await, Taken::Kept);
    let next = Environment { generation: Generation(generation.0 + 1), ..environment };
    world.signals.hear(7, &Report::Acked { generation: next.generation, rejected: Vec::new() }, now());
    assert_eq!(taken(&world, &next).await, Taken::Applied, "a later one was not refused");
}
