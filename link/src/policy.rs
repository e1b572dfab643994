//! The policy of an environment: how its requests are to be treated, beside where they go.
//!
//! Each section is a struct in a file of its own under `policy/`, absent or with defaults of its own; what is not said is
//! the edge's default. Written by the control plane and in table files; read by the edge with the environment's cell, so a
//! change of policy is a change of the cell. Unknown sections and fields are refused, and never misread.

mod balance;
mod upstream;

use serde::{Deserialize, Serialize};

pub use balance::{
    Balance, By, Canary, FIELD_TOKEN_MAX_BYTES, FieldToken, FieldTokenError, Percent, PercentError, Sign,
};
pub use upstream::{IdleSeconds, IdleSecondsError, Pool, UpstreamProtocol};

/// How an environment's requests are to be treated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How they are spread over its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Box<Balance>>,
    /// What its instances speak.
    #[serde(default, skip_serializing_if = "UpstreamProtocol::is_default")]
    pub protocol: UpstreamProtocol,
    /// How connections to its instances are kept.
    #[serde(default, skip_serializing_if = "Pool::is_default")]
    pub pool: Pool,
}

impl Policy {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an edge may serve by it.
    pub(crate) fn check(&self) -> Result<(), crate::Invalid> {
        let Self { balance, protocol: _, pool: _ } = self;
        balance.as_ref().map_or(Ok(()), |balance| balance.check())
    }
}
