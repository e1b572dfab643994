//! The log, for operators: to stderr, a file or syslog. `DORMOUSE_LOG` says how much, as `tracing-subscriber`'s filters do.
//!
//! A thread of its own writes it, from a queue with a limit: nobody waits for a terminal, a disk or a daemon. Lines that find
//! no place in the queue are lost, and counted.

use std::io::{self, IsTerminal, Write};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::cli::LogOutput;
use crate::config::LogConfig;
use crate::failure::{Exit, Failure};

/// What is logged unless something else is asked for. Pingora tells of every client that leaves.
const DEFAULT: &str = "info,pingora=error,pingora_core=error,pingora_proxy=error,sqlx=warn";

/// Lines that wait to be written; more are lost.
const LINES_MAX: usize = 8192;

/// Starts the log of this process, which is written to its end when what is returned is dropped. A filter that makes no
/// sense is told, and the default taken.
pub(crate) fn start(config: &LogConfig) -> Result<WorkerGuard, Failure> {
    let wanted = config.filter.as_deref().map(EnvFilter::try_new);
    let complaint = wanted.as_ref().and_then(|wanted| wanted.as_ref().err().map(ToString::to_string));
    let filter = wanted.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(DEFAULT));
    let (output, colours): (Box<dyn Write + Send>, _) = match &config.output {
        LogOutput::Stderr => (Box::new(io::stderr()), io::stderr().is_terminal()),
        LogOutput::To(output) => {
            let opened = output.open_for_log().map_err(|error| {
                Failure::new(Exit::CannotCreate, "cannot open the log").because(&error).hint("say another with --log")
            })?;
            (opened, false)
        }
    };
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("dormouse-log");
    let (queue, guard) = queue.finish(output);
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue).with_target(false).with_ansi(colours);
    // Only a test starts it twice in one process; the first one stays.
    let _again = log.try_init();
    if let Some(complaint) = complaint {
        tracing::warn!("DORMOUSE_LOG is no filter ({complaint}); the default is used");
    }
    Ok(guard)
}
