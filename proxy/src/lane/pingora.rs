//! The lane through Pingora: complete, and a line per phase. What was decided comes with the connection's context.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_link::Report;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::*;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::{ErrorSource, ErrorType};
use tokio::time::Instant;

use super::answer::Answer;
use crate::access::EndedBy;
use crate::config::Limits;
use crate::decide::headers::{dropped_from_request, dropped_from_response, set_in_request};
use crate::decide::refuse::Reason;
use crate::exchange::{Attempt, Exchange, millis};
use crate::front::head::{Form, Kind};
use crate::origin;
use crate::wake::{NotAdmitted, Patience, admit};

/// A worker's lane.
pub(crate) struct Lane;

/// The exchange, from when Pingora takes it over from the connection.
pub(crate) type Context = Option<Box<Exchange>>;

/// A worker's own proxy, with a pool of its own.
pub(crate) fn proxy(limits: &Limits) -> Arc<HttpProxy<Lane>> {
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: limits.pooled,
        // The first try, the retries, and one more after a wait for a newer cell.
        max_retries: limits.retries + 2,
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

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let exchange = ours(context)?;
        let now = Instant::now();
        let first = match exchange.attempt {
            Attempt::Fresh => now,
            Attempt::Began { first, .. } => {
                choose_again(exchange, first).await?;
                first
            }
        };
        exchange.attempt = Attempt::Began { first, this: Instant::now() };
        let flight = exchange.flight.as_ref().ok_or_else(lost)?;
        Ok(origin::peer(flight, exchange.kind, &exchange.edge.limits))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(exchange) = context {
            note_failure(exchange);
            error.set_retry(true);
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
        if let Attempt::Began { this, .. } = exchange.attempt {
            exchange.record.connect_ms = Some(millis(this.elapsed()));
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        for name in dropped_from_request(&request.headers) {
            request.remove_header(&name);
        }
        for (name, value) in set_in_request(&exchange.facts, &exchange.record.host, &exchange.record.request_id) {
            request.insert_header(name, value)?;
        }
        if exchange.form == Form::Absolute {
            request.set_raw_path(exchange.target.as_bytes())?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        context: &mut Context,
    ) -> Result<()> {
        let exchange = ours(context)?;
        if session.was_upgraded() {
            return Ok(());
        }
        exchange.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        if exchange.body_bytes > exchange.edge.limits.body_bytes {
            exchange.refuse(Reason::BodyTooLarge);
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
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
        for name in dropped_from_response(&response.headers, response.status.as_u16()) {
            response.remove_header(&name);
        }
        if !response.status.is_informational() {
            exchange.record.first_byte_ms = Some(exchange.elapsed_ms());
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
        if let (Some(held), false) = (exchange.held, response.status.is_informational()) {
            response.append_header("Server-Timing", format!("wake;dur={}", millis(held)))?;
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        // Only what a stale pooled connection swallowed unseen, and only what may be asked twice.
        if session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated() {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let Some(exchange) = context else { return FailToProxy { error_code: 500, can_reuse_downstream: false } };
        let status = match reason(error, exchange) {
            None => {
                exchange.record.ended_by = EndedBy::Client;
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
async fn choose_again(exchange: &mut Exchange, first: Instant) -> Result<()> {
    exchange.flight = None;
    exchange.record.retries += 1;
    let cell = exchange.cell.clone().ok_or_else(lost)?;
    let edge = Arc::clone(&exchange.edge);
    let patience = Patience { wake: exchange.patience, connect: first + edge.limits.connect_total };
    match admit(&edge, &cell, &exchange.tried, patience, pin!(pending())).await {
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

fn note_failure(exchange: &mut Exchange) {
    let Some(flight) = &exchange.flight else { return };
    exchange.tried.note(flight);
    exchange.edge.signals.unreachable(Report::Unreachable {
        environment: flight.cell.id.clone(),
        epoch: flight.offer.epoch(),
        instance: flight.endpoint().instance.clone(),
    });
}

/// What went wrong, in the words of the table; nothing where there is nobody to tell.
fn reason(error: &Error, exchange: &Exchange) -> Option<Reason> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, InvalidHTTPHeader, ReadError,
        ReadTimedout, SocketError, WriteError, WriteTimedout,
    };
    if exchange.refused.is_some() {
        return exchange.refused;
    }
    Some(match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) if exchange.wire.broken.load(Ordering::Relaxed) => Reason::BadBody,
        (ErrorSource::Downstream, ReadTimedout) => Reason::BodyTimeout,
        (ErrorSource::Downstream, InvalidHTTPHeader) => Reason::BadHead,
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | WriteTimedout) => return None,
        (ErrorSource::Upstream, ReadTimedout) => Reason::ResponseTimeout,
        (
            ErrorSource::Upstream,
            ConnectTimedout | ConnectRefused | ConnectNoRoute | ConnectError | SocketError | WriteTimedout,
        ) => Reason::ConnectFailed,
        (ErrorSource::Upstream, _) => Reason::BadResponse,
        _ => Reason::Internal,
    })
}

/// Nothing can be said any more once the instance's answer was begun; the connection's end says it.
async fn write_refusal(session: &mut Session, reason: Reason, exchange: &Exchange) -> u16 {
    if session.response_written().is_some_and(|response| !response.status.is_informational()) {
        return 0;
    }
    let answer = Answer::refusal(reason, exchange);
    match write_answer(session, &answer).await {
        Ok(()) => answer.status,
        Err(_) => 0,
    }
}

async fn write_answer(session: &mut Session, answer: &Answer) -> Result<()> {
    let mut response = ResponseHeader::build(answer.status, Some(answer.fields.len() + 3))?;
    for (name, value) in &answer.fields {
        response.insert_header(*name, value.as_str())?;
    }
    response.set_content_length(answer.body.len())?;
    session.set_keepalive(None);
    session.write_response_header(Box::new(response), false).await?;
    session.write_response_body(Some(Bytes::copy_from_slice(answer.body.as_bytes())), true).await
}
