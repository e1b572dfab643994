//! What is told of one request: the fields of a line of the access log, by the names that it has for good.
//!
//! Filled by [`crate::exchange`] and the lanes. What a client chooses is cut at a named length, so that no record is large.

use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, TimePrecision};

/// RFC 3339 with milliseconds.
const TIME: Iso8601<
    {
        let precision = TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(3) };
        Config::DEFAULT.set_time_precision(precision).encode()
    },
> = Iso8601;

/// The longest path that is recorded whole, in bytes; of a longer one, its begin is.
pub(crate) const PATH_MAX_BYTES: usize = 1024;
/// The longest method that is recorded whole, in bytes.
pub(crate) const METHOD_MAX_BYTES: usize = 32;
/// The longest host that is recorded whole, in bytes: a name that DNS can hold, and a port.
pub(crate) const HOST_MAX_BYTES: usize = 260;

/// What is known of a request when it has ended. docs/observability.md says what each field is; a change of a name breaks
/// whoever reads them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: SystemTime,
    pub(crate) request_id: String,
    /// Of the trace that the request is part of, in hexadecimal.
    pub(crate) trace_id: String,
    pub(crate) app: String,
    pub(crate) environment: String,
    pub(crate) deployment: u64,
    pub(crate) instance: String,
    pub(crate) method: String,
    /// Whole here, since it goes on to the instance; cut when it is written.
    #[serde(serialize_with = "host")]
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    /// Whether the visitor spoke TLS, with this edge or with a trusted proxy before it.
    pub(crate) tls: bool,
    /// Of the TLS that this edge spoke; empty without.
    pub(crate) tls_version: &'static str,
    pub(crate) tls_cipher: &'static str,
    pub(crate) tls_resumed: bool,
    pub(crate) client: String,
    /// 0 where no answer was begun.
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) held_ms: u64,
    pub(crate) connect_ms: Option<u64>,
    pub(crate) first_byte_ms: Option<u64>,
    pub(crate) total_ms: u64,
    pub(crate) retries: u32,
    pub(crate) reused: bool,
    pub(crate) woke: bool,
    /// What carried it: empty where it was answered here.
    pub(crate) lane: &'static str,
    pub(crate) ended_by: EndedBy,
    /// Why it was refused, in one word; empty where it was not.
    pub(crate) refused: &'static str,
    /// Records lost before this one, since the last that was not.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) lost_before: u64,
}

impl Record {
    /// Of nothing.
    pub(crate) fn empty() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            request_id: String::new(),
            trace_id: String::new(),
            app: String::new(),
            environment: String::new(),
            deployment: 0,
            instance: String::new(),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            protocol: "",
            tls: false,
            tls_version: "",
            tls_cipher: "",
            tls_resumed: false,
            client: String::new(),
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            held_ms: 0,
            connect_ms: None,
            first_byte_ms: None,
            total_ms: 0,
            retries: 0,
            reused: false,
            woke: false,
            lane: "",
            ended_by: EndedBy::Proxy,
            refused: "",
            lost_before: 0,
        }
    }
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndedBy {
    /// The instance, by an answer that came through whole.
    Instance,
    /// The client, by leaving.
    Client,
    /// This proxy, by an answer of its own, a limit, or its own end.
    Proxy,
}

impl EndedBy {
    /// As records and metrics have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Client => "client",
            Self::Proxy => "proxy",
        }
    }
}

/// The begin of a text, of at most so many bytes.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or_default()]
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn host<S: serde::Serializer>(host: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(cut(host, HOST_MAX_BYTES))
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let text = OffsetDateTime::from(*time).format(&TIME).map_err(serde::ser::Error::custom)?;
    to.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters_and_a_short_one_stays() {
        assert_eq!((cut("abc", 2), cut("abc", 3), cut("abc", 9), cut("", 1)), ("ab", "abc", "abc", ""));
        assert_eq!((cut("aé", 2), cut("é", 1), cut("aé", 3)), ("a", "", "aé"));
    }
}
