//! Deploy, sleep, wake, delete: what takes its time. Progress is shown as it comes; the end decides the exit code.

use std::time::Duration;

use reqwest::Method;

use super::answer::{Done, Progress};
use super::api::Api;
use super::stream::{Lines, Silence};
use super::{Format, show};
use crate::cli::TargetArgs;
use crate::failure::{Exit, Failure};

/// Work says at least every 5 seconds that it goes on.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What to do with an environment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    /// Build and deploy, or promote.
    Deploy,
    /// Stop its containers until somebody comes.
    Sleep,
    /// Start them again.
    Wake,
}

/// Does it, and waits for its end.
pub(super) async fn run(verb: Verb, target: &TargetArgs) -> Result<(), Failure> {
    let (word, doing) = match verb {
        Verb::Deploy => ("deploy", "deploying"),
        Verb::Sleep => ("sleep", "putting to sleep"),
        Verb::Wake => ("wake", "waking"),
    };
    let (name, environment) = (&target.name, &target.environment);
    let path = format!("/apps/{name}/environments/{environment}/{word}");
    let what = format!("{doing} {name} ({environment})");
    follow(&Api::new(&target.api)?, Method::POST, &path, &what).await
}

/// Asks for something that takes its time, and follows it to its end.
pub(super) async fn follow(api: &Api, method: Method, path: &str, what: &str) -> Result<(), Failure> {
    let done = to_its_end(api, method, path, what).await?;
    match (done.ok, api.format) {
        (true, Format::Json) => Ok(()),
        (true, Format::Text) => Failure::print(&format!("{}\n", show::plain(&done.text))),
        (false, _) => Err(Failure::new(Exit::Failed, show::plain(&done.text))),
    }
}

/// Asks for something that takes its time, shows what happens, and returns how it ended.
pub(super) async fn to_its_end(api: &Api, method: Method, path: &str, what: &str) -> Result<Done, Failure> {
    let spinner = show::Spinner::new(what);
    let response = api.send(method, path, None).await?;
    let mut lines = Lines::new(api, response, Silence::AtMost(SILENCE_MAX));
    while let Some(text) = lines.next().await? {
        let progress: Progress = serde_json::from_str(&text).map_err(|error| api.strange().because(&error))?;
        if api.format == Format::Json && (progress.line.is_some() || progress.done.is_some()) {
            spinner.aside(|| Failure::print(&format!("{text}\n")))?;
        } else if let Some(line) = &progress.line {
            spinner.aside(|| show::note(line));
        }
        if let Some(done) = progress.done {
            return Ok(done);
        }
    }
    Err(api.broken())
}
