//! The loop that turns the builds that somebody needs into images, a few at a time.
//!
//! Need is looked at anew each time: the newest first, and a build that nobody needs any more (its deployment was superseded,
//! its application deleted) is stopped, not finished.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dormouse_link::Label;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::{self, ContextError};
use crate::crash::Point;
use crate::engine::{Build as BuildSpec, BuildError, EngineError, Image};
use crate::error::chain;
use crate::git::{Commit, Repository};
use crate::journal::Log;
use crate::model::{App, Build, BuildState, now};
use crate::store::StoreError;
use crate::world::World;

/// Builds at one time; further ones wait in the store.
const BUILDS_AT_ONCE: usize = 2;

/// A build is stopped after this time, unless the configuration says otherwise (Divio's limit).
pub const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// How many lines of a build are told again at its end, where its log was full by then.
const LAST_LINES: usize = 50;

/// Lines of a build that wait to be written to its log.
const LOG_QUEUE: usize = 256;

/// What is needed is looked at this often, poke or not.
const PERIOD: Duration = Duration::from_secs(30);

/// How long a build waits before it is begun again where its engine went away, or the store could not be read.
const LATER: Duration = Duration::from_secs(3);

/// Why a build ends that was stopped.
const UNNEEDED: &str = "nobody needs this build any more";

