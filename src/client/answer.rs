//! What the API answers, as far as it is shown. Fields that are not known are left alone: a newer control plane may have
//! more to say.

use serde::Deserialize;

/// All applications.
#[derive(Debug, Deserialize)]
pub(super) struct Apps {
    pub(super) apps: Vec<App>,
}

/// An application.
#[derive(Debug, Deserialize)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) branch: String,
    pub(super) git_url: String,
    pub(super) created_at: u64,
    pub(super) environments: Vec<Environment>,
}

/// An environment of an application.
#[derive(Debug, Deserialize)]
pub(super) struct Environment {
    pub(super) name: String,
    pub(super) urls: Vec<String>,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) serving: Option<Deployment>,
    pub(super) latest: Option<Deployment>,
    pub(super) sleep_after_ms: Option<u64>,
    pub(super) ready_within_ms: u64,
    /// Absent from a control plane that knows no limits.
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpus_milli: Option<u64>,
    pub(super) processes: Option<u64>,
    pub(super) last_active_at: Option<u64>,
    /// Absent from a control plane that knows none.
    #[serde(default)]
    pub(super) policy: Policy,
}

/// What a policy says, in short.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Policy {
    pub(super) maintenance: bool,
    pub(super) paused: bool,
    pub(super) protected_by: Vec<String>,
    pub(super) users: Vec<String>,
    pub(super) indexed: bool,
}

impl Policy {
    /// Why visitors may not get what the environment's state lets one think.
    pub(super) fn notes(&self) -> Vec<&'static str> {
        let all =
            [(self.maintenance, "maintenance"), (self.paused, "paused"), (!self.protected_by.is_empty(), "protected")];
        all.into_iter().filter_map(|(is, note)| is.then_some(note)).collect()
    }
}

/// A deployment of an environment.
#[derive(Debug, Deserialize)]
pub(super) struct Deployment {
    pub(super) number: u64,
    pub(super) commit: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) last_lines: Vec<String>,
    pub(super) created_at: u64,
}

/// Why something was refused (RFC 9457, and what to do).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Problem {
    pub(super) title: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
}

/// One object of a progress stream.
#[derive(Debug, Deserialize)]
pub(super) struct Progress {
    pub(super) line: Option<String>,
    pub(super) done: Option<Done>,
}

/// How it ended.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) ok: bool,
    pub(super) text: String,
}

/// A line that a container wrote.
#[derive(Debug, Deserialize)]
pub(super) struct LogLine {
    /// Absent in what only says that the stream is alive.
    pub(super) text: Option<String>,
}
