//! How an environment's instances are spoken to.

use serde::{Deserialize, Serialize};

/// What an environment's instances speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3). An upgrade to WebSocket is still asked for in HTTP/1.1.
    H2c,
}

impl UpstreamProtocol {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How connections to instances are kept for later requests; what is not said is the edge's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Pool {
    /// How long one is kept without a request: less than what the application keeps it. 0: each request has a connection of its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<IdleSeconds>,
    /// How many an edge's worker keeps for each instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
}

crate::object::only!(Pool);

impl Pool {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// 0 to 3600.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct IdleSeconds(u16);

/// The longest time for which an idle connection may be kept.
const IDLE_MAX_SECONDS: u16 = 3600;

/// Longer than anybody should keep a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idle connection is kept for 0 to {IDLE_MAX_SECONDS} seconds, not {0}")]
pub struct IdleSecondsError(u16);

impl TryFrom<u16> for IdleSeconds {
    type Error = IdleSecondsError;

    fn try_from(seconds: u16) -> Result<Self, IdleSecondsError> {
        if seconds > IDLE_MAX_SECONDS { Err(IdleSecondsError(seconds)) } else { Ok(Self(seconds)) }
    }
}

impl From<IdleSeconds> for u16 {
    fn from(seconds: IdleSeconds) -> Self {
        seconds.0
    }
}