/// Why there is no image.
enum NoImage {
    /// In words for its developer.
    Failed(String),
    /// Nobody needs it any more.
    Unneeded,
    /// It is nobody's fault, and to be tried again. In words for the log.
    Later(&'static str),
}

/// Starts the loop.
pub(crate) fn start(world: &Arc<World>) {
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn("builder", async move { run(&world).await });
}

async fn run(world: &Arc<World>) {
    let stop = world.tasks.token();
    // Whoever builds holds a clone of its token; one that ended has dropped it.
    let mut running: HashMap<String, Running> = HashMap::new();
    loop {
        running.retain(|_, build| !build.ended.is_cancelled());
        if let Err(error) = look(world, &mut running).await {
            tracing::error!(error = chain(&error), "builds could not be looked at");
        }
        // Cancel safe: a poke given meanwhile is kept by `Notify`.
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = world.build_poke.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// A build under way.
struct Running {
    /// Cancelled when nobody needs it any more.
    needed: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

async fn look(world: &Arc<World>, running: &mut HashMap<String, Running>) -> Result<(), StoreError> {
    let ours: Vec<String> = running.keys().cloned().collect();
    world.store.requeue_builds(&ours).await?;
    let needed = world.store.needed_builds().await?;
    for (id, build) in running.iter() {
        if !needed.iter().any(|needed| needed.id == *id) {
            build.needed.cancel();
        }
    }
    for build in needed {
        if running.len() >= BUILDS_AT_ONCE {
            break;
        }
        if build.state == BuildState::Queued && world.store.begin_build(&build.id, now()).await? {
            running.insert(build.id.clone(), begin(world, build));
        }
    }
    Ok(())
}

fn begin(world: &Arc<World>, build: Build) -> Running {
    let running = Running { needed: CancellationToken::new(), ended: CancellationToken::new() };
    let (needed, ended) = (running.needed.clone(), running.ended.clone().drop_guard());
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn(format!("build {}", build.id), async move {
        if let Err(error) = build_one(&world, &build, &needed).await {
            // It stays noted as running and, being nobody's, goes back into the queue with the next look.
            tracing::error!(build.id = build.id, error = chain(&error), "a build's end was not written");
        }
        drop(ended);
        world.build_poke.notify_one();
        world.sweep_poke.notify_one();
        world.pokes.poke_all();
    });
    running
}

async fn build_one(world: &Arc<World>, build: &Build, needed: &CancellationToken) -> Result<(), StoreError> {
    let stop = world.tasks.token();
    let began = tokio::time::Instant::now();
    // Cancel safe: dropping the build stops it. One that the program's end cut off is begun again at the next start.
    let result = tokio::select! {
        result = image(world, build) => result,
        () = needed.cancelled() => Err(NoImage::Unneeded),
        () = stop.cancelled() => return Ok(()),
    };
    let log = Log::Build(&build.id);
    let took = began.elapsed();
    tracing::info!(build.id = build.id, commit = %build.commit, duration_ms = took.as_millis(), ok = result.is_ok(), "build ended");
    match result {
        Ok(image) => {
            world.crash.at(Point::Built).await;
            world.journal.say_last(log, &format!("Built image {} in {:.1} s.", short(&image.id), took.as_secs_f32()));
            world.store.end_build(&build.id, Ok(&image), now()).await
        }
        Err(NoImage::Failed(reason)) => {
            world.journal.say_last(log, &format!("The build failed: {reason}"));
            world.store.end_build(&build.id, Err(&reason), now()).await
        }
        Err(NoImage::Unneeded) => {
            // Said before it is written: then the application, and with it the log, may go.
            world.journal.say_last(log, &format!("The build was stopped: {UNNEEDED}"));
            // Whoever asked for the commit since then has joined this very build.
            if world.store.end_unneeded_build(&build.id, UNNEEDED, now()).await? {
                world.journal.say(log, "Somebody needs it again: it is begun anew.");
            }
            Ok(())
        }
        Err(NoImage::Later(why)) => {
            world.journal.say(log, why);
            tokio::select! {
                () = tokio::time::sleep(LATER) => {}
                () = stop.cancelled() => {}
            }
            world.store.requeue_build(&build.id).await
        }
    }
}

async fn image(world: &Arc<World>, build: &Build) -> Result<Image, NoImage> {
    let app = app_name(world, build).await?;
    let repository = Repository::at(world.repository(&build.app_id));
    let context = context::context(&repository, &build.commit).await.map_err(|error| {
        NoImage::Failed(match error {
            ContextError::Repository(error) => chain(&error),
            // These are words for the developer as they are.
            error => error.to_string(),
        })
    })?;
    world.journal.say(Log::Build(&build.id), &format!("Building commit {} of {app}.", build.commit.short()));
    let (lines, mut read) = mpsc::channel::<String>(LOG_QUEUE);
    let tag = world.image_tag(&app, &build.commit);
    let spec =
        BuildSpec { tag, context, labels: labels(&app, &build.commit, &build.id), deadline: world.build_deadline };
    let mut last = VecDeque::with_capacity(LAST_LINES + 1);
    let write = async {
        while let Some(line) = read.recv().await {
            world.journal.say(Log::Build(&build.id), &line);
            last.push_back(line);
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
    };
    let (result, ()) = tokio::join!(world.engine.build(spec, lines), write);
    // What says why stands at the end, which is where a log that is full has nothing.
    if result.is_err() && world.journal.is_full(Log::Build(&build.id)) {
        for line in ["Its last lines were:".to_owned()].iter().chain(&last) {
            world.journal.say_last(Log::Build(&build.id), line);
        }
    }
    result.map_err(|error| match error {
        BuildError::Engine(EngineError::Unavailable { .. }) => {
            NoImage::Later("The container engine is away; the build waits for it.")
        }
        BuildError::Engine(error) => NoImage::Failed(chain(&error)),
        error => NoImage::Failed(error.to_string()),
    })
}

async fn app_name(world: &World, build: &Build) -> Result<Label, NoImage> {
    let apps: Vec<App> = world.store.apps().await.map_err(|error| {
        tracing::error!(build.id = build.id, error = chain(&error), "the application of a build could not be read");
        NoImage::Later("The store could not be read; the build waits for it.")
    })?;
    let app = apps.into_iter().find(|app| app.id == build.app_id);
    app.map(|app| app.name).ok_or_else(|| NoImage::Failed("the application was deleted".to_owned()))
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

#[cfg(test)]
mod tests;
