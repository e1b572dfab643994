//! Builds by the engine's classic builder, which all engines from 20.10 on have without anything else installed.
//!
//! No layer cache: a commit is built from what its Dockerfile says today. When the future is dropped, so is the
//! connection, and the engine stops the build.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::image::{described, sweep};
use super::layers::{self, Added};
use super::{Docker, Fault, IMAGE, PART};
use crate::engine::lines::Lines;
use crate::engine::log::Log;
use crate::engine::{BUILD, Build, BuildError, EngineError, Image, NO_DOCKERFILE};

/// The memory a step of a build may use, in bytes, with no swap beyond it; the most that the builder's interface can say.
const STEP_MEMORY: i32 = 2047 * 1024 * 1024;

/// The processors a step may use: a quota of microseconds in each period of them.
const STEP_CPU_PERIOD_US: i32 = 100_000;
const STEP_CPU_QUOTA_US: i32 = 2 * STEP_CPU_PERIOD_US;

/// Layers of base images whose progress is remembered, so that each state is told once.
const LAYERS_MAX: usize = 1024;

/// What the engine may take to stop a build that was dropped, before its layers are free to be removed.
const STOPPED_WITHIN: Duration = Duration::from_secs(3);

impl Docker {
    pub(super) async fn build_image(&self, build: Build, log: mpsc::Sender<String>) -> Result<Image, BuildError> {
        if crate::context::dockerfile(&build.context).is_none() {
            return Err(BuildError::Failed(NO_DOCKERFILE.to_owned()));
        }
        let mut told = Told::new(log, self.client());
        let deadline = build.deadline;
        match tokio::time::timeout(deadline, self.run_build(build, &mut told)).await {
            Err(_) => Err(BuildError::Deadline(deadline)),
            Ok(built) => {
                told.layers.settle(built.as_ref().err()).await;
                built
            }
        }
    }

    async fn run_build(&self, build: Build, told: &mut Told) -> Result<Image, BuildError> {
        let of = build.labels.get(BUILD).map_or("", String::as_str);
        let instruction = layers::instruction(&self.installation, of);
        let mut added = Added::default();
        let labelled = crate::context::with_dockerfile(&build.context, |text| {
            let labelled = layers::labelled(text, &instruction);
            added = labelled.added;
            labelled.text
        });
        let body = match labelled {
            Some(pieces) => bollard::body_stream(futures_util::stream::iter(pieces)),
            None => bollard::body_full(build.context),
        };
        let mut labels = self.labels(&[(PART, IMAGE)]).unwrap_or_default();
        labels.extend(build.labels);
        let tag = self.tag(&build.tag);
        let options = BuildImageOptions {
            t: Some(tag.clone()),
            nocache: true,
            rm: true,
            // Else a step that cannot be started leaves a container behind.
            forcerm: true,
            labels: Some(labels),
            // What it runs is somebody's, like an instance: it reaches the outside, but neither instances nor other builds.
            networkmode: Some(self.build_network().await?),
            memory: Some(STEP_MEMORY),
            memswap: Some(STEP_MEMORY),
            cpuperiod: Some(STEP_CPU_PERIOD_US),
            cpuquota: Some(STEP_CPU_QUOTA_US),
            ..Default::default()
        };
        let client = self.client();
        let mut stream = client.build_image(options, None, Some(body));
        let mut id = None;
        while let Some(info) = stream.next().await {
            let info = info.map_err(|error| self.build_error(error.into(), &added))?;
            id = info.aux.as_ref().and_then(|aux| aux.id.clone()).or(id);
            told.take(info).await;
        }
        told.finish().await;
        let cut_off = || {
            let words = "the build's stream ended before the image was there";
            self.build_error(Fault::Silent(words.into()), &Added::default())
        };
        let id = id.ok_or_else(cut_off)?;
        let image = self.inspect(&id).await?.and_then(described);
        image.ok_or_else(cut_off)
    }

