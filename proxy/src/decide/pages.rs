//! Which of an environment's pages tells people of a reason, and what is filled in. Pure; asked by whoever writes an answer.

use bytes::Bytes;
use dormouse_link::policy::{Page, Pages};
use std::sync::Arc;

use super::refuse::{Reason, Refusal};

/// The page for a reason, if the environment has one.
pub(crate) fn of(pages: &Pages, reason: Reason) -> Option<&Page> {
    use Reason::{
        AccessBusy, AccessFailed, AmbiguousPath, BadBody, BadHead, BadHost, BadResponse, BodyTimeout, BodyTooLarge,
        Busy, ClientCrowded, ConnectFailed, Crowded, Denied, Empty, Expectation, Failed, HeadTimeout, HeadTooLarge,
        HoldFull, Internal, Loop, Maintenance, Method, Misdirected, NoEndpoint, NoRoute, Overloaded, PauseFull, Paused,
        ProxyHeader, Redirect, RedirectCircle, Reserved, ResponseTimeout, SentAway, Stopping, TargetTooLong,
        TooManyRequests, Unauthorized, UnknownHost, Version, WakeTimeout, Waking,
    };
    match reason {
        Waking | WakeTimeout => pages.waking.as_ref(),
        Failed { .. } => pages.failed.as_ref(),
        Maintenance { .. } | Paused | PauseFull => pages.maintenance.as_ref(),
        ConnectFailed | BadResponse | ResponseTimeout => pages.bad_gateway.as_ref(),
        Empty | NoEndpoint | HoldFull | SentAway | Overloaded | Busy | Crowded | AccessFailed | AccessBusy
        | Stopping => pages.unavailable.as_ref(),
        Denied | Unauthorized => pages.denied.as_ref(),
        TooManyRequests { .. } | ClientCrowded => pages.too_many.as_ref(),
        // Of the request itself, or of no environment.
        BadHead | BadHost | BadBody | ProxyHeader | HeadTimeout | BodyTimeout | HeadTooLarge | TargetTooLong
        | BodyTooLarge | Expectation | Method | UnknownHost | Misdirected | Reserved | NoRoute | AmbiguousPath
        | Redirect(_) | RedirectCircle | Loop | Version | Internal => None,
    }
}

/// A page as it is sent: shared, where nothing is to be filled in. Both values are plain text: an id that was made or found
/// sound here, and digits.
pub(crate) fn filled(text: &Arc<str>, refusal: &Refusal, request_id: &str) -> Bytes {
    if !text.contains("{request_id}") && !text.contains("{retry_after}") {
        return Bytes::from_owner(Shared(Arc::clone(text)));
    }
    let retry_after = refusal.retry_after.map(|seconds| seconds.to_string()).unwrap_or_default();
    text.replace("{request_id}", request_id).replace("{retry_after}", &retry_after).into()
}

struct Shared(Arc<str>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_words_are_filled_in_and_what_has_none_is_shared() {
        let fill = |text: &str, reason: Reason| {
            let text: Arc<str> = text.into();
            let filled = filled(&text, &reason.refusal(), "id-7");
            (filled.as_ptr() == text.as_ptr(), String::from_utf8(filled.to_vec()).expect("text"))
        };
        assert_eq!(fill("<p>{host} {{}}", Reason::Waking), (true, "<p>{host} {{}}".to_owned()));
        assert_eq!(fill("{request_id} {retry_after} {request_id}", Reason::Waking), (false, "id-7 2 id-7".to_owned()));
        assert_eq!(fill("<{retry_after}>", Reason::BadResponse), (false, "<>".to_owned()));
    }
}
