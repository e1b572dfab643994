//! A visitor's password, as its developer says it: asked for at a terminal, or the first line of stdin, and never a word of the
//! command line or a variable, which others can see. It leaves this program as its hash only.
//!
//! While it is asked for, the terminal does not show what is typed. It does again when the [`Hidden`] is dropped, so who asks is to be
//! dropped at a signal ([`or_ended`]), and not ended by it.

use std::future::Future;
use std::io::{self, BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::ends::or_ended;
use crate::failure::{Exit, Failure};

/// The longest password, in bytes; browsers send all of it with each request.
const PASSWORD_MAX_BYTES: u64 = 256;

/// The terminal, while it does not show what is typed.
struct Hidden {
    shown: Termios,
}

/// Does the work of which asking for this user's password is a part.
pub(super) async fn asking<T>(
    user: Option<&str>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if user.is_some() && io::stdin().is_terminal() { or_ended(work).await } else { work.await }
}

/// The hash of the password that is said for this user.
pub(super) async fn hashed(user: &str) -> Result<String, Failure> {
    let password = if io::stdin().is_terminal() { ask(user).await? } else { line()? };
    check(&password)?;
    dormouse_proxy::hash_password(&password)
        .map_err(|error| Failure::new(Exit::Software, "cannot make a hash of the password").because(&error))
}

fn check(password: &str) -> Result<(), Failure> {
    let wrong = if password.is_empty() {
        "the password is empty".to_owned()
    } else if password.len() as u64 > PASSWORD_MAX_BYTES {
        format!("the password has more than {PASSWORD_MAX_BYTES} bytes")
    } else if password.contains(char::is_control) {
        "the password has control characters, which no browser sends".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Data, wrong).hint("give it as one line on stdin; nothing was changed"))
}

/// Twice, so that a slip of the finger locks nobody out.
async fn ask(user: &str) -> Result<String, Failure> {
    let first = hidden(&format!("password of {user}: ")).await?;
    check(&first)?;
    if hidden("the same again: ").await? != first {
        return Err(Failure::new(Exit::Data, "the two passwords differ").hint("try again; nothing was changed"));
    }
    Ok(first)
}

/// A line of the terminal that is not shown.
async fn hidden(prompt: &str) -> Result<String, Failure> {
    let _nobody_reads = write!(io::stderr(), "{prompt}").and_then(|()| io::stderr().flush());
    let _hidden = Hidden::begin().map_err(cannot_ask)?;
    let (say, said) = oneshot::channel();
    // No task of the runtime: the program would wait for the line at its end, and nobody types it then.
    let reader = std::thread::Builder::new().spawn(move || drop(say.send(line())));
    reader.map_err(cannot_ask)?;
    said.await.unwrap_or_else(|gone| Err(Failure::new(Exit::Software, "cannot ask for a password").because(&gone)))
}

fn cannot_ask(error: io::Error) -> Failure {
    Failure::new(Exit::Unavailable, "cannot ask for a password").because(&error)
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let shown = tcgetattr(io::stdin())?;
        let mut modes = shown.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
        Ok(Self { shown })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyway.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.shown);
        // The line's end was typed unseen.
        let _nobody_reads = writeln!(io::stderr());
    }
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    // One byte more than there may be shows that it is too long; so may its end be.
    let read = io::stdin().lock().take(PASSWORD_MAX_BYTES + 3).read_line(&mut line);
    read.map_err(|error| Failure::new(Exit::Data, "cannot read the password from stdin").because(&error))?;
    let ended = line.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(ended.unwrap_or(&line).to_owned())
}
