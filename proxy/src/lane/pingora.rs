//! The lane through Pingora: complete, and a line per phase. What was decided comes with the connection's context.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_link::{Report, UpstreamProtocol};
use http::{HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::*;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::{ErrorSource, ErrorType};
use tokio::time::Instant;

use super::again::{Again, after_sending, spend};
use super::answer::Answer;
use super::stream;
use crate::access::EndedBy;
use crate::config::Limits;
use crate::decide::headers::dropped_from_response;
use crate::decide::refuse::Reason;
use crate::decide::response::is_clear;
use crate::exchange::{Attempt, Carried, Exchange, millis};
use crate::front::head::{Kind, Version};
use crate::origin;
use crate::wake::{NotAdmitted, Patience, admit};

/// How long an answer is waited for at least, when the time for all of a request is over: it may be there already.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// The most looks at a cell for one connection.
const LOOKS_MAX: usize = 16;
/// The begin of the media type of an answer that may be silent for long.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// A file without certificates. Instances are spoken to without TLS; by default each worker would parse the system's authorities
/// at its start, and end at one that cannot be parsed.
const NO_AUTHORITIES: &str = "/dev/null";

/// A worker's lane.
pub(crate) struct Lane;

/// The exchange, from when Pingora takes it over from the connection.
pub(crate) type Context = Option<Box<Exchange>>;

/// A worker's own proxy, with a pool of its own.
pub(crate) fn proxy(limits: &Limits) -> Arc<HttpProxy<Lane>> {
    let conf = ServerConf {
        threads: 1,
        ca_file: Some(NO_AUTHORITIES.to_owned()),
        upstream_keepalive_pool_size: limits.pooled,
        // The first try, the retries, one more after a wait for a newer cell, and the looks in between.
        max_retries: limits.retries + 2 + looks(limits),
        ..ServerConf::default()
    };
    Arc::new(http_proxy(&Arc::new(conf), Lane))
}

#[async_trait]
impl ProxyHttp for Lane {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        None
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        context: &mut Context,
        carried: Box<dyn std::any::Any + Send + Sync>,
    ) {
        *context = carried.downcast().ok();
    }

    async fn upstream_peer(&self, session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        if context.is_none() {
            *context = session.req_header().extensions.get().and_then(Carried::take);
        }
        let exchange = ours(context)?;
        exchange.record.lane = "pingora";
        let now = Instant::now();
        let first = match exchange.attempt {
            Attempt::Fresh => now,
            Attempt::Began { first, .. } => {
                choose_again(session, exchange, first).await?;
                first
            }
        };
        exchange.attempt = Attempt::Began { first, this: Instant::now() };
        let flight = exchange.flight.as_ref().ok_or_else(lost)?;
        let mut peer = origin::peer(flight, (exchange.kind, exchange.version), &exchange.edge);
        if let Some(left) = exchange.time_left() {
            peer.options.read_timeout = peer.options.read_timeout.map(|gap| gap.min(left).max(LEAST_WAIT));
        }
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(exchange) = context {
            let again = note_failure(exchange, error.etype());
            error.set_retry(again == Again::Yes);
        }
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        exchange.record.reused = reused;
        exchange.wire.connected.store(true, Ordering::Relaxed);
        if let Attempt::Began { this, .. } = exchange.attempt {
            exchange.record.connect_ms = Some(millis(this.elapsed()));
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        // The head of HTTP/1 was written as the instance is to get it.
        if exchange.version == Version::Http2 {
            stream::for_instance(request, exchange)?;
        }
        if speaks_http2(exchange) && request.remove_header(&header::EXPECT).is_some() {
            // Interim answers over HTTP/2 do not come through Pingora; the client would wait for nothing.
            session.write_continue_response().await?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        if session.was_upgraded() {
            return Ok(());
        }
        if end && body.as_ref().is_some_and(Bytes::is_empty) {
            // Of the empty frame that ends a stream Pingora makes a last chunk, and of the end another one: the instance would
            // take that for the begin of the next request.
            *body = None;
        }
        if exchange.version == Version::Http2 {
            // Of a stream, nobody else counts; its head is not counted.
            let count = body.as_ref().map_or(0, |body| body.len() as u64);
            exchange.wire.received.fetch_add(count, Ordering::Relaxed);
            exchange.wire.whole.store(end, Ordering::Relaxed);
        }
        exchange.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        if exchange.body_bytes > exchange.body_max() {
            exchange.refuse(Reason::BodyTooLarge);
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        if exchange.time_left() == Some(Duration::ZERO) {
            exchange.refuse(Reason::ResponseTimeout);
            return Err(Error::new_up(ErrorType::ReadTimedout));
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        if response.status == 101 && exchange.kind != Kind::WebSocket {
            // Pingora lets it pass where neither side asked.
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "an upgrade that nobody asked for").into_up());
        }
        if !is_clear(response.version, &response.headers) {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "an ambiguous answer").into_up());
        }
        for name in dropped_from_response(&response.headers, response.status.as_u16()) {
            response.remove_header(&name);
        }
        // With a 101 the instance has answered, too: the request is never sent again.
        if !response.status.is_informational() || response.status == 101 {
            exchange.wire.answered.store(true, Ordering::Relaxed);
            exchange.first_byte = Some(exchange.began.elapsed());
            if let (Some(flight), Attempt::Began { this, .. }) = (&exchange.flight, exchange.attempt) {
                flight.answered(response.status.as_u16(), || this.elapsed(), &exchange.edge);
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        if response.status == 101 {
            exchange.wire.upgraded.store(true, Ordering::Relaxed);
        } else if *exchange.edge.stopping.borrow() {
            session.set_keepalive(None);
        }
        if session.req_header().version == http::Version::HTTP_10
            && response.headers.contains_key(header::TRANSFER_ENCODING)
        {
            // The client knows no chunks: the body ends with the connection.
            response.remove_header(&header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        let content_type = response.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type.get(..EVENT_STREAM.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(EVENT_STREAM)) {
            exchange.wire.streams.store(true, Ordering::Relaxed);
        }
        if exchange.checks.as_ref().is_some_and(|checks| checks.forbid_indexing())
            && !response.status.is_informational()
        {
            response.append_header("X-Robots-Tag", "noindex")?;
        }
        if let Some(flight) = &exchange.flight
            && !response.status.is_informational()
            && let Some(cookie) = flight.cookie(&exchange.tried.wish, exchange.facts.scheme)
        {
            response.append_header(header::SET_COOKIE, cookie)?;
        }
        if let (Some(hsts), false) = (&exchange.hsts, response.status.is_informational()) {
            response.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        if let (Some(held), false) = (exchange.held, response.status.is_informational()) {
            response.append_header("Server-Timing", format!("wake;dur={}", millis(held)))?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        let exchange = ours(context)?;
        if exchange.version == Version::Http2 {
            let count = body.as_ref().map_or(0, |body| body.len() as u64);
            exchange.wire.sent.fetch_add(count, Ordering::Relaxed);
        }
        if exchange.time_left() == Some(Duration::ZERO) {
            exchange.refuse(Reason::ResponseTimeout);
            return Err(Error::new_up(ErrorType::ReadTimedout));
        }
        if let (Some(taking), false) = (&exchange.taking, exchange.wire.streams.load(Ordering::Relaxed)) {
            *body = body.take().map(|body| taking.part(body));
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let Some(exchange) = context else { return error };
        let again = after_sending(exchange, &mut error, session, reused);
        error.set_retry(again == Again::Yes);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let Some(exchange) = context else { return FailToProxy { error_code: 500, can_reuse_downstream: false } };
        if *error.esource() == ErrorSource::Downstream && *error.etype() == ErrorType::WriteTimedout {
            exchange.wire.stuck.store(true, Ordering::Relaxed);
        }
        let status = match reason(error, exchange) {
            None => {
                exchange.record.ended_by = EndedBy::Client;
                exchange.wire.given_up.store(true, Ordering::Relaxed);
                0
            }
            Some(reason) => {
                exchange.refuse(reason);
                write_refusal(session, reason, exchange).await
            }
        };
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let Some(exchange) = context else { return };
        exchange.record.status = session.response_written().map_or(0, |response| response.status.as_u16());
        if error.is_none() && exchange.refused.is_none() {
            exchange.record.ended_by = EndedBy::Instance;
        }
    }

    /// The access record says it.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    /// The access record says it.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _context: &Context,
        _error: &Error,
        _which: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

fn ours(context: &mut Context) -> Result<&mut Exchange> {
    context.as_deref_mut().ok_or_else(lost)
}

/// The front always hands one over; without it there is nobody to serve for.
fn lost() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a request came without its exchange")
}

/// After a failure to connect, or on a stale connection: the cell is read anew. Where it has no other endpoint to offer, the
/// request waits for a newer version, as the client's own request would.
async fn choose_again(session: &mut Session, exchange: &mut Exchange, first: Instant) -> Result<()> {
    exchange.flight = None;
    exchange.record.retries += 1;
    let cell = exchange.cell.clone().ok_or_else(lost)?;
    let edge = Arc::clone(&exchange.edge);
    let connect = first + exchange.times().connect_total;
    let patience = Patience { wake: exchange.patience, connect, bytes: exchange.held_bytes };
    match admit(&edge, &cell, &exchange.tried, patience, pin!(left(session, exchange.version))).await {
        Ok(admitted) => {
            exchange.board(admitted);
            Ok(())
        }
        Err(NotAdmitted::Refused(reason)) => {
            exchange.refuse(reason);
            Err(Error::new_up(ErrorType::ConnectError))
        }
        Err(NotAdmitted::Left) => Err(Error::new_down(ErrorType::ConnectionClosed)),
    }
}

/// Resolves when the client is gone. Of an HTTP/1 connection whose request's body was not read, nobody can say.
async fn left(session: &mut Session, version: Version) {
    let session = session.as_downstream_mut();
    if version != Version::Http2 && !session.is_body_empty() {
        return pending().await;
    }
    // After the message there is nothing to read but the end.
    let _ = session.read_body_or_idle(true).await;
}

/// How often the cell is looked at while one connection is waited for.
fn looks(limits: &Limits) -> usize {
    let looks = limits.connect.as_nanos().div_ceil(limits.connect_look.as_nanos().max(1));
    usize::try_from(looks).map_or(LOOKS_MAX, |looks| looks.min(LOOKS_MAX))
}

/// The only endpoint gets its whole time, in several tries: it may be slow to accept. Where there is another, that one is next.
fn note_failure(exchange: &mut Exchange, how: &ErrorType) -> Again {
    let Some(flight) = &exchange.flight else { return Again::No };
    let lasts = match exchange.attempt {
        Attempt::Began { first, .. } => first.elapsed() < exchange.times().connect,
        Attempt::Fresh => false,
    };
    let is_only = flight.offer.endpoints().len() == 1;
    if !(lasts && is_only && *how == ErrorType::ConnectTimedout) {
        exchange.tried.note(flight);
    }
    let (cell, instance) = (&flight.cell, &flight.endpoint().instance);
    if let Some(left_out) = cell.quiet.say(exchange.edge.signals.now()) {
        tracing::warn!(environment.id = %cell.id, instance.id = %instance, left_out, "an instance could not be connected to");
    }
    exchange.edge.signals.unreachable(Report::Unreachable {
        environment: cell.id.clone(),
        epoch: flight.offer.epoch(),
        instance: instance.clone(),
    });
    flight.failed(&exchange.edge);
    // Without another, a newer version is waited for, which costs nobody anything.
    if !is_only && exchange.tried.leaves(flight) { spend(exchange) } else { Again::Yes }
}

/// What went wrong, in the words of the table; nothing where there is nobody to tell.
fn reason(error: &Error, exchange: &Exchange) -> Option<Reason> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, H2Error, HandshakeError,
        InvalidHTTPHeader, ReadError, ReadTimedout, SocketError, WriteError, WriteTimedout,
    };
    if exchange.refused.is_some() {
        return exchange.refused;
    }
    Some(match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) if exchange.wire.broken.load(Ordering::Relaxed) => Reason::BadBody,
        (ErrorSource::Downstream, _) if exchange.wire.slow.load(Ordering::Relaxed) => Reason::BodyTimeout,
        (ErrorSource::Downstream, ReadTimedout) => Reason::BodyTimeout,
        (ErrorSource::Downstream, InvalidHTTPHeader) => Reason::BadHead,
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | WriteTimedout) => return None,
        // A stream that its client reset.
        (source, H2Error) if *source != ErrorSource::Upstream || !speaks_http2(exchange) => return None,
        (ErrorSource::Upstream, ReadTimedout) => Reason::ResponseTimeout,
        (
            ErrorSource::Upstream,
            ConnectTimedout | ConnectRefused | ConnectNoRoute | ConnectError | SocketError | WriteTimedout
            | HandshakeError,
        ) => Reason::ConnectFailed,
        (ErrorSource::Upstream, _) => Reason::BadResponse,
        _ => Reason::Internal,
    })
}

/// Whether its instance is spoken to in HTTP/2.
fn speaks_http2(exchange: &Exchange) -> bool {
    exchange.flight.as_ref().is_some_and(|flight| origin::protocol(flight, exchange.kind) == UpstreamProtocol::H2c)
}

/// Nothing can be said any more once the instance's answer was begun; the connection's end says it.
async fn write_refusal(session: &mut Session, reason: Reason, exchange: &Exchange) -> u16 {
    let is_begun = |response: &ResponseHeader| !response.status.is_informational() || response.status == 101;
    if session.response_written().is_some_and(is_begun) {
        // To HTTP/1.0 an orderly end would be the body's.
        exchange.wire.cut.store(exchange.version == Version::Http10, Ordering::Relaxed);
        return 0;
    }
    let answer = Answer::refusal(reason, exchange);
    match write_answer(session, &answer).await {
        Ok(()) => answer.status,
        Err(_) => 0,
    }
}

async fn write_answer(session: &mut Session, answer: &Answer) -> Result<()> {
    let is_head = session.req_header().method == http::Method::HEAD;
    let body = (!is_head).then(|| answer.body.clone());
    session.set_keepalive(None);
    session.write_response_header(Box::new(answer.header()?), is_head).await?;
    session.write_response_body(body, true).await
}
