//! Whether, and by whom, the edge that serves is replaced: somebody knocks, or a signal has it start its successor itself.

use std::io;
use std::process::ExitStatus;

use dormouse_proxy::Proxy;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind};
use tokio::time::{sleep, timeout};

use super::door::Door;
use super::line::LineError;
use super::notify::Notify;
use super::upgrade::{self, ANSWER, Successor};
use crate::config::RunConfig;
use crate::ends;
use crate::failure::Failure;

/// Between two tries to listen to who knocks, after one that failed.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// See the module.
pub(super) struct Succession {
    quit: Signal,
    place: Option<(RunConfig, Door)>,
    notify: Notify,
}

/// Why the edge goes on by itself.
#[derive(Debug, thiserror::Error)]
enum NoSuccessor {
    #[error("this program was not found when it started")]
    NoProgram,
    #[error("start the successor")]
    Start(#[source] io::Error),
    #[error("the successor ended before it asked for the sockets ({0}); its own words say why")]
    Ended(ExitStatus),
    #[error("the successor did not ask for the sockets in time")]
    Silent,
    #[error("gather the sockets")]
    Sockets(#[source] io::Error),
    #[error(transparent)]
    Line(#[from] LineError),
}

impl Succession {
    /// Listens for the signal from now on. Without a door nobody can take over.
    pub(super) fn new(notify: Notify) -> Result<Self, Failure> {
        Ok(Self { quit: ends::listen(SignalKind::quit())?, place: None, notify })
    }

    /// Has a door for successors.
    pub(super) fn open(&mut self, run: RunConfig, door: Door) {
        self.place = Some((run, door));
    }

    /// Returns when another process serves and was told that this one accepts nothing more. What fails is logged.
    pub(super) async fn replaced(&mut self, proxy: &Proxy) {
        let Some((run, door)) = &self.place else { return nowhere(&mut self.quit).await };
        loop {
            let successor = tokio::select! {
                _ = self.quit.recv() => start(run, door, proxy, &self.notify).await,
                knocked = door.knocked() => match knocked {
                    Ok(stream) => offer(stream, run, proxy, &self.notify).await,
                    Err(error) => {
                        tracing::warn!(%error, "who knocks cannot be heard");
                        sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            match successor {
                Ok(successor) => {
                    tracing::info!(pid = successor.pid, "another process serves in place of this one");
                    return;
                }
                Err(error) => {
                    self.notify.ready();
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "not replaced; this process goes on serving"
                    );
                }
            }
        }
    }

    /// Leaves the place to the successor.
    pub(super) fn leave(self) {
        if let Some((_, door)) = self.place {
            door.leave();
        }
    }
}

async fn nowhere(quit: &mut Signal) {
    while quit.recv().await.is_some() {
        tracing::warn!("no upgrade without a folder for it: start with --run DIR");
    }
    std::future::pending().await
}

async fn offer(stream: UnixStream, run: &RunConfig, proxy: &Proxy, notify: &Notify) -> Result<Successor, NoSuccessor> {
    notify.reloading();
    let sockets = proxy.sockets().map_err(NoSuccessor::Sockets)?;
    let successor = upgrade::offer(stream, sockets, run.within).await?;
    // In this order: whoever is released may do all of it at once.
    proxy.step_back();
    notify.main_process(successor.pid.unsigned_abs());
    if let Err(error) = successor.release().await {
        proxy.alone();
        notify.main_process(std::process::id());
        return Err(error.into());
    }
    Ok(successor)
}

/// Starts this program again, as it is on disk now.
async fn start(run: &RunConfig, door: &Door, proxy: &Proxy, notify: &Notify) -> Result<Successor, NoSuccessor> {
    let (program, arguments) = &run.successor;
    let program = program.as_ref().ok_or(NoSuccessor::NoProgram)?;
    let mut child = Command::new(program).args(arguments).spawn().map_err(NoSuccessor::Start)?;
    tracing::info!(pid = child.id(), program = %program.display(), "started a successor");
    let knocked = tokio::select! {
        knocked = door.knocked() => knocked.map_err(NoSuccessor::Start),
        ended = child.wait() => Err(ended.map_or_else(NoSuccessor::Start, NoSuccessor::Ended)),
        () = sleep(run.within) => Err(NoSuccessor::Silent),
    };
    let offered = match knocked {
        Ok(stream) => offer(stream, run, proxy, notify).await,
        Err(error) => Err(error),
    };
    if offered.is_err() {
        end(child).await;
    }
    offered
}

/// Sees to it that a successor that does not succeed is gone: it knows by now, unless it hangs.
async fn end(mut child: Child) {
    if timeout(ANSWER, child.wait()).await.is_err() {
        // It may have ended just now.
        let _killed = child.kill().await;
    }
}
