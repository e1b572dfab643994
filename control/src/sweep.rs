//! The loop that removes what no row owns any more, and starts what has no loop yet.
//!
//! Instances on the engine, applications whose environments are gone (with their images, logs and repository): whatever a
//! crash, a deletion, a killed git or an engine that was away left over. What cannot be removed now is tried again.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::EngineError;
use crate::error::chain;
use crate::git::Repository;
use crate::journal::Log;
use crate::model::App;
use crate::reconcile;
use crate::store::StoreError;
use crate::world::World;

/// It is looked this often, poke or not.
const PERIOD: Duration = Duration::from_secs(20);

/// Why something was not removed.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Looks once, then starts the loop.
pub(crate) async fn start(world: &Arc<World>) {
    // Only now, when nobody makes any: a new application has its folder before its row.
    if let Err(error) = sweep_folders(world).await {
        tracing::warn!(error = chain(&error), "the data folder was not swept");
    }
    sweep(world).await;
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn("sweeper", async move {
        let stop = world.tasks.token();
        loop {
            // Cancel safe: a poke given meanwhile is kept by `Notify`.
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = world.sweep_poke.notified() => {}
                () = stop.cancelled() => return,
            }
            drop(reconcile::watch_all(&world).await);
            sweep(&world).await;
        }
    });
}

async fn sweep(world: &World) {
    if let Err(error) = sweep_instances(world).await {
        tracing::warn!(error = chain(&error), "the engine was not swept");
    }
    if let Err(error) = sweep_builds(world).await {
        tracing::warn!(error = chain(&error), "what builds left behind was not swept");
    }
    if let Err(error) = sweep_apps(world).await {
        tracing::warn!(error = chain(&error), "a deleted application was not removed yet");
    }
    if let Err(error) = sweep_repositories(world).await {
        tracing::warn!(error = chain(&error), "repositories were not swept");
    }
}

async fn sweep_repositories(world: &World) -> Result<(), StoreError> {
    for app in world.store.apps().await? {
        Repository::at(world.repository(&app.id)).remove_leftovers(std::time::SystemTime::now());
    }
    Ok(())
}

async fn sweep_instances(world: &World) -> Result<(), SweepError> {
    // First the engine, then the rows: a row is there before its containers are.
    let observed = world.inventory.look().await?;
    let known = world.store.instance_ids().await?;
    for observed in observed.iter().filter(|observed| !known.contains(&observed.id)) {
        tracing::info!(instance.id = %observed.id, "removing an instance that no row owns");
        or_next_time(world.engine.remove(&observed.id).await, "an instance");
    }
    Ok(())
}

/// What builds left behind that were cut off.
async fn sweep_builds(world: &World) -> Result<(), SweepError> {
    // First the engine, then the rows: a build is noted as running before it makes anything.
    let leftovers = world.engine.leftovers().await?;
    if leftovers.is_empty() {
        return Ok(());
    }
    let running = world.store.running_builds().await?;
    for leftover in leftovers.iter().filter(|leftover| !running.contains(&leftover.build)) {
        tracing::info!(image.id = leftover.image, build.id = leftover.build, "removing what a build left behind");
        or_next_time(world.engine.remove_leftover(leftover).await, "what a build left behind");
    }
    Ok(())
}

async fn sweep_apps(world: &World) -> Result<(), SweepError> {
    for app in world.store.apps().await? {
        let builds_run = world.store.builds_run(&app.id).await?;
        if !builds_run && world.store.environments_of(&app.id).await?.is_empty() {
            or_next_time(remove_app(world, &app).await, "a deleted application");
        }
    }
    Ok(())
}

/// One thing that cannot be removed keeps none of the others.
fn or_next_time(removed: Result<(), impl std::error::Error + 'static>, what: &str) {
    if let Err(error) = removed {
        tracing::warn!(error = chain(&error), what, "something that nobody owns was not removed yet");
    }
}

/// What is left of an application without environments. Its row goes last, so that all of it can be tried again.
async fn remove_app(world: &World, app: &App) -> Result<(), SweepError> {
    for commit in world.store.built_commits(&app.id).await? {
        world.engine.remove_image(&world.image_tag(&app.name, &commit)).await?;
    }
    for build in world.store.builds_of(&app.id).await? {
        world.journal.remove(Log::Build(&build));
    }
    remove_folder(&world.repository(&app.id)).await;
    Ok(world.store.forget_app(&app.id).await?)
}

/// Repositories and logs that no row owns.
async fn sweep_folders(world: &World) -> Result<(), StoreError> {
    let apps = world.store.apps().await?;
    for folder in std::fs::read_dir(&world.repositories).into_iter().flatten().flatten() {
        if !apps.iter().any(|app| world.repository(&app.id) == folder.path()) {
            remove_folder(&folder.path()).await;
        }
    }
    let mut owners = Vec::new();
    for app in &apps {
        owners.extend(world.store.builds_of(&app.id).await?);
    }
    for environment in world.store.environments().await? {
        owners.extend(world.store.deployment_ids(&environment.id).await?);
    }
    world.journal.retain(&owners);
    Ok(())
}

/// Removes a repository's folder, if it is there.
pub(crate) async fn remove_folder(folder: &std::path::Path) {
    if let Err(error) = tokio::fs::remove_dir_all(folder).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "a repository was not removed");
    }
}
