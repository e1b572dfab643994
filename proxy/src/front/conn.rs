//! One visitor's connection, plain or TLS, with the bytes that were read of it and not used yet, behind a fence.
//!
//! The front reads heads from it; for the length of one request it is lent to Pingora as its IO. Pingora sees the message's
//! bytes, and then nothing more, but still learns that the client left. When Pingora drops it, the transport comes back to
//! the front through [`Wire`], for an orderly close. Idle it holds no buffer.

mod asked;
mod tunnel;

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::fence::Fence;
use super::head::{Expects, Head};
use super::pace::{Pace, TooSlow};
use super::stream::Stream;
use crate::config::Limits;
use crate::live::lasting::Lasting;

/// The most that one read of the front takes from the transport.
const READ_MAX: usize = 4 << 10;

/// Pieces of an answer that are smaller are gathered up to so many bytes, and leave with the next flush: a head and the
/// begin of its body are written apart.
const GATHERED_MAX: usize = 4 << 10;

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
    /// The client sent its body too slowly.
    pub(crate) slow: AtomicBool,
    /// The 101 was one of a WebSocket, which is followed frame by frame.
    pub(crate) websocket: AtomicBool,
    /// The edge ends the tunnel: each side is told, and no frame begins any more.
    pub(crate) farewell: AtomicBool,
    /// The instance takes too long to answer a request for an upgrade.
    pub(crate) late: AtomicBool,
    /// The answer is an event stream.
    pub(crate) streams: AtomicBool,
    /// The client gave up before it was answered.
    pub(crate) given_up: AtomicBool,
    /// The request's body was received to its end; said of HTTP/2 streams only.
    pub(crate) whole: AtomicBool,
    /// There is an instance that takes the request.
    pub(crate) connected: AtomicBool,
    /// The answer was begun.
    pub(crate) answered: AtomicBool,
    /// The end of the answer was handed over.
    pub(crate) ended: AtomicBool,
    /// The answer was taken, and the rest of the request's body is not waited for.
    pub(crate) unwanted: AtomicBool,
    /// The client does not read what it is sent, or too slowly: nobody waits until the system has sent the rest.
    pub(crate) stuck: AtomicBool,
    /// Something that was written waits for the client to read.
    pub(crate) full: AtomicBool,
    /// The instance stood still in the middle of its answer.
    pub(crate) silent: AtomicBool,
    /// The answer broke off, and only the connection's end can say so: it must not be an orderly one.
    pub(crate) cut: AtomicBool,
    /// Of the current request.
    pub(crate) received: AtomicU64,
    /// Of the current response.
    pub(crate) sent: AtomicU64,
    /// What the answer has become, if that may last for ever.
    lasting: Mutex<Option<Arc<Lasting>>>,
    returned: Mutex<Option<(Transport, BytesMut)>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Present until the drop.
    transport: Option<Transport>,
    ahead: BytesMut,
    ahead_max: usize,
    /// Written by the borrower, and not by us yet.
    gathered: BytesMut,
    fence: Fence,
    /// Bytes of the head that the borrower did not read yet.
    head_left: usize,
    /// What the client waits for; nothing as soon as it is told something, or goes on without.
    expects: Expects,
    sending: Pace,
    reading: Pace,
    half_closed: Duration,
    /// Runs since the client said that it sends nothing more.
    leaving: Option<Pin<Box<Sleep>>>,
    /// Once it is a WebSocket's.
    tunnel: Option<Box<tunnel::Open>>,
    wire: Arc<Wire>,
}

