//! How a command fails: an exit code for scripts, and for people what happened, why, and what to do.
//!
//! Everything that ends the program comes through here, and is told once, on stderr.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ContextValue;

use crate::plain;

/// Exit codes, after sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing is wrong: help was asked for, or the reader of the output left.
    Fine = 0,
    /// A deployment, or another thing that was asked for, was tried and failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 64,
    /// A name or value was refused: invalid, unknown, taken.
    Data = 65,
    /// The API, the Docker Engine or a port is not available.
    Unavailable = 69,
    /// The program is at fault.
    Software = 70,
    /// The data folder or a file in it cannot be written.
    CannotCreate = 73,
    /// Another process is at it; later it may work.
    TryLater = 75,
    /// The token was refused.
    NoPermission = 77,
    /// The configuration makes no sense.
    Configuration = 78,
    /// Ctrl-C, where the program had to put something in order first: 128 and the signal's number, as shells have it.
    Interrupted = 130,
    /// Ctrl-\, likewise.
    Quit = 131,
    /// `kill`, likewise.
    Terminated = 143,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// Fails with `what` happened: a sentence without its end.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), causes: Vec::new(), hint: None }
    }

    /// Fails because there is no room where `path` is.
    pub(crate) fn disk_full(path: &Path) -> Self {
        Self::new(Exit::CannotCreate, format!("the disk that holds {} is full", path.display()))
            .hint("free some space there (df tells how much there is), or name another folder with --data DIR")
    }

    /// Adds why, with all that is behind it.
    #[must_use]
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some libraries say the cause in the text already.
            if !self.causes.iter().any(|said| said.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Writes `text` to stdout, where results go. A reader who left has seen enough.
    pub fn print(text: &str) -> Result<(), Self> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Self::new(Exit::Fine, "")),
            Err(error) => Err(Self::new(Exit::CannotCreate, "cannot write the result").because(&error)),
        }
    }

    /// Tells it on stderr, and gives the exit code. That nobody listens changes nothing.
    pub fn tell(&self) -> ExitCode {
        if !self.what.is_empty() {
            let mut text = format!("error: {}\n", plain::message(&self.what));
            for cause in &self.causes {
                text += &format!("  cause: {}\n", plain::message(cause));
            }
            if let Some(hint) = &self.hint {
                text += &format!("hint: {}\n", plain::message(hint));
            }
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
        ExitCode::from(self.exit as u8)
    }
}

/// In one line, for logs.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl From<clap::Error> for Failure {
    fn from(mut error: clap::Error) -> Self {
        // What was said is said back, but one value stays one line.
        let said: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
        for (kind, value) in said {
            if let ContextValue::String(text) = value {
                error.insert(kind, ContextValue::String(plain::value(&text)));
            }
        }
        let text = error.render().to_string();
        if !error.use_stderr() {
            return Self::print(&format!("{}\n", text.trim_end())).err().unwrap_or_else(|| Self::new(Exit::Fine, ""));
        }
        let text = text.trim().strip_suffix("For more information, try '--help'.").unwrap_or(&text).trim();
        let what = text.strip_prefix("error: ").unwrap_or(text);
        Self::new(Exit::Usage, what).hint("--help behind a command tells what it takes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such file")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to read the token")]
    struct Outer(#[source] Inner);

    #[test]
    fn the_chain_of_causes_is_told_once_each() {
        let failure = Failure::new(Exit::Data, "cannot").because(&Outer(Inner)).because(&Inner);
        assert_eq!(failure.causes, ["failed to read the token", "no such file"]);
    }
}
