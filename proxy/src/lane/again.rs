//! Whether a request that failed at an instance is tried again, at that one or another.
//!
//! Called by the lane. No request is ever tried again that an instance may have begun to answer, nor beyond the limits for
//! one request and for its environment.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dormouse_link::Report;
use pingora::prelude::*;
use pingora::proxy::Session;
use pingora::{ErrorSource, ErrorType, RetryType};
use tokio::time::Instant;

use crate::exchange::{Attempt, Exchange};
use crate::front::head::Version;
use crate::wake::{NotAdmitted, Patience, admit};

use super::pingora::lost;

/// Whether a request is tried again.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Again {
    Yes,
    No,
}

/// What became of a request that an instance may have seen. Tried again is only what may be asked twice and whose body was not
/// begun: if a stale pooled connection swallowed it, or, where there is another instance, if this one broke off before its
/// answer. And whatever an instance refused unseen (RFC 9113 section 8.7).
pub(super) fn after_sending(exchange: &mut Exchange, error: &mut Error, session: &Session, reused: bool) -> Again {
    use ErrorType::{ConnectionClosed, H2Error, ReadError, WriteError};
    let Some(flight) = &exchange.flight else { return Again::No };
    if exchange.wire.late.load(Ordering::Relaxed) {
        flight.failed(&exchange.edge);
    }
    if *error.esource() != ErrorSource::Upstream || exchange.first_byte.is_some() {
        return Again::No;
    }
    let refused_unseen = matches!(error.retry, RetryType::Decided(true)) && *error.etype() == H2Error;
    let stale = reused && matches!(error.retry, RetryType::ReusedOnly);
    if !stale && !refused_unseen {
        flight.failed(&exchange.edge);
    }
    let repeatable = session.req_header().method.is_idempotent() && exchange.body_bytes == 0;
    let unseen = refused_unseen && !session.as_ref().retry_buffer_truncated();
    if !(repeatable || unseen) {
        return Again::No;
    }
    let broken_off = matches!(error.etype(), ConnectionClosed | ReadError | WriteError | H2Error);
    let same_again = stale || refused_unseen;
    if !same_again && broken_off {
        exchange.tried.note(flight);
    }
    if same_again || (broken_off && exchange.tried.leaves(flight)) { spend(exchange) } else { Again::No }
}

/// Takes one retry of the environment's, if this request may have another.
pub(super) fn spend(exchange: &Exchange) -> Again {
    let Exchange { edge, cell: Some(cell), .. } = exchange else { return Again::No };
    if exchange.record.retries as usize >= edge.limits.retries {
        return Again::No;
    }
    if cell.retries.take(edge.signals.now(), &edge.limits) {
        edge.signals.tally.retried();
        return Again::Yes;
    }
    edge.signals.tally.refused();
    Again::No
}

/// After a failure to connect, or on a stale connection: the cell is read anew. Where it has no other endpoint to offer, the
/// request waits for a newer version, as the client's own request would.
pub(super) async fn choose_again(session: &mut Session, exchange: &mut Exchange, first: Instant) -> Result<()> {
    exchange.flight = None;
    exchange.wire.connected.store(false, Ordering::Relaxed);
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

/// The only endpoint gets its whole time, in several tries: it may be slow to accept. Where there is another, that one is next.
pub(super) fn note_failure(exchange: &mut Exchange, how: &ErrorType) -> Again {
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
