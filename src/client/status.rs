//! How environments stand: all in one table, or those of one application with the reasons.

use dormouse_link::Label;
use reqwest::Method;

use super::answer::{App, Apps, Deployment, Environment};
use super::api::Api;
use super::{Format, show};
use crate::failure::Failure;

/// How much of a commit is shown.
const COMMIT_DIGITS: usize = 10;

/// Shows all environments, or those of one application.
pub(super) async fn run(api: &Api, name: Option<&Label>) -> Result<(), Failure> {
    let (text, apps) = match name {
        Some(name) => {
            let (text, app): (_, App) = api.document(Method::GET, &format!("/apps/{name}"), None).await?;
            (text, vec![app])
        }
        None => {
            let (text, Apps { apps }) = api.document(Method::GET, "/apps", None).await?;
            (text, apps)
        }
    };
    if api.format == Format::Json {
        return Failure::print(&format!("{text}\n"));
    }
    if apps.is_empty() {
        show::note("no application yet; make one with: dormouse app create NAME");
        return Ok(());
    }
    let now = show::now();
    let rows = apps.iter().flat_map(|app| app.environments.iter().map(move |environment| row(app, environment, now)));
    let header = ["APP", "ENVIRONMENT", "STATE", "SERVING", "LATEST", "SLEEPS AFTER", "LAST ACTIVE", "ADDRESS"];
    Failure::print(&show::table(header, rows))?;
    if name.is_some() {
        for environment in apps.iter().flat_map(|app| &app.environments) {
            Failure::print(&details(environment, now))?;
        }
    }
    Ok(())
}

fn row(app: &App, environment: &Environment, now: u64) -> [String; 8] {
    let none = || "-".to_owned();
    let short = |deployment: &Deployment| {
        let commit: String = deployment.commit.chars().take(COMMIT_DIGITS).collect();
        format!("#{} {commit}", deployment.number)
    };
    let newer = environment
        .latest
        .as_ref()
        .filter(|latest| environment.serving.as_ref().is_none_or(|serving| serving.number != latest.number));
    [
        app.name.clone(),
        environment.name.clone(),
        state(environment),
        environment.serving.as_ref().map_or_else(none, short),
        newer.map_or_else(none, |latest| format!("{} {}", short(latest), latest.state)),
        environment.sleep_after_ms.map_or_else(|| "never".to_owned(), show::span),
        environment.last_active_at.map_or_else(none, |at| show::ago(at, now)),
        environment.urls.first().cloned().unwrap_or_else(none),
    ]
}

/// `ready`, or `ready (maintenance, protected)`.
fn state(environment: &Environment) -> String {
    let notes = environment.policy.notes();
    if notes.is_empty() { environment.state.clone() } else { format!("{} ({})", environment.state, notes.join(", ")) }
}

/// What does not fit a table: why an environment is as it is, and the last words of a container that failed.
fn details(environment: &Environment, now: u64) -> String {
    let mut text = String::new();
    if let Some(reason) = &environment.reason {
        text += &format!("\n{}: {}\n", environment.name, show::plain(reason));
        for line in environment.serving.iter().flat_map(|serving| &serving.last_lines) {
            text += &format!("  | {}\n", show::plain(line));
        }
    }
    if let Some(latest) = environment.latest.as_ref().filter(|latest| latest.state == "failed") {
        let reason = latest.reason.as_deref().unwrap_or("no reason is known");
        let when = show::ago(latest.created_at, now);
        text += &format!(
            "\n{}: deployment #{} ({when}) failed: {}\n",
            environment.name,
            latest.number,
            show::plain(reason)
        );
        for line in &latest.last_lines {
            text += &format!("  | {}\n", show::plain(line));
        }
    }
    text
}
