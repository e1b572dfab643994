//! The front beside a bare Pingora proxy, in one run: what a request costs, and what an idle connection holds.
//!
//! `cargo bench --bench front`, with `-- --full` for more rounds, with `-- --only cpu` for one part of `cpu`, `hosts`, `idle`,
//! `unread`, `slow`.
//! The bench starts itself again as the origin and as the bare proxy; Dormouse is the release program, `dormouse edge --table`.
//! docs/benchmarks.md tells what the figures mean.

mod bare;
mod cpu;
#[path = "../road/figures.rs"]
mod figures;
mod gauge;
mod hosts;
mod idle;
mod origin;
mod rivals;
mod slow;
mod unread;

use std::process::ExitCode;

/// What the release program uses: both rivals get the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nobody tells failures apart here: all of them end it, with their words.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The host that both serve.
pub(crate) const HOST: &str = "localhost";

/// How much is measured.
#[derive(Clone, Debug)]
struct Extent {
    rounds: usize,
    only: Option<String>,
}

impl Extent {
    fn told(words: &[String]) -> Self {
        let full = words.iter().any(|word| word == "--full");
        let only = words.iter().position(|word| word == "--only").and_then(|at| words.get(at + 1)).cloned();
        Self { rounds: if full { 11 } else { 5 }, only }
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        [_, origin::ROLE] => origin::run(),
        [_, bare::ROLE, ref told @ ..] => bare::run(told),
        _ => measure(&Extent::told(&words.iter().map(ToString::to_string).collect::<Vec<_>>())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(extent: &Extent) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stage = rivals::Stage::new().await?;
        if extent.has("cpu") {
            cpu::run(&stage, extent.rounds).await?;
        }
        if extent.has("hosts") {
            hosts::run(&stage, extent.rounds).await?;
        }
        if extent.has("idle") {
            idle::run(&stage).await?;
        }
        if extent.has("unread") {
            unread::run(&stage).await?;
        }
        if extent.has("slow") {
            slow::run(&stage).await?;
        }
        Ok(())
    })
}
