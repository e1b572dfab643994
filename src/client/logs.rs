//! What the containers of an environment wrote. Those lines are the result, so they go to stdout, exactly as they are.

use reqwest::Method;

use super::Format;
use super::answer::LogLine;
use super::api::Api;
use super::stream::{Lines, Silence};
use crate::cli::TargetArgs;
use crate::failure::Failure;

/// When there has been enough.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// What is there now.
    LastLine,
    /// Until somebody ends the command.
    Stopped,
}

/// Shows the last `tail` lines, and those to come if wanted.
pub(super) async fn run(target: &TargetArgs, until: Until, tail: u32) -> Result<(), Failure> {
    let api = Api::new(&target.api)?;
    let follow = matches!(until, Until::Stopped);
    let (name, environment) = (&target.name, &target.environment);
    let path = format!("/apps/{name}/environments/{environment}/logs?tail={tail}&follow={follow}");
    let response = api.send(Method::GET, &path, None).await?;
    let mut lines = Lines::new(&api, response, Silence::Allowed);
    while let Some(text) = lines.next().await? {
        let line: LogLine = serde_json::from_str(&text).map_err(|error| api.strange().because(&error))?;
        match (line.text, api.format) {
            (None, _) => {}
            (Some(_), Format::Json) => Failure::print(&format!("{text}\n"))?,
            (Some(line), Format::Text) => Failure::print(&format!("{}\n", line.trim_end_matches(['\r', '\n'])))?,
        }
    }
    Ok(())
}
