//! The signals that end the program.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

/// Listens for them from when it is made.
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Cancel safe: signals that come meanwhile are kept.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Does the work, unless a signal ends the command before. For work that leaves something to be put in order by its drop; what has
/// nothing of that is better ended by the signal itself.
pub(crate) async fn or_ended<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let exit = tokio::select! {
        done = work => return done,
        _ = interrupt.recv() => Exit::Interrupted,
        _ = quit.recv() => Exit::Quit,
        _ = terminate.recv() => Exit::Terminated,
    };
    Err(Failure::new(exit, ""))
}

/// Listens for one kind of signal.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Software, "cannot listen for signals").because(&error))
}
