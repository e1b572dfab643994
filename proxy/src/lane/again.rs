//! Whether a request that failed at an instance is tried again, at that one or another.
//!
//! Called by the lane. No request is ever tried again that an instance may have begun to answer, nor beyond the limits for
//! one request and for its environment.

use pingora::prelude::*;
use pingora::proxy::Session;
use pingora::{ErrorSource, ErrorType, RetryType};

use crate::exchange::Exchange;

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
