//! The one table from a reason to what a client is told: status, words, when to come back, and the label of records.

use std::time::Duration;

use dormouse_link::RedirectStatus;

/// Why a request is not served by its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    BadHead,
    BadHost,
    BadBody,
    /// From a proxy of which a PROXY protocol header is expected.
    ProxyHeader,
    HeadTimeout,
    BodyTimeout,
    HeadTooLarge,
    TargetTooLong,
    BodyTooLarge,
    /// Another expectation than `100-continue`.
    Expectation,
    Method,
    UnknownHost,
    /// The connection proved another identity than the request's host has.
    Misdirected,
    Reserved,
    /// The host is known, but none of its rules is met.
    NoRoute,
    /// The path leads to different rules, depending on who reads it.
    AmbiguousPath,
    /// Not refused, but sent elsewhere; where, is the exchange's.
    Redirect(RedirectStatus),
    /// The instance's answer cannot be told in HTTP/1.0.
    Version,
    /// A redirect that leads to where the client is.
    RedirectCircle,
    /// It came by this edge or its like again and again.
    Loop,
    /// From a network that is not let in.
    Denied,
    /// Without a right password.
    Unauthorized,
    /// Who is let in cannot be found out.
    AccessFailed,
    /// Too many wait to be let in.
    AccessBusy,
    /// More in a time than is let through.
    TooManyRequests {
        retry_after: Duration,
    },
    /// More at a time than is let through.
    Crowded,
    /// The same of one client.
    ClientCrowded,
    Maintenance {
        retry_after: Duration,
    },
    /// For longer than it waits.
    Paused,
    PauseFull,
    /// A navigation: its page asks again by itself.
    Waking,
    WakeTimeout,
    HoldFull,
    /// There is too much to do for holding it.
    SentAway,
    /// There is too much to do, most of it for its environment.
    Overloaded,
    /// There is no place for one more connection to an instance.
    Busy,
    Failed {
        retry_in: Duration,
    },
    Empty,
    NoEndpoint,
    ConnectFailed,
    BadResponse,
    ResponseTimeout,
    Stopping,
    Internal,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) title: &'static str,
    pub(crate) detail: &'static str,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
    /// In access records and metrics.
    pub(crate) label: &'static str,
    pub(crate) fault: Fault,
}

/// Who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Client,
    Application,
    /// Ours or our operator's: it is logged.
    Operator,
}

/// When a waking page asks again, in seconds.
const WAKING_RETRY: u64 = 2;
/// When others may ask again, in seconds.
const LATER: u64 = 5;

