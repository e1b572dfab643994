//! A visitor's password, as its developer says it: asked for at a terminal, or the first line of stdin, and never a word of the
//! command line or a variable, which others can see. It leaves this program as its hash only.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::failure::{Exit, Failure};

/// The longest password, in bytes; browsers send all of it with each request.
const PASSWORD_MAX_BYTES: u64 = 256;

/// The hash of the password that is said for this user.
pub(super) fn hashed(user: &str) -> Result<String, Failure> {
    let password = if io::stdin().is_terminal() { ask(user)? } else { line()? };
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
fn ask(user: &str) -> Result<String, Failure> {
    let first = hidden(&format!("password of {user}: "))?;
    check(&first)?;
    if hidden("the same again: ")? != first {
        return Err(Failure::new(Exit::Data, "the two passwords differ").hint("try again; nothing was changed"));
    }
    Ok(first)
}

/// A line of the terminal that is not shown.
fn hidden(prompt: &str) -> Result<String, Failure> {
    let cannot = |error: io::Error| Failure::new(Exit::Unavailable, "cannot ask for a password").because(&error);
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).map_err(|error| cannot(error.into()))?;
    let mut modes = shown.clone();
    modes.local_modes.remove(LocalModes::ECHO);
    let mut out = io::stderr().lock();
    let _nobody_reads = write!(out, "{prompt}").and_then(|()| out.flush());
    tcsetattr(&stdin, OptionalActions::Flush, &modes).map_err(|error| cannot(error.into()))?;
    let password = line();
    tcsetattr(&stdin, OptionalActions::Now, &shown).map_err(|error| cannot(error.into()))?;
    let _nobody_reads = writeln!(out);
    password
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    // One byte more than there may be shows that it is too long; so may its end be.
    let read = io::stdin().lock().take(PASSWORD_MAX_BYTES + 3).read_line(&mut line);
    read.map_err(|error| Failure::new(Exit::Data, "cannot read the password from stdin").because(&error))?;
    let ended = line.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(ended.unwrap_or(&line).to_owned())
}
