//! Writes an answer of our own on a connection, and says whether the connection can go on.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dormouse_link::RedirectStatus;
use http::{HeaderValue, Method, header};
use pingora::http::ResponseHeader;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::warn;

use super::pages::page;
use crate::decide::refuse::{Fault, Reason};
use crate::exchange::Exchange;
use crate::front::conn::Conn;
use crate::front::fence::Framing;
use crate::front::head::{Connection, Head, Reader};

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    /// With whatever was not read of it.
    Close,
}

/// An answer, ready to be written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(Cow<'static, str>, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What a reason says to whoever reads it.
    pub(crate) fn refusal(reason: Reason, exchange: &Exchange) -> Self {
        let refusal = reason.refusal();
        if refusal.fault == Fault::Operator {
            let environment = exchange.cell.as_ref().map(|cell| cell.id.as_str()).unwrap_or_default();
            let quiet = exchange.cell.as_ref().map_or(&*exchange.edge.quiet, |cell| &cell.quiet);
            if let Some(left_out) = quiet.say(exchange.edge.signals.now()) {
                warn!(reason = refusal.label, environment.id = environment, left_out, "a request was refused");
            }
        }
        let (content_type, body) = page(reason, &refusal, exchange);
        let mut fields =
            vec![("Content-Type", content_type.to_owned()), ("X-Request-Id", exchange.record.request_id.clone())];
        if !matches!(reason, Reason::Redirect(RedirectStatus::MovedPermanently | RedirectStatus::Permanent)) {
            fields.push(("Cache-Control", "no-store".to_owned()));
        }
        fields.extend(exchange.location.clone().map(|location| ("Location", location)));
        let hsts = exchange.hsts.as_ref().and_then(|hsts| hsts.to_str().ok());
        fields.extend(hsts.map(|hsts| ("Strict-Transport-Security", hsts.to_owned())));
        fields.extend(refusal.retry_after.map(|seconds| ("Retry-After", seconds.to_string())));
        if reason == Reason::Waking && exchange.reader != Reader::Program {
            // Not in the page itself, which may be somebody's own.
            fields.extend(refusal.retry_after.map(|seconds| ("Refresh", seconds.to_string())));
        }
        if reason == Reason::Method {
            fields.push(("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned()));
        }
        if reason == Reason::Unauthorized {
            let challenge = exchange.checks.as_ref().and_then(|checks| checks.challenge());
            fields.extend(challenge.map(|challenge| ("WWW-Authenticate", challenge)));
        }
        let fields = fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect();
        let mut answer = Self { status: refusal.status, fields, body };
        answer.edit(exchange);
        answer
    }

    /// Has it say what its request's rule has answers say, where it says nothing of that itself: a page of this edge is not to
    /// be kept because the application's are.
    pub(crate) fn edit(&mut self, exchange: &Exchange) {
        let Some(edits) = exchange.terms.as_ref().and_then(|terms| terms.answer.as_ref()) else { return };
        let own = self.fields.len();
        for (name, value) in edits.written() {
            let is_said = self.fields[..own].iter().any(|(said, _)| said.eq_ignore_ascii_case(name.as_str()));
            if let (Ok(value), false) = (value.to_str(), is_said) {
                self.fields.push((Cow::Owned(name.to_string()), value.to_owned()));
            }
        }
    }

    /// Has it say `Strict-Transport-Security`, in the place of whoever else did.
    pub(crate) fn remember(&mut self, hsts: Option<&HeaderValue>) {
        let Some(hsts) = hsts.and_then(|hsts| hsts.to_str().ok()) else { return };
        self.fields.retain(|(name, _)| !name.eq_ignore_ascii_case(header::STRICT_TRANSPORT_SECURITY.as_str()));
        self.fields.push((Cow::Borrowed("Strict-Transport-Security"), hsts.to_owned()));
    }

    /// Its head, for the lane and for streams.
    pub(crate) fn header(&self) -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build(self.status, Some(self.fields.len() + 3))?;
        for (name, value) in &self.fields {
            // Of some there are several: Set-Cookie.
            header.append_header(name.clone().into_owned(), value.as_str())?;
        }
        header.set_content_length(self.body.len())?;
        Ok(header)
    }

    /// Its head as bytes.
    fn head(&self, after: After) -> Vec<u8> {
        let reason = http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or_default()).into_bytes();
        for (name, value) in &self.fields {
            // Writing to a vector cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let connection = if after == After::Keep { "keep-alive" } else { "close" };
        let _ = write!(text, "Content-Length: {}\r\nConnection: {connection}\r\n\r\n", self.body.len());
        text
    }
}

/// Answers the request whose head is at the begin of the unused bytes. A body that was not read ends the connection: its
/// length is up to the client, and the client may wait for a 100 before it sends it.
pub(crate) async fn answer(conn: &mut Conn, head: Option<&Head>, answer: &Answer, exchange: &mut Exchange) -> After {
    let reusable = |head: &&Head| head.framing == Framing::Empty && head.connection == Connection::KeepAlive;
    let stopping = *exchange.edge.stopping.borrow();
    let after = if head.filter(reusable).is_some() && !stopping { After::Keep } else { After::Close };
    let (begin, is_head) = (answer.head(after), head.is_some_and(|head| head.method == Method::HEAD));
    exchange.record.status = answer.status;
    exchange.wire.received.store(head.map_or(0, |head| head.bytes as u64), Ordering::Relaxed);
    let written = timeout(exchange.limits.client_write, async {
        conn.write_all(&begin).await?;
        if !is_head {
            // The connection puts small ones together; a page is not copied.
            conn.write_all(&answer.body).await?;
        }
        conn.flush().await
    });
    match written.await {
        Ok(Ok(())) => {
            if after == After::Keep
                && let Some(head) = head
            {
                conn.discard(head.bytes);
            }
            after
        }
        _ => After::Close,
    }
}
