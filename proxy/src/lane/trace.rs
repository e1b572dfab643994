//! The fields that say which trace a request is part of.

use http::HeaderName;
use pingora::http::RequestHeader;

use crate::decide::trace::By;
use crate::exchange::Exchange;

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// A client's own trace goes on as it came, its state too, unless the request has a span of its own in it; a state without a
/// trace says nothing.
pub(super) fn set(request: &mut RequestHeader, exchange: &Exchange) -> pingora::Result<()> {
    let (trace, by) = &exchange.trace;
    if *by == By::Edge {
        request.remove_header(&TRACE_STATE);
    }
    if *by == By::Edge || exchange.asked_by.is_some() {
        request.insert_header(TRACE_PARENT, &trace.value()[..])?;
    }
    Ok(())
}