impl Reason {
    /// The table.
    pub(crate) fn refusal(self) -> Refusal {
        use Fault::{Application, Client, Operator};
        let (status, label, title, detail, retry_after, fault) = match self {
            Self::BadHead => (400, "bad_request", "Bad request", "The request is malformed.", None, Client),
            Self::BadHost => {
                (400, "bad_host", "Bad request", "The request does not name exactly one valid host.", None, Client)
            }
            Self::BadBody => (400, "bad_body", "Bad request", "The request's body is malformed.", None, Client),
            Self::ProxyHeader => (
                400,
                "proxy_header",
                "Bad request",
                "The connection does not begin with a PROXY protocol header.",
                None,
                Client,
            ),
            Self::HeadTimeout => {
                (408, "head_timeout", "Request timeout", "The request did not arrive in time.", None, Client)
            }
            Self::BodyTimeout => {
                (408, "body_timeout", "Request timeout", "The request's body did not arrive in time.", None, Client)
            }
            Self::HeadTooLarge => (
                431,
                "head_too_large",
                "Request header fields too large",
                "The request's header is too large.",
                None,
                Client,
            ),
            Self::TargetTooLong => {
                (414, "target_too_long", "URI too long", "The request's address is too long.", None, Client)
            }
            Self::BodyTooLarge => {
                (413, "body_too_large", "Content too large", "The request's body is too large.", None, Client)
            }
            Self::Expectation => {
                (417, "expectation", "Expectation failed", "The request expects what is not known here.", None, Client)
            }
            Self::Method => (405, "method", "Method not allowed", "This method is not served here.", None, Client),
            Self::UnknownHost => {
                (404, "unknown_host", "No such site", "There is no site at this address.", None, Client)
            }
            Self::Misdirected => (
                421,
                "misdirected",
                "Misdirected request",
                "This connection is for another site. Please ask on a new one.",
                None,
                Client,
            ),
            Self::Reserved => (404, "reserved", "Not found", "There is nothing at this address.", None, Client),
            Self::NoRoute => (404, "no_route", "Not found", "There is nothing at this address.", None, Client),
            Self::AmbiguousPath => (
                400,
                "ambiguous_path",
                "Bad request",
                "The path of this address can be read in more than one way.",
                None,
                Client,
            ),
            Self::Redirect(status) => {
                (status.into(), "redirect", "Elsewhere", "This page has another address.", None, Client)
            }
            Self::RedirectCircle => (
                500,
                "redirect_circle",
                "Redirected in a circle",
                "This address would lead to itself.",
                None,
                Application,
            ),
            Self::Version => (
                505,
                "version",
                "HTTP version not supported",
                "This site's answer needs HTTP/1.1 or later.",
                None,
                Client,
            ),
            Self::Loop => {
                (508, "loop", "Loop detected", "This site leads back to this server, again and again.", None, Operator)
            }
            Self::Denied => (403, "denied", "Forbidden", "You may not come here from where you are.", None, Client),
            Self::Unauthorized => {
                (401, "unauthorized", "Unauthorized", "This site asks for a name and a password.", None, Client)
            }
            Self::AccessFailed => (
                503,
                "access_failed",
                "Not available",
                "Whether you may come here could not be found out. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::AccessBusy => (
                503,
                "access_busy",
                "Not available",
                "Too many visitors ask to be let in. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::TooManyRequests { retry_after } => (
                429,
                "too_many_requests",
                "Too many requests",
                "There were too many requests in a short time. Please try again later.",
                Some(whole_seconds(retry_after)),
                Client,
            ),
            Self::Crowded => (
                503,
                "crowded",
                "Too busy",
                "This site has too much to do right now. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::ClientCrowded => (
                429,
                "client_crowded",
                "Too many requests",
                "You have too many requests at a time. Please try again shortly.",
                Some(1),
                Client,
            ),
            Self::Maintenance { retry_after } => (
                503,
                "maintenance",
                "Maintenance",
                "This site is being worked on. Please come back later.",
                Some(whole_seconds(retry_after)),
                Application,
            ),
            Self::Paused => (
                503,
                "paused",
                "Paused",
                "This site is paused for a moment. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::PauseFull => (
                503,
                "pause_full",
                "Too many requests waiting",
                "Many requests wait for this site to go on. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::Waking => (
                503,
                "waking",
                "Waking up",
                "This site was asleep. It is starting and will show in a moment.",
                Some(WAKING_RETRY),
                Application,
            ),
            Self::WakeTimeout => (
                503,
                "wake_timeout",
                "Not ready yet",
                "This site is still starting. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::HoldFull => (
                503,
                "hold_full",
                "Too many requests waiting",
                "Many requests wait for this site to start. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::Busy => (
                503,
                "busy",
                "Too busy",
                "This server has too much to do right now. Please try again shortly.",
                Some(LATER),
                Operator,
            ),
            // That it came to these two is logged, once for all requests.
            Self::SentAway => (
                503,
                "sent_away",
                "Too busy",
                "This server has too much to do to wait for this site to start. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::Overloaded => (
                503,
                "overloaded",
                "Too busy",
                "This server has too much to do for this site right now. Please try again shortly.",
                Some(LATER),
                Application,
            ),
            Self::Failed { retry_in } => (
                503,
                "failed",
                "Could not be started",
                "This site could not be started. It will be tried again.",
                Some(retry_in.as_secs().max(1)),
                Application,
            ),
            Self::Empty => {
                (503, "empty", "Nothing deployed yet", "This site has not been deployed yet.", None, Application)
            }
            Self::NoEndpoint => {
                (503, "no_endpoint", "Not available", "This site is not available right now.", Some(LATER), Application)
            }
            Self::ConnectFailed => {
                (502, "connect_failed", "Bad gateway", "This site does not answer.", None, Application)
            }
            Self::BadResponse => (
                502,
                "bad_response",
                "Bad gateway",
                "This site's answer was broken off or not understood.",
                None,
                Application,
            ),
            Self::ResponseTimeout => {
                (504, "response_timeout", "Gateway timeout", "This site took too long to answer.", None, Application)
            }
            Self::Stopping => {
                (503, "stopping", "Restarting", "This server is restarting. Please try again.", Some(1), Application)
            }
            Self::Internal => {
                (500, "internal", "Internal error", "Something went wrong on this server.", None, Operator)
            }
        };
        Refusal { status, title, detail, retry_after, label, fault }
    }
}

/// Never less than it is.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p82_a_failed_environment_says_when_to_come_back_and_never_at_once() {
        for (millis, seconds) in [(0, 1), (400, 1), (4000, 4), (60_000, 60)] {
            let refusal = Reason::Failed { retry_in: Duration::from_millis(millis) }.refusal();
            assert_eq!((refusal.status, refusal.retry_after), (503, Some(seconds)));
        }
    }

    #[test]
    fn every_reason_that_passes_says_when_to_come_back() {
        use Reason::{
            AccessBusy, AccessFailed, Busy, ClientCrowded, Crowded, HoldFull, Maintenance, NoEndpoint, Overloaded,
            PauseFull, Paused, SentAway, Stopping, TooManyRequests, WakeTimeout, Waking,
        };
        let retry_after = Duration::from_millis(1);
        let checks = [AccessBusy, AccessFailed, ClientCrowded, Crowded, PauseFull, Paused];
        let timed = [Maintenance { retry_after }, TooManyRequests { retry_after }];
        let others = [Waking, WakeTimeout, HoldFull, SentAway, Overloaded, Busy, Stopping, NoEndpoint];
        for reason in others.into_iter().chain(checks).chain(timed) {
            assert!(reason.refusal().retry_after.is_some_and(|seconds| seconds > 0), "{reason:?}");
        }
    }
}
