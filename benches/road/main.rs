//! The road from `git push` to a woken Test site, measured on the real program and the real engine of this machine.
//!
//! `cargo bench --bench road`, with `-- --full` for more of everything, with `-- --only wake` for one part of `wake`,
//! `push`, `rest`, `load`. What it makes it removes, however it ends. docs/benchmarks.md tells what the figures mean.

mod crowd;
mod engine;
mod figures;
mod load;
mod program;
mod push;
mod rest;
mod visitor;
mod wake;

use std::process::ExitCode;

use engine::Engine;
use program::Program;

/// Nobody tells failures apart here: all of them end it, with their words.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The measured application, and the hosts of its environments.
pub(crate) const APP: &str = "hello";
pub(crate) const TEST: &str = "hello-test.localhost";
pub(crate) const LIVE: &str = "hello.localhost";

/// How much is measured.
#[derive(Clone, Debug)]
struct Extent {
    /// Of each time.
    times: usize,
    deployments: usize,
    sleeps: usize,
    sleepers: usize,
    only: Option<String>,
}

impl Extent {
    fn told(words: &[String]) -> Self {
        let full = words.iter().any(|word| word == "--full");
        let only = words.iter().position(|word| word == "--only").and_then(|at| words.get(at + 1)).cloned();
        if full {
            Self { times: 20, deployments: 50, sleeps: 50, sleepers: 20, only }
        } else {
            Self { times: 20, deployments: 10, sleeps: 10, sleepers: 10, only }
        }
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&Extent::told(&words)))) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("error: {failed} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and removes what it made, even if it is interrupted. Returns how many requests failed under load.
async fn run(extent: &Extent) -> Result<u64> {
    let (engine, program) = (Engine::new(), Program::start().await?);
    let result = tokio::select! {
        result = measure(&program, &engine, extent) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    let (cleaned, stopped) = (engine.clean().await, program.stop().await);
    let failed = result?;
    cleaned.and(stopped)?;
    Ok(failed)
}

async fn measure(program: &Program, engine: &Engine, extent: &Extent) -> Result<u64> {
    program.create(APP).await?;
    let source = program.source(APP).await?;
    source.push("HEAD").await?;
    program.must(APP, "live", "deploy").await?;
    if extent.has("wake") {
        wake::run(program, engine, extent.times).await?;
    }
    if extent.has("push") {
        push::run(program, &source, extent.times).await?;
    }
    if extent.has("rest") {
        rest::idle(program).await?;
        rest::asleep(program, engine, extent.sleepers).await?;
    }
    let mut failed = 0;
    if extent.has("load") {
        failed += load::deployments(program, &source, extent.deployments).await?;
        failed += load::sleeps(program, extent.sleeps).await?;
    }
    Ok(failed)
}
