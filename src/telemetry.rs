//! The log: to stderr, for operators. `DORMOUSE_LOG` says how much, as `tracing-subscriber`'s filters do.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// What is logged unless something else is asked for. Pingora tells of every client that leaves.
const DEFAULT: &str = "info,pingora=error,pingora_core=error,pingora_proxy=error,sqlx=warn";

/// Sends the log of this process to stderr. A filter that makes no sense is told, and the default taken.
pub(crate) fn start(filter: Option<&str>) {
    let wanted = filter.map(EnvFilter::try_new);
    let complaint = wanted.as_ref().and_then(|wanted| wanted.as_ref().err().map(ToString::to_string));
    let filter = wanted.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(DEFAULT));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    // Only a test starts it twice in one process; the first one stays.
    let _again = log.try_init();
    if let Some(complaint) = complaint {
        tracing::warn!("DORMOUSE_LOG is no filter ({complaint}); the default is used");
    }
}
