//! The head of an instance's answer: refused if it is ambiguous, without what is only its connection's, and with what this
//! edge says to the client.
//!
//! Called by the lane for each head, those of interim answers included.

use std::sync::atomic::Ordering;

use http::{HeaderValue, header};
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::proxy::Session;

use super::compress;
use crate::decide::edits::Edits;
use crate::decide::headers::dropped_from_response;
use crate::decide::refuse::Reason;
use crate::decide::response::{is_clear, is_event_stream};
use crate::exchange::{Exchange, millis};
use crate::front::head::{Kind, Version};
use crate::origin::speaks_http2;

/// Takes a head from an instance.
pub(super) fn from_instance(response: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    if response.status == 101 && (exchange.kind != Kind::WebSocket || !is_websocket(response)) {
        // Pingora lets it pass where neither side asked, or the instance chose what nobody asked for.
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "an upgrade that nobody asked for").into_up());
    }
    if !is_clear(response.version, &response.headers) {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "an ambiguous answer").into_up());
    }
    for name in dropped_from_response(&response.headers, response.status.as_u16()) {
        response.remove_header(&name);
    }
    Ok(())
}

fn is_websocket(response: &ResponseHeader) -> bool {
    let upgrade = response.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
}

/// Whether the head is all of an answer.
pub(super) fn has_no_body(session: &Session, response: &ResponseHeader) -> bool {
    let is_empty = || response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    let status = response.status.as_u16();
    status >= 200 && (session.req_header().method == http::Method::HEAD || matches!(status, 204 | 304) || is_empty())
}

/// Whether a client can see where an answer ends, without chunks.
fn has_end(session: &Session, response: &ResponseHeader) -> bool {
    response.status.is_informational()
        || response.headers.contains_key(header::CONTENT_LENGTH)
        || has_no_body(session, response)
}

/// Has a head say what the client is told beside the instance's words, which the rule may change before.
pub(super) fn for_client(session: &mut Session, response: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
    let is_old = exchange.version == Version::Http10;
    if is_old && speaks_http2(exchange) && !has_end(session, response) {
        // The lane would send it in chunks, whatever is done here.
        exchange.refuse(Reason::Version);
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "an answer without an end for HTTP/1.0").into_up());
    }
    if is_old && response.headers.contains_key(header::TRANSFER_ENCODING) {
        // The client knows no chunks: the body ends with the connection.
        response.remove_header(&header::TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
    if response.status.is_informational() {
        return Ok(());
    }
    if is_event_stream(&response.headers) {
        exchange.wire.streams.store(true, Ordering::Relaxed);
    }
    let edits = exchange.terms.as_ref().and_then(|terms| terms.answer.as_ref());
    if let Some(edits) = edits {
        edit(response, edits)?;
    }
    if exchange.checks.as_ref().is_some_and(|checks| checks.forbid_indexing()) {
        response.append_header("X-Robots-Tag", "noindex")?;
    }
    if let Some(flight) = &exchange.flight
        && let Some(cookie) = flight.cookie(&exchange.tried.wish, exchange.facts.scheme)
    {
        response.append_header(header::SET_COOKIE, cookie)?;
    }
    if let Some(hsts) = &exchange.hsts {
        response.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    if let Some(held) = exchange.held {
        response.append_header("Server-Timing", format!("wake;dur={}", millis(held)))?;
    }
    compress::head(&session.req_header().method, response, exchange)
}

fn edit(response: &mut ResponseHeader, edits: &Edits) -> Result<()> {
    for name in edits.removed_from(&response.headers) {
        response.remove_header(&name);
    }
    for (name, value) in edits.written() {
        response.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}
