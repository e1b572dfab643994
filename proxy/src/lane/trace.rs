//! The fields of an HTTP/2 stream that say which trace it is part of; HTTP/1 heads are written with theirs.

use pingora::http::RequestHeader;

use crate::decide::trace::{PARENT_FIELD, Part, STATE_FIELD};

/// Sets what is said here, and removes what is not passed on.
pub(super) fn set(request: &mut RequestHeader, part: &Part) -> pingora::Result<()> {
    if !part.keeps_state() {
        request.remove_header(STATE_FIELD);
    }
    if !part.keeps_parent() {
        request.remove_header(PARENT_FIELD);
    }
    if let Some(value) = part.said_here() {
        request.insert_header(PARENT_FIELD, &value[..])?;
    }
    Ok(())
}
