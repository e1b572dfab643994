//! How an environment's requests are spread over its endpoints.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Endpoint, InstanceId, Invalid, Label};

/// The longest [`FieldToken`], in bytes.
pub const FIELD_TOKEN_MAX_BYTES: usize = 64;

/// How an environment's requests are spread over its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Balance {
    /// What decides between endpoints.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: By,
    /// A second set of endpoints, which gets a part of the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// What decides between endpoints. Weights count in each of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum By {
    /// Of two drawn ones that with fewer requests; of equally busy ones not the one that answers far more slowly.
    #[default]
    LeastBusy,
    /// One after the other.
    RoundRobin,
    /// The same one for the same client, as long as it is there; others keep theirs when one comes or goes.
    SourceHash {
        /// The field that tells clients apart; their address where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        header: Option<FieldToken>,
    },
    /// The same one for the same browser, by a signed cookie, as long as it is there.
    Sticky {
        /// The cookie's name, instead of one that the edge makes of the environment's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cookie: Option<FieldToken>,
    },
}

/// A second set of endpoints: those of a group, and those that are named. It gets a share of the requests, and those that ask
/// for it; while none of it can be connected to, the others get them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Canary {
    /// Endpoints with this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Label>,
    /// Endpoints of these instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceId>,
    /// Of a hundred requests, how many it gets; of a hundred clients where the same client always gets the same endpoint.
    #[serde(default)]
    pub percent: Percent,
    /// Requests with this field get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Sign>,
    /// Requests with this cookie get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Sign>,
}

/// A field or a cookie that a request may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Sign {
    /// Its name.
    pub name: FieldToken,
    /// Its value; any will do where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

crate::object::only!(Balance, Canary, Sign);

/// 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// More than a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share is 0 to 100 percent, not {0}")]
pub struct PercentError(u8);

impl TryFrom<u8> for Percent {
    type Error = PercentError;

    fn try_from(percent: u8) -> Result<Self, PercentError> {
        if percent > 100 { Err(PercentError(percent)) } else { Ok(Self(percent)) }
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

/// The name of a header field or a cookie: a token (RFC 9110 section 5.6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldToken(String);

/// Why a text is not a [`FieldToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a field or a cookie has 1 to {FIELD_TOKEN_MAX_BYTES} letters, digits and any of !#$%&'*+-.^_`|~")]
pub struct FieldTokenError;

impl FieldToken {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FieldToken {
    type Error = FieldTokenError;

    fn try_from(text: String) -> Result<Self, FieldTokenError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let good = (1..=FIELD_TOKEN_MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        if good { Ok(Self(text)) } else { Err(FieldTokenError) }
    }
}

impl std::str::FromStr for FieldToken {
    type Err = FieldTokenError;

    fn from_str(text: &str) -> Result<Self, FieldTokenError> {
        text.to_owned().try_into()
    }
}

impl From<FieldToken> for String {
    fn from(name: FieldToken) -> Self {
        name.0
    }
}

impl fmt::Display for FieldToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Balance {
    /// Whether an edge may serve by it.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        match &self.canary {
            Some(canary) if canary.group.is_none() && canary.instances.is_empty() => Err(Invalid::CanaryOfNobody),
            _ => Ok(()),
        }
    }
}

impl Canary {
    /// Whether an endpoint is one of it.
    pub fn has(&self, endpoint: &Endpoint) -> bool {
        let grouped = self.group.is_some() && self.group == endpoint.group;
        grouped || self.instances.contains(&endpoint.instance)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    fn parsed(text: &str) -> Result<Policy, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_of_choosing_is_understood_and_said_again_alike() {
        for text in [
            r#"{}"#,
            r#"{"protocol":"h2c"}"#,
            r#"{"pool":{"idle_seconds":0}}"#,
            r#"{"pool":{"idle_seconds":60,"connections":8}}"#,
            r#"{"balance":{"by":"round_robin"}}"#,
            r#"{"balance":{"by":{"source_hash":{}}}}"#,
            r#"{"balance":{"by":{"source_hash":{"header":"X-User"}}}}"#,
            r#"{"balance":{"by":{"sticky":{"cookie":"shop"}}}}"#,
            r#"{"balance":{"canary":{"group":"next","percent":5,"header":{"name":"x-canary","value":"1"}}}}"#,
            r#"{"balance":{"canary":{"instances":["127.0.0.1:9002"],"percent":0,"cookie":{"name":"beta"}}}}"#,
        ] {
            let policy = parsed(text).expect(text);
            assert_eq!(serde_json::to_string(&policy).expect("text"), text);
            assert_eq!(policy.check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            r#"{"balance":{"by":"random"}}"#,
            r#"{"balance":{"by":{"sticky":{"name":"x"}}}}"#,
            r#"{"balance":{"by":{"sticky":{"cookie":"a b"}}}}"#,
            r#"{"balance":{"by":{"source_hash":{"header":""}}}}"#,
            r#"{"balance":{"canary":{"group":"next","percent":101}}}"#,
            r#"{"balance":{"canary":{"group":"next","percentage":1}}}"#,
            r#"{"protocol":"h3"}"#,
            r#"{"pool":{"idle_seconds":3601}}"#,
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        let nobody = parsed(r#"{"balance":{"canary":{"percent":5}}}"#).expect("a policy");
        assert_eq!(nobody.check(), Err(Invalid::CanaryOfNobody));
    }
}
