//! `policy.limits`: how much of an environment's requests is let through, and how long they may take; and the same of the
//! requests by one rule.
//!
//! Each is one edge's: edges do not count together. What is not said is the edge's default, or no limit.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The longest period of a rate, in seconds.
const PER_SECONDS_MAX: u32 = 3600;
/// The most requests that a rate may let through, in a period or at once.
const REQUESTS_MAX: u32 = 1_000_000;
/// The largest body that may be let through, in bytes.
const BODY_BYTES_MAX: u64 = 1 << 40;
/// The longest time of any kind, in milliseconds: a day.
const MS_MAX: u32 = 86_400_000;

/// How much, and how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Limits {
    /// Requests in a time, of everybody together; more get 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Requests in a time of one client, which is an address, or a /64 of IPv6; more get 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_client: Option<Rate>,
    /// Requests at a time, held ones included; more get 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
    /// Requests of one client at a time; more get 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_per_client: Option<NonZeroU32>,
    /// Of a request's body; then 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// For one connection to an instance; what is more than the edge's own limit does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<NonZeroU32>,
    /// For connecting over all tries; then 502.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_total_ms: Option<NonZeroU32>,
    /// For one write to an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_ms: Option<NonZeroU32>,
    /// Until the first byte of an answer, and between two; then 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<NonZeroU32>,
    /// Between two pieces of an answer, where that is to be shorter; then the answer's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<NonZeroU32>,
    /// As `answer_ms`, for upgraded connections, event streams and calls of gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle_ms: Option<NonZeroU32>,
    /// For all of a request and its answer, from its head on; then 504, or the end of an answer that was begun. Upgraded
    /// connections, event streams and calls of gRPC are exempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<NonZeroU32>,
}

/// So many requests in so many seconds, evenly; `burst` of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In which time; 1 if it is not said.
    #[serde(default = "one")]
    pub per_seconds: NonZeroU32,
    /// How many at once; as many as `requests` if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
}

crate::object::only!(Limits, Rate);

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// What is wrong with limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// A rate beyond what is counted.
    #[error("a rate is at most {REQUESTS_MAX} requests, in at most {PER_SECONDS_MAX} seconds")]
    Rate,
    /// A body beyond what is let through anywhere.
    #[error("body_bytes is at most {BODY_BYTES_MAX}")]
    Body,
    /// A time beyond a day.
    #[error("{0} is at most {MS_MAX}")]
    Time(&'static str),
    /// A gap that the time for an answer would cut short.
    #[error("gap_ms is at most answer_ms")]
    Gap,
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), LimitsError> {
        let too_much = |rate: &Rate| {
            rate.requests.get() > REQUESTS_MAX
                || rate.burst.is_some_and(|burst| burst.get() > REQUESTS_MAX)
                || rate.per_seconds.get() > PER_SECONDS_MAX
        };
        if self.rate.iter().chain(&self.rate_per_client).any(too_much) {
            return Err(LimitsError::Rate);
        }
        if self.body_bytes.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
            return Err(LimitsError::Body);
        }
        let times = [
            ("connect_ms", self.connect_ms),
            ("connect_total_ms", self.connect_total_ms),
            ("send_ms", self.send_ms),
            ("answer_ms", self.answer_ms),
            ("gap_ms", self.gap_ms),
            ("stream_idle_ms", self.stream_idle_ms),
            ("total_ms", self.total_ms),
        ];
        match times.into_iter().find(|(_, time)| time.is_some_and(|time| time.get() > MS_MAX)) {
            Some((name, _)) => Err(LimitsError::Time(name)),
            None if self.answer_ms.is_some_and(|answer| self.gap_ms > Some(answer)) => Err(LimitsError::Gap),
            None => Ok(()),
        }
    }
}
