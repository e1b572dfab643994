//! A clock that was set back since something was written: what stands in the future.
//!
//! Limits are counted from times in the store, and one from the future would stretch its limit until the clock is there
//! again. So it counts as now, and is written as such: only read so, it would be now anew at each look, and its limit never
//! come. Called by the reconciler, which looks at all of an environment's rows.

use crate::act::BACKOFF;
use crate::model::{Environment, Instance, Millis};
use crate::store::StoreError;
use crate::world::World;

/// The environment as it may be now; its instances, too.
pub(crate) async fn catch_up(
    world: &World,
    environment: Environment,
    instances: &mut [Instance],
    now: Millis,
) -> Result<Environment, StoreError> {
    if retired_by(instances, now) == Before::Ahead {
        world.store.retired_by(&environment.id, now).await?;
    }
    let mut expected = environment.clone();
    as_of(&mut expected, now);
    if expected == environment {
        return Ok(environment);
    }
    tracing::info!(environment.id = %environment.id, "the clock was set back; limits count from now");
    let changed = world.store.change_environment(&environment.id, now, |environment| as_of(environment, now)).await?;
    world.publish_poke.notify_one();
    Ok(changed)
}

/// What the environment says of the future counts as now, and its back-off ends no later than one that begins now. Pure.
pub(crate) fn as_of(environment: &mut Environment, now: Millis) {
    let longest = BACKOFF.delay(environment.failures.max(1), 1.0);
    environment.state_since = environment.state_since.min(now);
    environment.last_active_at = environment.last_active_at.map(|at| at.min(now));
    environment.retry_at = environment.retry_at.min(now + Millis::try_from(longest.as_millis()).unwrap_or(Millis::MAX));
}

/// Where times stood before they were looked at.
#[derive(PartialEq, Eq)]
pub(crate) enum Before {
    /// At most at now.
    Past,
    /// One of them in the future.
    Ahead,
}

/// No instance was retired later than now. Pure.
pub(crate) fn retired_by(instances: &mut [Instance], now: Millis) -> Before {
    let mut before = Before::Past;
    for (_, at) in instances.iter_mut().filter_map(|instance| instance.retired.as_mut()) {
        if *at > now {
            (*at, before) = (now, Before::Ahead);
        }
    }
    before
}
