//! Compresses an instance's answer for its client, where the policy says so: its head says it, and its parts go through an
//! encoder, whose state is boxed in the exchange; other requests pay a look at the policy.
//!
//! Called by the lane for the head that a client gets, for each part of the body, and at its end. An answer that breaks off
//! never gets an end here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dormouse_link::policy::Coding;
use http::Method;
use http::header::{self, HeaderMap, HeaderName};
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::{ErrorType, OrErr};

use super::encoder::Encoder;
use crate::count::enter;
use crate::decide::compress::{Asked, Verdict, has_token, is_had_as_weak, members, verdict, weak};
use crate::edge::Edge;
use crate::exchange::Exchange;
use crate::origin::speaks_http2;

/// What is true of an answer as its instance sent it only: digests are of encoded bytes (RFC 9530 section 2 and 3).
const OF_OTHER_BYTES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// An answer that is being compressed.
pub(crate) struct Compressing {
    encoder: Encoder,
    _place: Place,
}

/// A place among those that a worker compresses; freed with its drop.
struct Place(Arc<Edge>);

impl Compressing {
    /// Begins, unless as many are under way as there may be.
    fn begin(coding: Coding, edge: &Arc<Edge>) -> Result<Option<Box<Self>>> {
        // Before there is an encoder, whose memory is what is counted.
        let Some(_place) = Place::take(edge) else { return Ok(None) };
        let encoder = Encoder::new(coding).or_err(ErrorType::InternalError, "no encoder")?;
        Ok(Some(Box::new(Self { encoder, _place })))
    }
}

impl Place {
    fn take(edge: &Arc<Edge>) -> Option<Self> {
        enter(&edge.compressing, edge.limits.compressed)?;
        Some(Self(Arc::clone(edge)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.compressing.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Has a final head say how its body comes, and begins to compress that.
pub(super) fn head(method: &Method, response: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
    // Of a policy that has just changed, the client's fields were not kept.
    let Some(accepts) = exchange.accepts.as_deref() else { return Ok(()) };
    let policy = exchange.flight.as_ref().and_then(|flight| flight.policy());
    let Some(policy) = policy.and_then(|policy| policy.compression.as_deref()) else { return Ok(()) };
    let asked = Asked { version: exchange.version, kind: exchange.kind, headers: accepts };
    match verdict(policy, &asked, response.status, &response.headers) {
        Verdict::Untouched if response.status == 304 => still_good(accepts, response),
        Verdict::Untouched => Ok(()),
        Verdict::Plain => vary(response),
        // It may be all of the answer, which is not said here; and nothing is no compressed content.
        Verdict::Compressed(_) if speaks_http2(exchange) && !response.headers.contains_key(header::CONTENT_LENGTH) => {
            vary(response)
        }
        Verdict::Compressed(coding) if *method == Method::HEAD => rewrite(response, coding),
        Verdict::Compressed(coding) => {
            exchange.compressing = Compressing::begin(coding, &exchange.edge)?;
            if exchange.compressing.is_none() {
                return vary(response);
            }
            response.set_version(http::Version::HTTP_11);
            response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
            rewrite(response, coding)
        }
    }
}

/// Compresses a part of a body, or its end, if its answer is compressed.
pub(super) fn part(exchange: &mut Exchange, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    let Some(Compressing { encoder, .. }) = exchange.compressing.as_deref_mut() else { return Ok(()) };
    let part = body.take().unwrap_or_default();
    let encoded = match (part.is_empty(), end) {
        (_, true) => encoder.end(&part),
        (true, false) => return Ok(()),
        (false, false) => encoder.part(&part),
    };
    *body = Some(encoded.or_err(ErrorType::InternalError, "compressing an answer")?);
    if end {
        exchange.compressing = None;
    }
    Ok(())
}

fn rewrite(response: &mut ResponseHeader, coding: Coding) -> Result<()> {
    for name in &OF_OTHER_BYTES {
        response.remove_header(name);
    }
    response.insert_header(header::CONTENT_ENCODING, coding.as_str())?;
    weaken(response)?;
    vary(response)
}

fn weaken(response: &mut ResponseHeader) -> Result<()> {
    let Some(tag) = response.headers.get(header::ETAG) else { return Ok(()) };
    match tag.to_str().ok().and_then(weak) {
        Some(tag) => response.insert_header(header::ETAG, tag),
        None => {
            response.remove_header(&header::ETAG);
            Ok(())
        }
    }
}

/// One field, for those who read the first only.
fn vary(response: &mut ResponseHeader) -> Result<()> {
    let headers = &response.headers;
    if has_token(headers, &header::VARY, "*") || has_token(headers, &header::VARY, header::ACCEPT_ENCODING.as_str()) {
        return Ok(());
    }
    let all: Vec<_> = members(headers, &header::VARY).chain(["Accept-Encoding"]).collect();
    let all = all.join(", ");
    response.insert_header(header::VARY, all)
}

fn still_good(accepts: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
    let tag = response.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if !tag.is_some_and(|tag| is_had_as_weak(tag, accepts)) {
        return Ok(());
    }
    weaken(response)?;
    vary(response)
}
