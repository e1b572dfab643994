//! `policy.maintenance` and `policy.pause`: an environment that is not to be served for a while.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::NETWORKS_MAX;
use crate::Network;

/// When clients may come again, in seconds, if it is not said.
const RETRY_AFTER: NonZeroU32 = NonZeroU32::new(60).expect("it is not 0");
/// Requests that a pause holds, if it is not said, and at most.
const HELD_MAX: NonZeroU32 = NonZeroU32::new(1000).expect("it is not 0");
/// How long a pause holds each of them, in milliseconds, if it is not said.
const HELD_MS: NonZeroU32 = NonZeroU32::new(60_000).expect("it is not 0");
/// The longest that it may, in milliseconds.
const HELD_MS_MAX: u32 = 300_000;

/// Requests are answered by 503 with a page that says so, but for those of some networks. None of them wakes anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Maintenance {
    /// When clients may come again, in seconds.
    #[serde(default = "retry_after")]
    pub retry_after_seconds: NonZeroU32,
    /// Whose requests are served all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
}

/// Requests wait, their bodies unread, for its end. Once an edge has acknowledged it, no further request reaches an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Pause {
    /// How many requests wait; more get 503.
    #[serde(default = "held")]
    pub requests: NonZeroU32,
    /// How long each waits; then 503.
    #[serde(default = "held_ms")]
    pub wait_ms: NonZeroU32,
}

crate::object::only!(Maintenance, Pause);

fn retry_after() -> NonZeroU32 {
    RETRY_AFTER
}

fn held() -> NonZeroU32 {
    HELD_MAX
}

fn held_ms() -> NonZeroU32 {
    HELD_MS
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { retry_after_seconds: RETRY_AFTER, allow: Vec::new() }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self { requests: HELD_MAX, wait_ms: HELD_MS }
    }
}

/// What is wrong with maintenance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaintenanceError {
    /// Too many.
    #[error("allow has at most {NETWORKS_MAX} networks")]
    Networks,
}

impl Maintenance {
    pub(super) fn check(&self) -> Result<(), MaintenanceError> {
        if self.allow.len() > NETWORKS_MAX { Err(MaintenanceError::Networks) } else { Ok(()) }
    }
}

/// What is wrong with a pause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    /// Too many.
    #[error("requests is at most {HELD_MAX}")]
    Requests,
    /// Too long.
    #[error("wait_ms is at most {HELD_MS_MAX}")]
    Wait,
}

impl Pause {
    pub(super) fn check(&self) -> Result<(), PauseError> {
        if self.requests > HELD_MAX {
            return Err(PauseError::Requests);
        }
        if self.wait_ms.get() > HELD_MS_MAX {
            return Err(PauseError::Wait);
        }
        Ok(())
    }
}
