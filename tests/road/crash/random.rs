//! Ends at any moment of a busy time. The seed is printed; the moments it gives are the same, what they meet is not quite.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{order, times};
use crate::source::Source;
use crate::world::World;

const APPS: [&str; 3] = ["shop", "blog", "wiki"];

/// The longest life, in milliseconds, unless nothing happens as fast as that.
const LIFE_FAKE: u64 = 500;
const LIFE_DOCKER: u64 = 6000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c21_any_number_of_abrupt_ends_in_a_busy_time_leaves_order() {
    busy(World::fake().await, times("DORMOUSE_KILLS", 40), LIFE_FAKE).await;
}

mod docker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c22_the_program_killed_in_a_busy_time_leaves_order() {
        busy(World::program().await, times("DORMOUSE_KILLS_DOCKER", 5), LIFE_DOCKER).await;
    }
}

async fn busy(mut world: World, kills: u32, life: u64) {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    for app in APPS {
        world.create(app).await;
    }
    for kill in 0..kills {
        let moment = Duration::from_millis(dice.below(life));
        let work = APPS.map(|app| {
            let dice = Dice(dice.next());
            work(&world, app, kill, dice)
        });
        // It never ends by itself.
        let _cut_off = timeout(moment, futures_util::future::join_all(work)).await;
        world.kill();
        let left = order::whole_store(&world).await;
        let began = Instant::now();
        world.begin();
        if kill % 10 == 9 || kill + 1 == kills {
            order::comes(&world, left, began).await;
        } else {
            left.store.close().await;
        }
    }
    world.api("POST", "/apps", Some(json!({ "name": "shop" }))).await;
    world.pushed_by("after", "shop", &Source::says("after all")).await;
}

/// What developers and visitors do with one application, one after the other.
async fn work(world: &World, app: &str, life: u32, mut dice: Dice) {
    for turn in 0_u32.. {
        let test = format!("{app}-test.localhost");
        match dice.below(12) {
            0..=2 => {
                let source =
                    Source::says(&format!("{app} {life} {turn}")).builds_in(dice.below(50)).boots(dice.below(50));
                drop(world.push_by(&format!("{app}-{life}-{turn}"), app, &source).await);
            }
            3 => drop(world.push_by(&format!("{app}-{life}-{turn}"), app, &Source::exits(3)).await),
            4 => drop(world.api("POST", &format!("/apps/{app}/environments/live/deploy"), None).await),
            8 => drop(world.api("POST", &format!("/apps/{app}/environments/test/deploy"), None).await),
            5 => drop(world.api("POST", &format!("/apps/{app}/environments/test/sleep"), None).await),
            6 => drop(world.api("POST", &format!("/apps/{app}/environments/test/wake"), None).await),
            7 => {
                drop(world.api("DELETE", &format!("/apps/{app}"), None).await);
                drop(world.api("POST", "/apps", Some(json!({ "name": app }))).await);
            }
            _ => drop(world.visitor().get(&test, "/").await),
        }
    }
}

/// Numbers that look random, from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
