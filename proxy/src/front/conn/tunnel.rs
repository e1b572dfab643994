//! How a connection reads and writes once it is a WebSocket's: what passes is followed frame by frame, and where the edge ends
//! the tunnel, each side is told with a Close.
//!
//! Reads are what the client sends to the instance; writes are what the instance sends. The borrower of the connection takes the
//! Close for the instance for something that the client sent.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::time::sleep;

use super::super::websocket::{CLOSE, CLOSE_MASKED, Tunnel};
use super::{Conn, Fence};
use crate::live::lasting::Lasting;

/// A tunnel, and whom it tells what passes.
#[derive(Debug)]
pub(super) struct Open {
    tunnel: Tunnel,
    lasting: Arc<Lasting>,
}

impl Conn {
    /// Takes the tunnel that the lane has opened.
    pub(super) fn tunnel(&mut self) -> Option<Box<Open>> {
        if !self.wire.websocket.load(Ordering::Relaxed) {
            return None;
        }
        if self.tunnel.is_none() {
            let lasting = self.wire.lasting()?;
            self.tunnel = Some(Box::new(Open { tunnel: Tunnel::default(), lasting }));
        }
        self.tunnel.take()
    }

    pub(super) fn poll_tunnel_read(
        &mut self,
        open: &mut Open,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let farewell = self.wire.farewell.load(Ordering::Relaxed);
        if farewell {
            self.close_client(open);
            // Whoever does not take it is ended without; a failure shows in what is tried next.
            let _ = self.poll_flushed(context);
            if open.tunnel.to_instance.is_between() {
                return Self::close_instance(open, buffer);
            }
        }
        if let Some(end) = &mut self.leaving {
            return end.as_mut().poll(context).map(Ok);
        }
        self.fence = Fence::Lifted;
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            ready!(self.transport().poll_read(context, buffer))?;
        } else {
            self.take_ahead(buffer);
        }
        if buffer.filled().len() == before {
            if !open.tunnel.to_instance.is_closed() || open.tunnel.to_client.is_closed() {
                return Poll::Ready(Ok(()));
            }
            // Nothing comes after its Close, but the answer to that is still on its way.
            let mut end = Box::pin(sleep(self.half_closed));
            let polled = end.as_mut().poll(context).map(Ok);
            self.leaving = Some(end);
            return polled;
        }
        if farewell {
            let rest = open.tunnel.to_instance.rest(&buffer.filled()[before..]);
            buffer.set_filled(before + rest);
        }
        let bytes = &buffer.filled()[before..];
        open.lasting.note(open.tunnel.to_instance.pass(bytes));
        self.wire.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_tunnel_write(
        &mut self,
        open: &mut Open,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !open.tunnel.has_begun() {
            let count = open.tunnel.head(bytes);
            self.gathered.extend_from_slice(&bytes[..count]);
            return Poll::Ready(Ok(count));
        }
        let mut part = bytes;
        if self.wire.farewell.load(Ordering::Relaxed) {
            part = &bytes[..open.tunnel.to_client.rest(bytes)];
            if part.is_empty() {
                self.close_client(open);
                return Poll::Ready(Ok(bytes.len()));
            }
        }
        let count = ready!(self.poll_gather(context, part))?;
        open.lasting.note(open.tunnel.to_client.pass(&part[..count]));
        Poll::Ready(Ok(count))
    }

    fn poll_flushed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_gathered(context))?;
        self.transport().poll_flush(context)
    }

    /// Says to the client that this is the end, if it can be said here, and was not.
    pub(super) fn close_client(&mut self, open: &mut Open) {
        let has_begun = open.tunnel.has_begun();
        let way = &mut open.tunnel.to_client;
        if has_begun && way.is_between() {
            let left = way.left(&CLOSE);
            self.gathered.extend_from_slice(left);
            way.say(left.len());
        }
    }

    /// Says it to the instance; then nothing more, until it has ended the connection.
    fn close_instance(open: &mut Open, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let way = &mut open.tunnel.to_instance;
        let left = way.left(&CLOSE_MASKED);
        let part = &left[..left.len().min(buffer.remaining())];
        if part.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(part);
        way.say(part.len());
        Poll::Ready(Ok(()))
    }

    /// Leaves what the client still has to be told to whoever closes the connection.
    pub(super) fn leave_unsaid(&mut self) {
        let Some(mut open) = self.tunnel.take() else { return };
        if self.wire.farewell.load(Ordering::Relaxed) {
            self.close_client(&mut open);
        }
    }
}
