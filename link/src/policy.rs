//! The policy of an environment: how its requests are to be treated, beside where they go.
//!
//! Each section is a struct in a file of its own under `policy/`, absent or with defaults of its own; what is not said is
//! the edge's default. Written by the control plane and in table files; read by the edge with the environment's cell, so a
//! change of policy is a change of the cell. Unknown sections and fields are refused, and never misread.

mod access;
mod balance;
mod compression;
mod limits;
mod maintenance;
mod pages;
mod pem;
mod upstream;

pub use access::{Access, AccessError, Authorization, Basic, ForwardAuth, PasswordHash, User};
pub use balance::{
    Balance, By, Canary, FIELD_TOKEN_MAX_BYTES, FieldToken, FieldTokenError, Percent, PercentError, Sign,
};
pub use compression::{Coding, Compression, CompressionError, MediaTypes, MediaTypesError};
pub use limits::{Limits, LimitsError, Rate};
pub use maintenance::{Maintenance, MaintenanceError, Pause, PauseError};
pub use pages::{PAGE_MAX_BYTES, Page, Pages, PagesError};
pub use upstream::{IdleSeconds, IdleSecondsError, Pool, UpstreamProtocol};

use serde::{Deserialize, Serialize};

/// Networks of one list; each request is compared with all of them.
const NETWORKS_MAX: usize = 256;

/// How an environment's requests are to be treated. Sections are boxed: most environments have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Policy {
    /// How much is let through, and how long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
    /// Who is let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Box<Access>>,
    /// Nobody is served, but for some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Box<Maintenance>>,
    /// Requests wait for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// How they are spread over its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Box<Balance>>,
    /// What its instances speak.
    #[serde(default, skip_serializing_if = "UpstreamProtocol::is_default")]
    pub protocol: UpstreamProtocol,
    /// How connections to its instances are kept.
    #[serde(default, skip_serializing_if = "Pool::is_default")]
    pub pool: Pool,
    /// Which answers are compressed; none if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Box<Compression>>,
    /// What people are shown where it does not answer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<Box<Pages>>,
}

crate::object::only!(Policy);

/// Why a policy is refused, in words for its owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// In `limits`.
    #[error("policy.limits: {0}")]
    Limits(#[from] LimitsError),
    /// In `access`.
    #[error("policy.access: {0}")]
    Access(#[from] AccessError),
    /// In `maintenance`.
    #[error("policy.maintenance: {0}")]
    Maintenance(#[from] MaintenanceError),
    /// In `pause`.
    #[error("policy.pause: {0}")]
    Pause(#[from] PauseError),
    /// In `compression`.
    #[error("policy.compression: {0}")]
    Compression(#[from] CompressionError),
    /// In `pages`.
    #[error("policy.pages: {0}")]
    Pages(#[from] PagesError),
}

impl Policy {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an edge may serve by it.
    pub fn check(&self) -> Result<(), crate::Invalid> {
        let Self { limits, access, maintenance, pause, balance, protocol: _, pool: _, compression, pages } = self;
        if let Some(limits) = limits {
            limits.check().map_err(PolicyError::from)?;
        }
        if let Some(access) = access {
            access.check().map_err(PolicyError::from)?;
        }
        if let Some(maintenance) = maintenance {
            maintenance.check().map_err(PolicyError::from)?;
        }
        if let Some(pause) = pause {
            pause.check().map_err(PolicyError::from)?;
        }
        if let Some(compression) = compression {
            compression.check().map_err(PolicyError::from)?;
        }
        if let Some(pages) = pages {
            pages.check().map_err(PolicyError::from)?;
        }
        balance.as_ref().map_or(Ok(()), |balance| balance.check())
    }
}

#[cfg(test)]
mod tests;
