//! The head of an HTTP/2 stream as its instance gets it; that of HTTP/1 is written before the lane reads it.
//!
//! Called by the lane, once for each try.

use http::{HeaderValue, header};
use pingora::http::RequestHeader;
use pingora::prelude::*;

use crate::decide::headers::{dropped_from_request, set_in_request};
use crate::decide::via;
use crate::exchange::Exchange;

/// Takes away what only proxies say, and adds what this one says.
pub(super) fn for_instance(request: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
    for name in dropped_from_request(&request.headers) {
        request.remove_header(&name);
    }
    let has_body =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| request.headers.contains_key(name));
    if !has_body {
        // There is nothing to wait with (RFC 9110 section 10.1.1).
        request.remove_header(&header::EXPECT);
    }
    join_cookies(request)?;
    let mut set = Ok(());
    set_in_request(&exchange.facts, &exchange.record.host, &exchange.record.request_id, |name, parts| {
        if set.is_ok() {
            set = request.insert_header(name, parts.concat());
        }
    });
    set?;
    super::trace::set(request, &exchange.part)?;
    if let Some(pass) = &exchange.pass {
        for name in pass.granted.removed_from(&request.headers) {
            request.remove_header(&name);
        }
        for (name, value) in pass.granted.set() {
            request.insert_header(name.clone(), value.clone())?;
        }
    }
    let edits = exchange.terms.as_ref().and_then(|terms| terms.request.as_ref());
    request.append_header(header::VIA, via::said(exchange.version))?;
    if let Some(edits) = edits {
        for name in edits.removed_from(&request.headers) {
            request.remove_header(&name);
        }
        for (name, value) in edits.written() {
            request.append_header(name.clone(), value.clone())?;
        }
    }
    if let Some(rewritten) = &exchange.rewritten {
        // Without an authority, which would be the host again.
        let target = rewritten.target.as_ref().map_or(request.raw_path(), String::as_bytes).to_vec();
        request.set_raw_path(&target)?;
        match rewritten.host.clone() {
            Some(host) => request.insert_header(header::HOST, host)?,
            None => request.insert_header(header::HOST, exchange.record.host.as_str())?,
        }
    }
    Ok(())
}

/// HTTP/2 clients may cut their cookies into several fields, which are one in HTTP/1 (RFC 9113 section 8.2.3).
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let mut all = request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    if let (Some(first), Some(second)) = (all.next(), all.next()) {
        let mut joined = [first, second].join(&b"; "[..]);
        for more in all {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(more);
        }
        request.insert_header(header::COOKIE, joined)?;
    }
    Ok(())
}
