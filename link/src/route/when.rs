//! Which requests a rule is for, and how specific it is. Pure; the edge asks for each request, in the order of specificity.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fields::{is_of_messages, is_reserved_for_proxies};
use crate::{RoutePath, path};

/// Fields that one rule may ask for.
pub const FIELDS_MAX: usize = 8;
/// The longest value of a field that a rule may ask for, in bytes.
const VALUE_MAX_BYTES: usize = 1024;
/// The longest name of a method or field, in bytes.
const TOKEN_MAX_BYTES: usize = 64;

/// Which requests a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Their path.
    pub path: RoutePath,
    /// How it is compared.
    pub matching: PathMatch,
    /// Their method, if only one.
    pub method: Option<MethodName>,
    /// What their heads have; all of it.
    pub fields: Vec<FieldMatch>,
}

/// How a rule's path is compared, with the normal form of the request's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The path, and everything below it.
    #[default]
    Prefix,
    /// The path alone.
    Exact,
}

/// What a request's head has to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FieldMatch {
    /// A field of that name,
    pub name: FieldName,
    /// with this value, once and no other. Without it any value will do, however often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<FieldValue>,
}

crate::object::only!(FieldMatch);

/// What of a request decides.
#[derive(Clone, Copy)]
pub struct Asked<'a, 'h> {
    /// The normal form of its path.
    pub path: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Looks for a field by its lower-case name.
    pub field: &'a dyn Fn(&str) -> Found<'h>,
}

/// What a head has of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'h> {
    /// Nothing.
    No,
    /// One of that name.
    Once(&'h [u8]),
    /// More than one.
    Often,
}

impl When {
    /// Whether a rule is for that request.
    pub fn is_met(&self, asked: &Asked<'_, '_>) -> bool {
        let is_path = match self.matching {
            PathMatch::Exact => asked.path == self.path.as_str(),
            PathMatch::Prefix => path::is_below(asked.path, self.path.as_str()),
        };
        is_path
            && self.method.as_ref().is_none_or(|method| *method.0 == *asked.method)
            && self.fields.iter().all(|field| field.is_met(asked))
    }

    /// Who has more of it comes first.
    pub fn specificity(&self) -> impl Ord + use<> {
        (self.matching, self.path.as_prefix().len(), self.method.is_some(), self.fields.len())
    }

    /// Whether two rules are for the very same requests.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same_path = match (self.matching, other.matching) {
            (PathMatch::Prefix, PathMatch::Prefix) => self.path.as_prefix() == other.path.as_prefix(),
            (one, another) => one == another && self.path == other.path,
        };
        let has = |fields: &[FieldMatch], field| fields.contains(field);
        is_same_path
            && self.method == other.method
            && self.fields.len() == other.fields.len()
            && self.fields.iter().all(|field| has(&other.fields, field))
    }
}

impl FieldMatch {
    fn is_met(&self, asked: &Asked<'_, '_>) -> bool {
        match (&self.value, (asked.field)(&self.name.0)) {
            (_, Found::No) => false,
            (None, _) => true,
            (Some(wanted), Found::Once(value)) => *value == *wanted.0.as_bytes(),
            (Some(_), Found::Often) => false,
        }
    }
}

/// A method, in upper case as all known ones are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodName(Box<str>);

/// The name of a field, in lower case; none that does not reach an application as its client sent it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(Box<str>);

/// The value of a field: visible ASCII, with spaces inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldValue(Box<str>);

/// Why a text cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// It is no method.
    #[error("a method is a word in upper case")]
    Method,
    /// It is no name.
    #[error("a header field's name is one word of letters, digits and -")]
    Name,
    /// It belongs to the connection, or is what the edge says itself.
    #[error("this header field is not the client's, or is the connection's: no route can depend on it")]
    NotTheClients,
    /// It is no value.
    #[error("a header field's value is visible ASCII, without spaces at its ends")]
    Value,
}

impl FromStr for MethodName {
    type Err = NotAsked;

    fn from_str(text: &str) -> Result<Self, NotAsked> {
        let is_word = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if text.is_empty() || text.len() > TOKEN_MAX_BYTES || !is_word {
            return Err(NotAsked::Method);
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for FieldName {
    type Err = NotAsked;

    fn from_str(text: &str) -> Result<Self, NotAsked> {
        // Without underscores: applications take them for hyphens, and a rule would not.
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if text.is_empty() || text.len() > TOKEN_MAX_BYTES || !is_word {
            return Err(NotAsked::Name);
        }
        let name = text.to_ascii_lowercase();
        // An application would see another one than the rule did.
        if is_of_messages(name.as_bytes()) || is_reserved_for_proxies(name.as_bytes()) {
            return Err(NotAsked::NotTheClients);
        }
        Ok(Self(name.into()))
    }
}

impl FromStr for FieldValue {
    type Err = NotAsked;

    fn from_str(text: &str) -> Result<Self, NotAsked> {
        let is_value = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if text.len() > VALUE_MAX_BYTES || !is_value || text.trim() != text {
            return Err(NotAsked::Value);
        }
        Ok(Self(text.into()))
    }
}

macro_rules! word {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = NotAsked;

            fn try_from(text: String) -> Result<Self, NotAsked> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

word!(MethodName FieldName FieldValue);