    fn build_error(&self, fault: Fault, added: &Added) -> BuildError {
        match fault {
            Fault::Said { says, .. } if says.contains("no space left on device") => {
                BuildError::Engine(EngineError::Refused { doing: "build the image".to_owned(), says })
            }
            Fault::Said { status: 503, says } => {
                BuildError::Engine(EngineError::Refused { doing: "build the image".to_owned(), says })
            }
            Fault::Said { says, .. } => BuildError::Failed(words(&added.counted_back(&says))),
            fault => BuildError::Engine(self.error("build the image", fault)),
        }
    }
}

/// The engine's words about a failed build, for its developer.
fn words(says: &str) -> String {
    if says.contains("requires BuildKit") {
        return "the Dockerfile uses RUN --mount or something else that only BuildKit can do, and images are built \
                without BuildKit here: write it without"
            .to_owned();
    }
    if says.ends_with("returned a non-zero code: 137") {
        return format!("{says} (killed: it may have used more memory than the {} MiB of a step)", STEP_MEMORY >> 20);
    }
    says.to_owned()
}

/// What a build told so far.
struct Told {
    log: Log,
    lines: Lines,
    /// The last state of each layer that is fetched.
    states: HashMap<String, String>,
    layers: Layers,
    /// Whether the step that runs only names a base image.
    from: bool,
}

impl Told {
    fn new(log: mpsc::Sender<String>, client: bollard::Docker) -> Self {
        let layers = Layers { client, made: Vec::new(), stages: 0 };
        Self { log: Log::new(log), lines: Lines::default(), states: HashMap::new(), layers, from: false }
    }

    async fn take(&mut self, info: BuildInfo) {
        if let Some(text) = info.stream {
            for line in self.lines.push(text.as_bytes()) {
                self.line(line).await;
            }
        }
        if let Some(status) = info.status {
            let layer = info.id.unwrap_or_default();
            if self.states.get(&layer) != Some(&status) && self.states.len() < LAYERS_MAX {
                let line = if layer.is_empty() { status.clone() } else { format!("{layer}: {status}") };
                self.states.insert(layer, status);
                self.log.line(line).await;
            }
        }
    }

    async fn line(&mut self, line: String) {
        if let Some((_, step)) = line.strip_prefix("Step ").and_then(|rest| rest.split_once(" : ")) {
            self.from = step.to_ascii_uppercase().starts_with("FROM ");
            self.layers.stages += usize::from(self.from);
        } else if let Some(made) = line.strip_prefix(" ---> ").filter(|made| is_short_id(made))
            && !self.from
        {
            self.layers.made.push(made.to_owned());
        }
        self.log.line(line).await;
    }

    async fn finish(&mut self) {
        for line in self.lines.finish() {
            self.line(line).await;
        }
    }
}

/// The images a build made on its way. What is left of them when a build ends early is removed.
struct Layers {
    client: bollard::Docker,
    made: Vec<String>,
    stages: usize,
}

impl Layers {
    /// The build is over. One that failed leaves all its layers, one in several stages those of all but the last.
    async fn settle(&mut self, error: Option<&BuildError>) {
        let made = std::mem::take(&mut self.made);
        match error {
            Some(BuildError::Engine(EngineError::Unavailable { .. })) => {}
            None if self.stages < 2 => {}
            _ => sweep(&self.client, &made).await,
        }
    }
}

impl Drop for Layers {
    /// The build was dropped in the middle.
    fn drop(&mut self) {
        let made = std::mem::take(&mut self.made);
        if let (false, Ok(runtime)) = (made.is_empty(), tokio::runtime::Handle::try_current()) {
            let client = self.client.clone();
            runtime.spawn(async move {
                tokio::time::sleep(STOPPED_WITHIN).await;
                sweep(&client, &made).await;
            });
        }
    }
}

/// Whether it is an image's id as a build tells it, rather than other words.
fn is_short_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
