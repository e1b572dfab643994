//! How long a change waits for edges.

use dormouse_link::Report;

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
