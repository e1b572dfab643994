//! Keeps every host's certificate fresh: long before it ends, and at once where the local authority is another one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::chain;
use crate::model::{Millis, now};
use crate::store::StoreError;
use crate::world::World;

/// A certificate is made anew at this age, which is half of its life.
const RENEW_AFTER: Duration = Duration::from_secs(200 * 24 * 3600);

/// Ages are looked at this often.
const PERIOD: Duration = Duration::from_secs(12 * 3600);

/// Looks once, then starts the loop.
pub(crate) async fn start(world: &Arc<World>) -> Result<(), StoreError> {
    renew(world, now()).await?;
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn("certificates", async move {
        let stop = world.tasks.token();
        loop {
            // Cancel safe: nothing is held.
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = renew(&world, now()).await {
                tracing::error!(error = chain(&error), "certificates could not be renewed");
            }
        }
    });
    Ok(())
}

async fn renew(world: &World, now: Millis) -> Result<(), StoreError> {
    let authority = world.authority.certificate();
    let other_authority = world.store.authority().await?.is_some_and(|noted| noted != authority);
    let mut all = true;
    let old = now - Millis::try_from(RENEW_AFTER.as_millis()).unwrap_or(Millis::MAX);
    for (host, certified_at) in world.store.hosts().await? {
        if certified_at > old && !other_authority {
            continue;
        }
        match world.authority.issue(&host, SystemTime::now()) {
            Ok(certificate) => world.store.certify(certificate, now).await?,
            // The old one goes on; it is tried again with the next look.
            Err(error) => {
                all = false;
                tracing::error!(%host, error = chain(&error), "a certificate could not be renewed");
            }
        }
    }
    // Noted last, and only when it is so for all: until then each look does all of it again.
    if all { world.store.note_authority(authority).await } else { Ok(()) }
}
