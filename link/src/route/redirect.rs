//! Where a client is sent instead: canonical domains, moved paths. What it was sent for, is kept: path and query.

use serde::{Deserialize, Serialize};

use crate::{Host, RoutePath};

/// Where a client is sent. What is not said stays as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Redirect {
    /// With which status.
    #[serde(default)]
    pub status: RedirectStatus,
    /// How the other place is spoken to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Another port than the scheme's own. (The port that was asked for is never kept.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What comes in the place of the whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RoutePath>,
    /// What comes in the place of the rule's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix: Option<RoutePath>,
}

crate::object::only!(Redirect);

/// Why a status is none of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a redirect's status is 301, 302, 307 or 308")]
pub struct RedirectError;

/// How a redirect is said: for now or for ever, and whether another method may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum RedirectStatus {
    /// 301: browsers remember it.
    MovedPermanently,
    /// 302.
    #[default]
    Found,
    /// 307: with the same method.
    Temporary,
    /// 308: with the same method, and browsers remember it.
    Permanent,
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> Self {
        match status {
            RedirectStatus::MovedPermanently => 301,
            RedirectStatus::Found => 302,
            RedirectStatus::Temporary => 307,
            RedirectStatus::Permanent => 308,
        }
    }
}

impl TryFrom<u16> for RedirectStatus {
    type Error = RedirectError;

    fn try_from(status: u16) -> Result<Self, RedirectError> {
        Ok(match status {
            301 => Self::MovedPermanently,
            302 => Self::Found,
            307 => Self::Temporary,
            308 => Self::Permanent,
            _ => return Err(RedirectError),
        })
    }
}

/// How a place is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}
