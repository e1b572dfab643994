//! The lane through Pingora: complete, and a line per phase. What was decided comes with the connection's context.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::*;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::{ErrorSource, ErrorType};
use tokio::time::Instant;

use super::again::{Again, after_sending, choose_again, note_failure};
use super::failed::{reason, write_refusal};
use super::{compress, lasting, response, stream};
use crate::access::EndedBy;
use crate::config::Limits;
use crate::decide::refuse::Reason;
use crate::exchange::{Attempt, Carried, Exchange, millis};
use crate::front::head::Version;
use crate::origin;

/// How long an answer is waited for at least, when the time for all of a request is over: it may be there already.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// The most looks at a cell for one connection.
const LOOKS_MAX: usize = 16;
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
        let first = match exchange.attempt {
            Attempt::Fresh => None,
            Attempt::Began { first, .. } => {
                choose_again(session, exchange, first).await?;
                Some(first)
            }
        };
        let this = Instant::now();
        exchange.attempt = Attempt::Began { first: first.unwrap_or(this), this };
        let flight = exchange.flight.as_ref().ok_or_else(lost)?;
        let mut peer = origin::peer(flight, exchange);
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
        if origin::speaks_http2(exchange) && request.remove_header(&header::EXPECT).is_some() {
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
        if let Some(silence) = &exchange.silence {
            silence.sent();
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
        response::from_instance(response, exchange)?;
        // With a 101 the instance has answered, too: the request is never sent again.
        if !response.status.is_informational() || response.status == 101 {
            exchange.wire.answered.store(true, Ordering::Relaxed);
            exchange.first_byte = Some(exchange.began.elapsed());
            if let Some(silence) = &exchange.silence {
                silence.moved();
            }
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
        if !response.status.is_informational() || response.status == 101 {
            // Whoever is ended in the middle of its answer has begun one.
            exchange.record.status = response.status.as_u16();
        }
        response::for_client(session, response, exchange)?;
        lasting::begin(response, exchange);
        if response::has_no_body(session, response) {
            ended(exchange);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        let exchange = ours(context)?;
        if let Some(silence) = &exchange.silence {
            silence.moved();
        }
        if let (Some(events), Some(body)) = (&mut exchange.events, &body) {
            events.take(body);
        }
        if exchange.time_left() == Some(Duration::ZERO) {
            exchange.refuse(Reason::ResponseTimeout);
            return Err(Error::new_up(ErrorType::ReadTimedout));
        }
        compress::part(exchange, body, end)?;
        sending(exchange, body);
        if end {
            ended(exchange);
        }
        Ok(None)
    }

    /// A compressed answer ends here, where it has trailers, which go: they would be of another body.
    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        _trailers: &mut http::HeaderMap,
        context: &mut Context,
    ) -> Result<Option<Bytes>> {
        let exchange = ours(context)?;
        let mut body = None;
        // An encoder writes to memory, so it does not fail; of a failure the lane would make a clean end.
        compress::part(exchange, &mut body, true)?;
        sending(exchange, &mut body);
        ended(exchange);
        Ok(body)
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
        if let Some(silence) = &exchange.silence {
            silence.over();
        }
        exchange.record.status = session.response_written().map_or(0, |response| response.status.as_u16());
        if error.is_none() && exchange.refused.is_none() && !exchange.wire.farewell.load(Ordering::Relaxed) {
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

/// Notes that all of an answer was handed over.
fn ended(exchange: &Exchange) {
    exchange.wire.ended.store(true, Ordering::Relaxed);
    if let Some(silence) = &exchange.silence {
        silence.over();
    }
}

/// Counts a part of an answer to a stream, which nobody else does, and has its client take it in time.
fn sending(exchange: &Exchange, body: &mut Option<Bytes>) {
    if exchange.version == Version::Http2 {
        let count = body.as_ref().map_or(0, |body| body.len() as u64);
        exchange.wire.sent.fetch_add(count, Ordering::Relaxed);
    }
    if let (Some(taking), false) = (&exchange.taking, exchange.wire.streams.load(Ordering::Relaxed)) {
        *body = body.take().map(|body| taking.part(body));
    }
}

fn ours(context: &mut Context) -> Result<&mut Exchange> {
    context.as_deref_mut().ok_or_else(lost)
}

/// The front always hands one over; without it there is nobody to serve for.
pub(super) fn lost() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a request came without its exchange")
}

/// How often the cell is looked at while one connection is waited for.
fn looks(limits: &Limits) -> usize {
    let looks = limits.connect.as_nanos().div_ceil(limits.connect_look.as_nanos().max(1));
    usize::try_from(looks).map_or(LOOKS_MAX, |looks| looks.min(LOOKS_MAX))
}
