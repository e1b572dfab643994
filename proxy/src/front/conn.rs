//! One visitor's connection, plain or TLS, with the bytes that were read of it and not used yet, behind a fence.
//!
//! The front reads heads from it; for the length of one request it is lent to Pingora as its IO. Pingora sees the message's
//! bytes, and then nothing more, but still learns that the client left. When Pingora drops it, the transport comes back to
//! the front through [`Wire`], for an orderly close. Idle it holds no buffer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::fence::{Fence, Framing};
use super::stream::Stream;

/// The most that one read of the front takes from the transport.
const READ_MAX: usize = 4 << 10;

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

/// What outlives the loan of a connection, and what its borrower says of it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// A 101 was seen: the fence is to be lifted.
    pub(crate) upgraded: AtomicBool,
    /// The client sent something that is no message.
    pub(crate) broken: AtomicBool,
    /// Of the current request.
    pub(crate) received: AtomicU64,
    /// Of the current response.
    pub(crate) sent: AtomicU64,
    returned: Mutex<Option<Transport>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Present until the drop.
    transport: Option<Transport>,
    ahead: BytesMut,
    ahead_max: usize,
    fence: Fence,
    wire: Arc<Wire>,
}

impl Conn {
    /// `ahead_max`: how many bytes beyond a message are read while it is served.
    pub(crate) fn new(transport: Transport, ahead_max: usize) -> Self {
        let wire = Arc::new(Wire::default());
        Self { transport: Some(transport), ahead: BytesMut::new(), ahead_max, fence: Fence::Closed, wire }
    }

    /// What outlives a loan.
    pub(crate) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// The bytes that were read and not used.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Forgets unused bytes.
    pub(crate) fn discard(&mut self, count: usize) {
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Reads something more ahead; 0 at the end of the stream. Cancel-safe.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_fill(context)).await
    }

    /// Resolves when the client is gone, as far as that can be seen within `ahead_max` bytes. Cancel-safe.
    pub(crate) async fn departed(&mut self, message: usize) {
        while self.ahead.len() < message + self.ahead_max {
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Lets one message through: the one at the begin of the unused bytes.
    pub(crate) fn admit(&mut self, head: usize, framing: Framing) {
        self.fence = Fence::around(head, framing);
        self.wire.upgraded.store(false, Ordering::Relaxed);
    }

    /// Counts anew.
    pub(crate) fn begin(&self) {
        self.wire.received.store(0, Ordering::Relaxed);
        self.wire.sent.store(0, Ordering::Relaxed);
    }

    /// Whether the message that was let through is used up.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.fence.is_over()
    }

    /// The transport, of a connection that was not lent away.
    pub(crate) fn into_transport(mut self) -> Option<Transport> {
        self.transport.take()
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack of this poll, so that a connection that waits holds nothing.
        let mut bytes = [0; READ_MAX];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(self.transport().poll_read(context, &mut buffer))?;
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn transport(&mut self) -> Pin<&mut dyn Io> {
        match self.transport.as_mut().expect("it is taken only by the drop and by into_transport") {
            Transport::Plain(stream) => Pin::new(stream),
            Transport::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    /// The next bytes of the message, from what was read ahead.
    fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>) -> usize {
        let count = self.fence.pass(&self.ahead[..self.ahead.len().min(buffer.remaining())]);
        buffer.put_slice(&self.ahead[..count]);
        self.discard(count);
        count
    }

    /// After the message: pending, unless the client left. What comes meanwhile is the next request's.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < self.ahead_max {
            if ready!(self.poll_fill(context))? == 0 {
                // Whoever sent the next request already still wants the answers to both.
                return if self.ahead.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.wire.upgraded.load(Ordering::Relaxed) && this.fence.is_over() {
            this.fence = Fence::Lifted;
        }
        let before = buffer.filled().len();
        let mut count = 0;
        if !this.ahead.is_empty() {
            count = this.take_ahead(buffer);
        } else if !matches!(this.fence, Fence::Closed | Fence::Broken) {
            let bound = this.fence.bound().map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(usize::MAX));
            let mut bounded = ReadBuf::new(buffer.initialize_unfilled_to(buffer.remaining().min(bound)));
            ready!(this.transport().poll_read(context, &mut bounded))?;
            let read = bounded.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            let bytes = &buffer.initialize_unfilled()[..read];
            count = this.fence.pass(bytes);
            if !matches!(this.fence, Fence::Broken) {
                this.ahead.extend_from_slice(&bytes[count..]);
            }
            buffer.set_filled(before + count);
        }
        if count > 0 {
            this.wire.received.fetch_add(count as u64, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        if matches!(this.fence, Fence::Broken) {
            this.wire.broken.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "malformed chunked body")));
        }
        this.poll_over(context)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.transport().poll_write(context, bytes))?;
        self.wire.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_shutdown(context)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let transport = self.transport.take();
        *self.wire.returned.lock().unwrap_or_else(PoisonError::into_inner) = transport;
    }
}

impl Wire {
    /// The transport of a connection whose borrower dropped it.
    pub(crate) fn take_back(&self) -> Option<Transport> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Either transport.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

#[async_trait::async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        // A client that is gone already is no failure of a close.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Conn {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Conn {}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait::async_trait]
impl Peek for Conn {}
