//! The loop that turns queued builds into images, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use dormouse_link::Label;
use tokio::sync::{Semaphore, mpsc};

use crate::context;
use crate::engine::{Build as BuildSpec, BuildError, Image};
use crate::git::{Commit, Repository};
use crate::journal::Log;
use crate::model::{App, Build, now};
use crate::store::StoreError;
use crate::world::World;

/// Builds at one time; further ones wait in the store.
const BUILDS_AT_ONCE: usize = 2;

/// A build is stopped after this time (Divio's limit).
const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Lines of a build that wait to be written to its log.
const LOG_QUEUE: usize = 256;

/// The queue is looked at this often, poke or not.
const PERIOD: Duration = Duration::from_secs(30);

/// Starts the loop; builds that a crash left running are begun again.
pub(crate) async fn start(world: &Arc<World>) -> Result<(), StoreError> {
    world.store.requeue_builds().await?;
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn("builder", async move { run(&world).await });
    Ok(())
}

async fn run(world: &Arc<World>) {
    let stop = world.tasks.token();
    let places = Arc::new(Semaphore::new(BUILDS_AT_ONCE));
    loop {
        match world.store.queued_builds().await {
            Ok(builds) => {
                for build in builds {
                    let Ok(place) = places.clone().try_acquire_owned() else { break };
                    if !matches!(world.store.begin_build(&build.id, now()).await, Ok(true)) {
                        continue;
                    }
                    let world = world.clone();
                    let tasks = world.tasks.clone();
                    tasks.spawn(format!("build {}", build.id), async move {
                        build_one(&world, &build).await;
                        drop(place);
                        world.build_poke.notify_one();
                        world.pokes.poke_all();
                    });
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "builds could not be read"),
        }
        // Cancel safe: a poke given meanwhile is kept by `Notify`.
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = world.build_poke.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn build_one(world: &Arc<World>, build: &Build) {
    let stop = world.tasks.token();
    let began = tokio::time::Instant::now();
    // A build that is cut off by the program's end stays `running` in the store and is begun again at the next start.
    let result = tokio::select! {
        result = image(world, build) => result,
        () = stop.cancelled() => return,
    };
    let log = Log::Build(&build.id);
    let took = began.elapsed();
    let ended = match &result {
        Ok(image) => {
            world.journal.say(log, &format!("Built image {} in {:.1} s.", short(&image.id), took.as_secs_f32()));
            world.store.end_build(&build.id, Ok(image), now()).await
        }
        Err(reason) => {
            world.journal.say(log, &format!("The build failed: {reason}"));
            world.store.end_build(&build.id, Err(reason), now()).await
        }
    };
    if let Err(error) = ended {
        tracing::error!(build.id = build.id, error = &error as &dyn std::error::Error, "a build's end was not written");
    }
    tracing::info!(build.id = build.id, commit = %build.commit, duration_ms = took.as_millis(), ok = result.is_ok(), "build ended");
}

/// The image of a build; a reason in words for its developer where there is none.
async fn image(world: &Arc<World>, build: &Build) -> Result<Image, String> {
    let app = app_name(world, build).await?;
    let tag = world.image_tag(&app, &build.commit);
    let context = context::context(&Repository::at(world.repository(&build.app_id)), &build.commit)
        .await
        .map_err(|error| crate::error::chain(&error))?;
    world.journal.say(Log::Build(&build.id), &format!("Building commit {} of {app}.", build.commit.short()));
    let (lines, mut read) = mpsc::channel::<String>(LOG_QUEUE);
    let spec = BuildSpec {
        tag: tag.clone(),
        context,
        labels: labels(&app, &build.commit, &build.id),
        deadline: BUILD_DEADLINE,
    };
    let build_id = build.id.clone();
    let write = async {
        while let Some(line) = read.recv().await {
            world.journal.say(Log::Build(&build_id), &line);
        }
    };
    let (result, ()) = tokio::join!(world.engine.build(spec, lines), write);
    let image = result.map_err(|error| match error {
        BuildError::Engine(error) => crate::error::chain(&error),
        error => error.to_string(),
    })?;
    // Its application may have been deleted while it was built: then nobody else removes the image.
    if let Err(deleted) = app_name(world, build).await {
        world.engine.remove_image(&tag).await.map_err(|error| crate::error::chain(&error))?;
        return Err(deleted);
    }
    Ok(image)
}

async fn app_of(world: &World, build: &Build) -> Result<Option<App>, StoreError> {
    Ok(world.store.apps().await?.into_iter().find(|app| app.id == build.app_id))
}

async fn app_name(world: &World, build: &Build) -> Result<Label, String> {
    let app = app_of(world, build).await.map_err(|error| crate::error::chain(&error))?;
    app.map(|app| app.name).ok_or_else(|| "the application was deleted".to_owned())
}

fn labels(app: &Label, commit: &Commit, build: &str) -> std::collections::BTreeMap<String, String> {
    let label = |name: &str, value: String| (format!("dormouse.{name}"), value);
    [label("app", app.to_string()), label("commit", commit.to_string()), label("build", build.to_owned())].into()
}

/// The first twelve digits of an image's id, as Docker shows it.
fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    &id[..id.floor_char_boundary(12)]
}
