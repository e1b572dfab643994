//! An edge takes the place of another, in a conversation over one line:
//!
//! ```text
//!     successor                                   the one that serves
//!     Hello{version}                        →
//!                                           ←     Offer{sockets, secrets}, then Sockets… until all are there
//!     (binds or adopts, loads its table, serves beside the other)
//!     Ready                                 →
//!                                           ←     Released, and it accepts nothing more
//! ```
//!
//! Until `Released` the old one serves as if nothing had happened, whatever becomes of the other; and no socket is without a
//! process that holds it. Either may say why not, and end the conversation; the old one does when it is told to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use dormouse_proxy::{Address, Keeper, Listening, OwnTicketKey, Proxy, TicketKey, gather};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::door;
use super::line::{Described, Keeps, Kind, Line, LineError, Message, SOCKETS_PER_MESSAGE, Secret, VERSION};
use crate::ends::Ends;
use crate::failure::{Exit, Failure};
use crate::plain;

/// For each message but `Ready`, whose time a flag says.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// For the end of a process that gave up the line without a word.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Sockets that are taken.
const SOCKETS_MAX: usize = 4096;

/// Secrets that are taken, and given: a few for each listener.
const SECRETS_MAX: usize = 64;

/// Before the listener's name: a secret of session tickets that the old one made itself.
const TICKET_KEY: &str = "ticket-key/";

/// What the successor has of its predecessor.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) sockets: Vec<Listening>,
    pub(super) ticket_keys: Vec<OwnTicketKey>,
    pub(super) predecessor: Predecessor,
}

/// The edge that serves until the successor does.
#[derive(Debug)]
pub(super) struct Predecessor {
    line: Line,
    pub(super) pid: i32,
    /// To see its end by, where it can be seen.
    process: Option<OwnedFd>,
}

/// Asks the edge that runs with a folder for its sockets.
pub(super) async fn inherit(folder: &Path) -> Result<Inheritance, Failure> {
    door::folder(folder)?;
    let stream = door::knock(folder).await.map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("no edge runs with the folder {}", plain::value(&folder.to_string_lossy())),
        )
        .because(&error)
        .hint("start it without --upgrade")
    })?;
    let failed = |pid: i32, error: &LineError| {
        Failure::new(Exit::Unavailable, format!("cannot take over from the edge that runs (process {pid})"))
            .because(error)
            .hint("it goes on serving; its log says more")
    };
    let line = Line::new(stream).map_err(|(line, error)| failed(line.peer(), &error))?;
    let pid = line.peer();
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    match receive(&line).await {
        Ok((sockets, ticket_keys)) => {
            Ok(Inheritance { sockets, ticket_keys, predecessor: Predecessor { line, pid, process } })
        }
        Err(error) => {
            say_why(&line, Message::Failed { why: with_causes(&error) }).await;
            Err(failed(pid, &error))
        }
    }
}

async fn receive(line: &Line) -> Result<(Vec<Listening>, Vec<OwnTicketKey>), LineError> {
    line.say(&Message::Hello { version: VERSION }, &[]).await?;
    let (Message::Offer { sockets: count, secrets }, _) = soon(line).await? else {
        return Err(LineError::Unexpected("no offer"));
    };
    if count > SOCKETS_MAX {
        return Err(LineError::Unexpected("an offer of too many sockets"));
    }
    if secrets.len() > SECRETS_MAX {
        return Err(LineError::Unexpected("an offer of too many secrets"));
    }
    tracing::debug!(sockets = count, ?secrets, "an edge hands over");
    let ticket_keys = secrets.iter().filter_map(ticket_key).collect();
    let mut sockets = Vec::new();
    while held(&sockets) < count {
        match soon(line).await? {
            (Message::Sockets { sockets: described }, sent) if !sent.is_empty() => add(&mut sockets, described, sent)?,
            _ => return Err(LineError::Unexpected("no sockets")),
        }
    }
    Ok((sockets, ticket_keys))
}

/// What another version hands over in a form of its own is left: sessions then begin anew, which harms nobody.
fn ticket_key(secret: &Secret) -> Option<OwnTicketKey> {
    let listener = secret.name.strip_prefix(TICKET_KEY)?.to_owned();
    let Some(key) = TicketKey::from_bytes(&secret.value) else {
        tracing::warn!(listener, "a ticket key in an unknown form was handed over: its sessions do not resume");
        return None;
    };
    Some(OwnTicketKey { listener, key })
}

/// What the successor needs so that no visitor notices.
pub(super) fn secrets(proxy: &Proxy) -> Vec<Secret> {
    let secret =
        |own: OwnTicketKey| Secret { name: format!("{TICKET_KEY}{}", own.listener), value: own.key.to_bytes() };
    proxy.own_ticket_keys().into_iter().take(SECRETS_MAX).map(secret).collect()
}

fn held(sockets: &[Listening]) -> usize {
    sockets.iter().map(|listening| listening.sockets.len()).sum()
}

fn add(sockets: &mut Vec<Listening>, described: Vec<Described>, sent: Vec<OwnedFd>) -> Result<(), LineError> {
    if described.len() != sent.len() {
        return Err(LineError::Sockets { described: described.len(), sent: sent.len() });
    }
    for (described, socket) in described.into_iter().zip(sent) {
        let keeper = match described.keeper {
            Keeps::Edge => Keeper::Proxy,
            Keeps::Manager => Keeper::Manager,
        };
        gather(sockets, &described.listener, keeper, socket)?;
    }
    Ok(())
}

/// Readable when the process has ended.
#[expect(deprecated, reason = "sound here: the descriptor is borrowed for as long as it is watched")]
fn watched(process: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(process, Interest::READABLE)
}

