//! The program: parse, build, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use dormouse::cli::{Cli, Command};
use dormouse::failure::Failure;
use dormouse::{app, client, config, edge};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // With huge pages a buffer that is hardly used counts whole: an idle connection costs three times as much memory. Where
    // the kernel has none, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match Cli::try_parse().map_err(Failure::from).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Up(args) => app::run_up(config::up(args)?),
        Command::Edge(args) => edge::run(config::edge(*args)?),
        Command::Client(command) => client::run(command),
    }
}
