//! Names, ids and counters: parsed at the border, trusted inside, never bare strings or integers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest [`Label`], in bytes. A DNS label may have 63 (RFC 1035 section 2.3.4); `APP-ENVIRONMENT` must fit one.
pub const LABEL_MAX_BYTES: usize = 40;

/// The name of an application or an environment: a lower-case DNS label, so that it can stand in a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Box<str>);

/// Why a text is not a [`Label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Nothing was given.
    #[error("a name may not be empty")]
    Empty,
    /// More than [`LABEL_MAX_BYTES`].
    #[error("a name has at most {LABEL_MAX_BYTES} characters")]
    TooLong,
    /// A character outside `a-z`, `0-9` and `-`, or a `-` at either end.
    #[error("a name has only a-z, 0-9 and -, and begins and ends with a letter or digit")]
    Character,
}

impl Label {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > LABEL_MAX_BYTES {
            return Err(LabelError::TooLong);
        }
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !text.bytes().all(allowed) || text.starts_with('-') || text.ends_with('-') {
            return Err(LabelError::Character);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0.into()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes an id that the store made.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into().into_boxed_str())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// An organisation, which owns applications.
    OrganisationId
);
id!(
    /// An environment of an application.
    EnvironmentId
);
id!(
    /// One container of an environment's deployment.
    InstanceId
);

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// The number of a table's version; only rises.
    Generation
);
counter!(
    /// Rises with every change of an environment's endpoints; a part of pool keys, so that a pooled connection never
    /// crosses deployments.
    Epoch
);
counter!(
    /// Rises with every change of the leading control plane and every restored backup; an edge refuses an older one.
    Term
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_lower_case_dns_label() {
        for good in ["a", "hello", "my-app-2", "0", &"x".repeat(40)] {
            assert_eq!(good.parse::<Label>().expect(good).as_str(), good);
        }
        assert_eq!("".parse::<Label>(), Err(LabelError::Empty));
        assert_eq!("x".repeat(41).parse::<Label>(), Err(LabelError::TooLong));
        for bad in ["Hello", "-a", "a-", "a.b", "a_b", "a b", "é", "../x", "a\n", "--upload-pack=x", "a/b"] {
            assert_eq!(bad.parse::<Label>(), Err(LabelError::Character), "{bad:?}");
        }
    }
}
