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
use super::passed;
use super::upgrade::{self, ANSWER, Successor};
use crate::config::RunConfig;
use crate::ends::{self, Ends};
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

/// Why an edge is to end.
pub(super) enum End {
    /// Another process serves, and was told that this one accepts nothing more.
    Replaced,
    /// It was told to. A successor that it started and that does not serve is to be seen off.
    Told(Option<Child>),
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

    /// Returns when this process is replaced, or told to end. What fails is logged.
    pub(super) async fn end(&mut self, proxy: &Proxy, ends: &mut Ends) -> End {
        let Self { quit, place, notify } = self;
        let Some((run, door)) = place else {
            tokio::select! {
                () = ends.told() => return End::Told(None),
                () = nowhere(quit) => {}
            }
            return std::future::pending().await;
        };
        loop {
            let mut child = None;
            // Each arm is cancel-safe: who knocks waits, and signals are kept.
            let successor = tokio::select! {
                () = ends.told() => return End::Told(None),
                _ = quit.recv() => start(&mut child, (run, door), proxy, notify, ends).await,
                knocked = door.knocked() => match knocked {
                    Ok(stream) => offer(stream, run, proxy, notify, ends).await,
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
                    return End::Replaced;
                }
                Err(NoSuccessor::Line(LineError::Told)) => return End::Told(child),
                Err(error) => {
                    tokio::select! {
                        () = see_off(&mut child) => {}
                        () = ends.told() => return End::Told(child),
                    }
                    notify.ready();
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

async fn offer(
    stream: UnixStream,
    run: &RunConfig,
    proxy: &Proxy,
    notify: &Notify,
    ends: &mut Ends,
) -> Result<Successor, NoSuccessor> {
    notify.reloading();
    let sockets = proxy.sockets().map_err(NoSuccessor::Sockets)?;
    let successor = upgrade::offer(stream, (sockets, upgrade::secrets(proxy)), run.within, ends).await?;
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

/// Starts this program again, as it is on disk now, as `child`.
async fn start(
    child: &mut Option<Child>,
    (run, door): (&RunConfig, &Door),
    proxy: &Proxy,
    notify: &Notify,
    ends: &mut Ends,
) -> Result<Successor, NoSuccessor> {
    let (program, arguments) = &run.successor;
    let program = program.as_ref().ok_or(NoSuccessor::NoProgram)?;
    let mut command = Command::new(program);
    command.args(arguments);
    // What the service manager passed was passed to this process.
    for name in passed::VARIABLES {
        command.env_remove(name);
    }
    let child = child.insert(command.spawn().map_err(NoSuccessor::Start)?);
    tracing::info!(pid = child.id(), program = %program.display(), "started a successor");
    let knocked = tokio::select! {
        knocked = door.knocked() => knocked.map_err(NoSuccessor::Start),
        ended = child.wait() => Err(ended.map_or_else(NoSuccessor::Start, NoSuccessor::Ended)),
        () = sleep(run.within) => Err(NoSuccessor::Silent),
        () = ends.told() => Err(LineError::Told.into()),
    };
    offer(knocked?, run, proxy, notify, ends).await
}

/// Sees to it that a successor that does not succeed is gone: it knows by now, unless it hangs.
pub(super) async fn see_off(child: &mut Option<Child>) {
    let Some(child) = child else { return };
    if timeout(ANSWER, child.wait()).await.is_err() {
        // It may have ended just now.
        let _killed = child.kill().await;
    }
}
