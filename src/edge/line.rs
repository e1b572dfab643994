//! What an edge and its successor say to each other, and the sockets that go along.
//!
//! A message is its length (4 bytes, big-endian), JSON, and the descriptors that it describes, sent with its first byte. Only
//! processes of one user talk; the folder of the socket keeps others away, and the kernel says who the other one is.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// What both must speak.
pub(super) const VERSION: u32 = 1;

/// Descriptors that go with one message; the kernel takes 253.
pub(super) const SOCKETS_PER_MESSAGE: usize = 64;

/// Of a message.
const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// A message. The first two of a conversation stay as they are in all versions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum Message {
    /// The successor asks.
    Hello { version: u32 },
    /// The old one does not, or no longer, hand over.
    Refused { why: String },
    /// So much is to come.
    Offer {
        sockets: usize,
        /// What resumption and the like need, by name; opaque here, and never logged.
        #[serde(default)]
        secrets: Vec<Secret>,
    },
    /// Some of the sockets, in the order of the descriptors that go along.
    Sockets { sockets: Vec<Described> },
    /// The successor serves.
    Ready,
    /// The successor will not.
    Failed { why: String },
    /// The old one accepts nothing more.
    Released,
}

/// A socket that goes along.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) listener: String,
    pub(super) address: String,
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) keeper: Keeps,
}

/// Who keeps it; an older version knew of no service manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keeps {
    #[default]
    Edge,
    Manager,
}

/// What sort of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Tcp,
    Unix,
}

/// Something that the successor needs and nobody else may know.
#[derive(Serialize, Deserialize)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.value);
    }
}

/// Overwrites what may hold a secret.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Otherwise the compiler may leave it away: nobody reads it.
    std::hint::black_box(bytes);
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// Why two processes do not understand each other.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("the other process is gone")]
    Gone,
    #[error("it did not answer in time")]
    Late,
    #[error("talk to the other process")]
    Io(#[source] io::Error),
    #[error("understand the other process")]
    Nonsense(#[from] serde_json::Error),
    #[error("it sent a message of {0} bytes")]
    TooLong(usize),
    #[error("a message of {0} bytes is too long to be sent")]
    TooMuch(usize),
    #[error("it described {described} sockets and sent {sent}")]
    Sockets { described: usize, sent: usize },
    #[error("it sent a descriptor that cannot be used")]
    Descriptor(#[from] dormouse_proxy::NotListening),
    #[error("it runs as user {0}")]
    Stranger(u32),
    #[error("this process was told to end")]
    Told,
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("it failed: {0}")]
    Failed(String),
    #[error("it speaks version {0} of the hand-over, and this one {VERSION}")]
    Version(u32),
    #[error("it said something unexpected: {0}")]
    Unexpected(&'static str),
}

impl From<io::Error> for LineError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // It ended while it was written to, or before it had read all.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

impl Line {
    /// Talks over a stream, if the other end is of this user.
    pub(super) fn new(stream: UnixStream) -> Result<Self, (Self, LineError)> {
        let line = Self(stream);
        match line.0.peer_cred() {
            Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() => Ok(line),
            Ok(peer) => Err((line, LineError::Stranger(peer.uid()))),
            Err(error) => Err((line, error.into())),
        }
    }

    /// The other end's process id; 0 where the kernel does not know it.
    pub(super) fn peer(&self) -> i32 {
        self.0.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default()
    }

    /// Says something, and sends descriptors along.
    pub(super) async fn say(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> Result<(), LineError> {
        let mut text = serde_json::to_vec(message)?;
        let length = text.len();
        let mut bytes = [&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()[..], &text].concat();
        wipe(&mut text);
        let said =
            if length > MESSAGE_MAX_BYTES { Err(LineError::TooMuch(length)) } else { self.send(&bytes, sockets).await };
        wipe(&mut bytes);
        said
    }

    async fn send(&self, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> Result<(), LineError> {
        let mut sent = 0;
        while sent < bytes.len() {
            // The first byte takes them along.
            let along = if sent == 0 { sockets } else { &[] };
            sent += self.0.async_io(Interest::WRITABLE, || send(self.0.as_fd(), &bytes[sent..], along)).await?;
        }
        Ok(())
    }

    /// Hears the next message, and takes the descriptors that came along. Not cancel-safe: a line that was given up is over.
    pub(super) async fn hear(&self) -> Result<(Message, Vec<OwnedFd>), LineError> {
        let mut sockets = Vec::new();
        let mut length = [0; 4];
        self.fill(&mut length, &mut sockets).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_MAX_BYTES {
            return Err(LineError::TooLong(length));
        }
        let mut text = vec![0; length];
        self.fill(&mut text, &mut sockets).await?;
        let message = serde_json::from_slice(&text);
        wipe(&mut text);
        match message? {
            Message::Refused { why } => Err(LineError::Refused(why)),
            Message::Failed { why } => Err(LineError::Failed(why)),
            message => Ok((message, sockets)),
        }
    }

    async fn fill(&self, bytes: &mut [u8], sockets: &mut Vec<OwnedFd>) -> Result<(), LineError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            match self.0.async_io(Interest::READABLE, || receive(self.0.as_fd(), rest, sockets)).await {
                Ok(0) => return Err(LineError::Gone),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(LineError::Gone),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn send(stream: BorrowedFd<'_>, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !along.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("more descriptors than a message takes"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// Whatever came along is closed when this process starts another, and when it is not taken.
fn receive(stream: BorrowedFd<'_>, bytes: &mut [u8], sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut along, flags)?;
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost: this process may not have more"));
    }
    Ok(received.bytes)
}
