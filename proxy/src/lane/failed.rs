//! What a client is told when a request that was lent to the lane failed: the reason, and an answer where none was begun.
//!
//! Called by the lane, once for each request that failed.

use std::sync::atomic::Ordering;

use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::proxy::Session;
use pingora::{ErrorSource, ErrorType};

use super::answer::Answer;
use crate::decide::refuse::Reason;
use crate::exchange::Exchange;
use crate::front::head::Version;
use crate::origin::speaks_http2;

/// What went wrong, in the words of the table; nothing where there is nobody to tell.
pub(super) fn reason(error: &Error, exchange: &Exchange) -> Option<Reason> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, H2Error, HandshakeError,
        InvalidHTTPHeader, ReadError, ReadTimedout, SocketError, WriteError, WriteTimedout,
    };
    if exchange.refused.is_some() {
        return exchange.refused;
    }
    Some(match (error.esource(), error.etype()) {
        (_, _) if exchange.wire.late.load(Ordering::Relaxed) => Reason::ResponseTimeout,
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

/// Nothing can be said any more once the instance's answer was begun; the connection's end says it.
pub(super) async fn write_refusal(session: &mut Session, reason: Reason, exchange: &Exchange) -> u16 {
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