impl Transport {
    /// Whether HTTP/2 was agreed on (RFC 7301).
    pub(crate) fn agreed_on_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl Conn {
    pub(crate) fn new(transport: Transport, limits: &Limits) -> Self {
        Self {
            transport: Some(transport),
            ahead: BytesMut::new(),
            ahead_max: limits.ahead_bytes,
            gathered: BytesMut::new(),
            fence: Fence::Closed,
            head_left: 0,
            expects: Expects::Nothing,
            sending: Pace::new(limits.client_rate, limits.client_window),
            reading: Pace::new(limits.client_rate, limits.client_window),
            half_closed: limits.half_closed,
            leaving: None,
            tunnel: None,
            wire: Arc::new(Wire::default()),
        }
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

    /// Resolves when the client is gone, as far as that can be seen within `ahead_max` bytes: a while after it said that it
    /// sends nothing more, since it may still read. Cancel-safe.
    pub(crate) async fn departed(&mut self, message: usize) {
        while self.ahead.len() < message + self.ahead_max {
            match self.fill().await {
                Ok(1..) => {}
                Ok(0) => return sleep(self.half_closed).await,
                Err(_) => return,
            }
        }
        std::future::pending().await
    }

    /// Lets one message through: the one at the begin of the unused bytes, with `instead` in place of its head.
    pub(crate) fn admit(&mut self, head: &Head, mut instead: BytesMut) {
        self.fence = Fence::around(instead.len(), head.framing);
        self.expects = head.expects;
        self.head_left = instead.len();
        self.wire.received.store(head.bytes as u64, Ordering::Relaxed);
        instead.extend_from_slice(&self.ahead[head.bytes..]);
        self.ahead = instead;
        self.sending.begin();
        self.reading.begin();
        self.leaving = None;
        self.wire.upgraded.store(false, Ordering::Relaxed);
    }

    /// Lets everything through, at any pace: what comes is not HTTP/1.
    pub(crate) fn lift(&mut self) {
        self.fence = Fence::Lifted;
        self.wire.upgraded.store(true, Ordering::Relaxed);
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

    /// The transport, of a connection that was not lent away, and what is still to be written.
    pub(crate) fn into_transport(mut self) -> Option<(Transport, BytesMut)> {
        Some((self.transport.take()?, std::mem::take(&mut self.gathered)))
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack of this poll, so that a connection that waits holds nothing.
        let mut bytes = [const { MaybeUninit::uninit() }; READ_MAX];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        ready!(self.transport().poll_read(context, &mut buffer))?;
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Reads of a message's body, unless the client sends it too slowly.
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.transport().poll_read(context, buffer);
        if polled.is_ready() {
            self.expects = Expects::Nothing;
        }
        let judged = match &polled {
            _ if matches!(self.fence, Fence::Lifted) => Ok(()),
            // It is the instance that is waited for.
            Poll::Pending if self.expects == Expects::Continue => Ok(()),
            Poll::Pending => self.sending.waits(Instant::now()),
            Poll::Ready(Ok(())) => self.sending.moved(buffer.filled().len() - before, Instant::now),
            Poll::Ready(Err(_)) => Ok(()),
        };
        if judged == Err(TooSlow) {
            self.wire.slow.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly")));
        }
        polled
    }

    /// Whether the client reads fast enough, after a write or a flush.
    fn judge_reading<T>(&mut self, polled: Poll<io::Result<T>>, moved: usize) -> Poll<io::Result<T>> {
        if self.wire.full.load(Ordering::Relaxed) != polled.is_pending() {
            self.wire.full.store(polled.is_pending(), Ordering::Relaxed);
        }
        let judged = match &polled {
            _ if self.wire.upgraded.load(Ordering::Relaxed) || self.wire.streams.load(Ordering::Relaxed) => Ok(()),
            Poll::Pending => self.reading.waits(Instant::now()),
            Poll::Ready(Ok(_)) => self.reading.moved(moved, Instant::now),
            Poll::Ready(Err(_)) => Ok(()),
        };
        match judged {
            Ok(()) => polled,
            Err(TooSlow) => {
                self.wire.stuck.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")))
            }
        }
    }

    fn transport(&mut self) -> Pin<&mut dyn Io> {
        match self.transport.as_mut().expect("it is taken only by the drop and by into_transport") {
            Transport::Plain(stream) => Pin::new(stream),
            Transport::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    /// Writes to the transport, if the client reads fast enough.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.transport().poll_write(context, bytes);
        let moved = if let Poll::Ready(Ok(count)) = polled { count } else { 0 };
        let written = ready!(self.judge_reading(polled, moved))?;
        self.wire.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    /// Writes what was gathered, to its end.
    fn poll_send_gathered(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            // Out of `self` for as long as it is read.
            let mut gathered = std::mem::take(&mut self.gathered);
            let polled = self.poll_send(context, &gathered);
            if let Poll::Ready(Ok(count)) = polled {
                gathered.advance(count);
            }
            if !gathered.is_empty() {
                self.gathered = gathered;
            }
            if ready!(polled)? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes to the transport, now or with the next flush.
    fn poll_gather(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() + bytes.len() > GATHERED_MAX {
            ready!(self.poll_send_gathered(context))?;
        }
        if bytes.len() > GATHERED_MAX {
            return self.poll_send(context, bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// The next bytes of the message, from what was read ahead.
    fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>) -> usize {
        let count = self.fence.pass(&self.ahead[..self.ahead.len().min(buffer.remaining())]);
        buffer.put_slice(&self.ahead[..count]);
        self.discard(count);
        count
    }

    /// After the message: pending, unless the client left. What comes meanwhile is the next request's.
    ///
    /// A client that sends nothing more may be gone, or may still read: it has a while to get its answer.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.late.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the instance does not answer")));
        }
        while self.leaving.is_none() && self.ahead.len() < self.ahead_max {
            if ready!(self.poll_fill(context))? == 0 {
                if !self.ahead.is_empty() {
                    // Whoever sent the next request already still wants the answers to both.
                    return Poll::Pending;
                }
                self.leaving = Some(Box::pin(sleep(self.half_closed)));
            }
        }
        match &mut self.leaving {
            Some(leaving) => leaving.as_mut().poll(context).map(Ok),
            None => Poll::Pending,
        }
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
        if matches!(this.fence, Fence::Lifted)
            && let Some(mut tunnel) = this.tunnel()
        {
            let polled = this.poll_tunnel_read(&mut tunnel, context, buffer);
            this.tunnel = Some(tunnel);
            return polled;
        }
        let before = buffer.filled().len();
        let mut count = 0;
        if !this.ahead.is_empty() {
            count = this.take_ahead(buffer);
        } else if !matches!(this.fence, Fence::Closed | Fence::Broken) {
            let bound = this.fence.bound().map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(usize::MAX));
            let mut bounded = ReadBuf::new(buffer.initialize_unfilled_to(buffer.remaining().min(bound)));
            ready!(this.poll_body(context, &mut bounded))?;
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
            let of_head = count.min(this.head_left);
            this.head_left -= of_head;
            this.wire.received.fetch_add((count - of_head) as u64, Ordering::Relaxed);
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
        self.expects = Expects::Nothing;
        if let Some(mut tunnel) = self.tunnel() {
            let polled = self.poll_tunnel_write(&mut tunnel, context, bytes);
            self.tunnel = Some(tunnel);
            return polled;
        }
        self.poll_gather(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_gathered(context))?;
        let polled = self.transport().poll_flush(context);
        self.judge_reading(polled, 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send_gathered(context))?;
        self.transport().poll_shutdown(context)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.leave_unsaid();
        let returned = self.transport.take().map(|transport| (transport, std::mem::take(&mut self.gathered)));
        *self.wire.returned.lock().unwrap_or_else(PoisonError::into_inner) = returned;
    }
}

impl Wire {
    /// Forgets what was said of the message before.
    pub(crate) fn begin(&self) {
        if self.streams.load(Ordering::Relaxed) {
            *self.lasting.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let of_request = [&self.broken, &self.slow, &self.whole, &self.given_up, &self.unwanted, &self.connected];
        let of_answer = [&self.answered, &self.ended, &self.streams, &self.silent, &self.late, &self.cut];
        let of_tunnel = [&self.upgraded, &self.websocket, &self.farewell];
        for said in of_request.into_iter().chain(of_answer).chain(of_tunnel).chain([&self.stuck, &self.full]) {
            said.store(false, Ordering::Relaxed);
        }
    }

    /// Says what the answer has become.
    pub(crate) fn lasts(&self, lasting: Arc<Lasting>) {
        *self.lasting.lock().unwrap_or_else(PoisonError::into_inner) = Some(lasting);
    }

    /// What the answer has become, if that may last for ever.
    pub(crate) fn lasting(&self) -> Option<Arc<Lasting>> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an orderly end would tell the client something wrong, or keep what it does not read.
    pub(crate) fn is_for_reset(&self) -> bool {
        self.cut.load(Ordering::Relaxed) || self.stuck.load(Ordering::Relaxed)
    }

    /// Ends a connection whose answer broke off: by a reset, or without the end that TLS would say; and one that is stuck, whose
    /// answer the system would otherwise keep for as long as the client likes.
    pub(crate) fn reset(&self) {
        let transport = self.take_back().map(|(transport, _)| transport);
        let stream = match &transport {
            Some(Transport::Plain(Stream::Tcp(stream))) => stream,
            Some(Transport::Tls(stream)) if self.stuck.load(Ordering::Relaxed) => match stream.get_ref().0 {
                Stream::Tcp(stream) => stream,
                Stream::Unix(_) => return,
            },
            _ => return,
        };
        // Where it fails, the end is an orderly one; there is no other way to say it.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }

    /// The transport of a connection whose borrower dropped it, and what was still to be written: a borrower that was cut off
    /// did not say so.
    pub(crate) fn take_back(&self) -> Option<(Transport, BytesMut)> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Either transport.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