async fn soon(line: &Line) -> Result<(Message, Vec<OwnedFd>), LineError> {
    timeout(ANSWER, line.hear()).await.unwrap_or(Err(LineError::Late))
}

/// The other one's log has nothing else to go by.
fn with_causes(error: &LineError) -> String {
    let all = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn say_why(line: &Line, message: Message) {
    // Whoever does not listen any more sees the line's end.
    let _heard = timeout(ANSWER, line.say(&message, &[])).await;
}

impl Predecessor {
    /// Says that this process serves, and waits until the other one accepts nothing more.
    ///
    /// If the other one dies now, there is nobody else to serve. If it does neither, both go on: that is said, and waited
    /// for, since the other one may still refuse.
    pub(super) async fn relieve(&self) -> Result<(), Failure> {
        let heard = async {
            self.line.say(&Message::Ready, &[]).await?;
            self.line.hear().await
        };
        let mut heard = std::pin::pin!(heard);
        let heard = match timeout(ANSWER, heard.as_mut()).await {
            Ok(heard) => heard,
            Err(_) => {
                tracing::warn!(
                    pid = self.pid,
                    "the edge before this one does not answer; both serve until it does, or ends"
                );
                heard.await
            }
        };
        match heard {
            Ok((Message::Released, _)) => Ok(()),
            Err(LineError::Gone | LineError::Io(_)) => {
                tracing::warn!(pid = self.pid, "the edge before this one ended while it handed over");
                self.ended().await;
                Ok(())
            }
            Ok(_) => Err(self.refused(&LineError::Unexpected("no release"))),
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Waits until the process is gone: at its end it removes the files of its Unix sockets, unless they are another's by then.
    async fn ended(&self) {
        let Some(process) = &self.process else { return };
        let ended = async { watched(process.as_fd())?.readable().await.map(drop) };
        if !matches!(timeout(ENDS_WITHIN, ended).await, Ok(Ok(()))) {
            tracing::warn!(
                pid = self.pid,
                "the edge before this one still runs; this one takes its files all the same"
            );
        }
    }

    fn refused(&self, error: &LineError) -> Failure {
        Failure::new(Exit::Failed, format!("the edge that runs (process {}) goes on instead of this one", self.pid))
            .because(error)
    }

    /// Says why this process will not serve.
    pub(super) async fn give_up(&self, failure: &Failure) {
        say_why(&self.line, Message::Failed { why: failure.to_string() }).await;
    }
}

/// Hands over to whoever knocked, unless it is told to end. Returns when the other one is ready to be released; then [`Successor::release`] has to follow.
pub(super) async fn offer(
    stream: UnixStream,
    (sockets, secrets): (Vec<Listening>, Vec<Secret>),
    within: Duration,
    ends: &mut Ends,
) -> Result<Successor, LineError> {
    let line = match Line::new(stream) {
        Ok(line) => line,
        Err((line, error)) => return refuse(&line, error).await,
    };
    let pid = line.peer();
    tracing::info!(pid, "a process asks for the sockets, to serve in place of this one");
    let given = tokio::select! {
        given = give(&line, (sockets, secrets), within) => given,
        // What may be said in part then is nothing that the other one serves after.
        () = ends.told() => Err(LineError::Told),
    };
    match given {
        Ok(()) => Ok(Successor { line, pid }),
        Err(error) => refuse(&line, error).await,
    }
}

async fn give(
    line: &Line,
    (sockets, secrets): (Vec<Listening>, Vec<Secret>),
    within: Duration,
) -> Result<(), LineError> {
    match soon(line).await? {
        (Message::Hello { version: VERSION }, _) => {}
        (Message::Hello { version }, _) => return Err(LineError::Version(version)),
        _ => return Err(LineError::Unexpected("no greeting")),
    }
    let transfer = async {
        line.say(&Message::Offer { sockets: held(&sockets), secrets }, &[]).await?;
        for Listening { name, address, sockets, keeper } in &sockets {
            let kind = match address {
                Address::Ip(_) => Kind::Tcp,
                Address::Unix(_) => Kind::Unix,
            };
            let keeper = match keeper {
                Keeper::Proxy => Keeps::Edge,
                Keeper::Manager => Keeps::Manager,
            };
            for some in sockets.chunks(SOCKETS_PER_MESSAGE) {
                let described = || Described { listener: name.clone(), address: address.to_string(), kind, keeper };
                let message = Message::Sockets { sockets: some.iter().map(|_| described()).collect() };
                line.say(&message, &some.iter().map(AsFd::as_fd).collect::<Vec<_>>()).await?;
            }
        }
        Ok::<_, LineError>(())
    };
    timeout(ANSWER, transfer).await.unwrap_or(Err(LineError::Late))?;
    // What came in time counts, even if this process could not look at it in time.
    match timeout(within, line.hear()).await.unwrap_or(Err(LineError::Late))? {
        (Message::Ready, _) => Ok(()),
        _ => Err(LineError::Unexpected("neither that it is ready nor that it failed")),
    }
}

async fn refuse<T>(line: &Line, error: LineError) -> Result<T, LineError> {
    if !matches!(error, LineError::Gone | LineError::Failed(_)) {
        say_why(line, Message::Refused { why: with_causes(&error) }).await;
    }
    Err(error)
}

/// A process that serves beside this one.
#[derive(Debug)]
pub(super) struct Successor {
    line: Line,
    pub(super) pid: i32,
}

impl Successor {
    /// Tells it that this process accepts nothing more.
    pub(super) async fn release(&self) -> Result<(), LineError> {
        timeout(ANSWER, self.line.say(&Message::Released, &[])).await.unwrap_or(Err(LineError::Late))
    }
}
