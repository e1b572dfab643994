//! `policy.compression`: which answers an edge compresses on their way to clients that take it so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Patterns of media types in one policy.
const TYPES_MAX: usize = 64;
/// The longest of them, in bytes.
const TYPE_MAX_BYTES: usize = 127;
/// The largest `least_bytes`: 16 MiB.
const LEAST_BYTES_MAX: u32 = 16 << 20;
/// What is smaller gains less than it costs.
const LEAST_BYTES: u32 = 1024;
/// What is compressed if it is not said: text, data and programs, and fonts and pictures whose formats are not compressed.
const TYPES: [&str; 12] = [
    "text/*",
    "application/javascript",
    "application/json",
    "application/*+json",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
];

/// Which answers are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Compression {
    /// Of these media types.
    #[serde(skip_serializing_if = "are_usual_types")]
    pub types: Vec<MediaTypes>,
    /// Those whose length is known only from so many bytes on.
    #[serde(skip_serializing_if = "is_usual_least")]
    pub least_bytes: u32,
    /// How; of what a client likes equally well, the first.
    #[serde(skip_serializing_if = "are_usual_codings")]
    pub codings: Vec<Coding>,
}

crate::object::only!(Compression);

/// How an answer may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Zstandard (RFC 8878, RFC 9659).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// As messages have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// One media type, `text/html`; all of a kind, `text/*`; or all with a suffix, `application/*+json`. In lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediaTypes(String);

/// What no media type is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no media type: text/html, text/* and application/*+json are, without parameters")]
pub struct MediaTypesError(String);

impl MediaTypes {
    /// Whether a media type without parameters is one of them.
    pub fn has(&self, media_type: &[u8]) -> bool {
        let Some((begin, end)) = self.0.split_once('*') else {
            return media_type.eq_ignore_ascii_case(self.0.as_bytes());
        };
        let rest = media_type.get(..begin.len()).filter(|it| it.eq_ignore_ascii_case(begin.as_bytes()));
        let rest = rest.map(|_| &media_type[begin.len()..]).unwrap_or_default();
        rest.len() > end.len() && rest[rest.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    }
}

impl TryFrom<String> for MediaTypes {
    type Error = MediaTypesError;

    fn try_from(text: String) -> Result<Self, MediaTypesError> {
        let token = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
            !text.is_empty() && text.bytes().all(plain)
        };
        let is_type = text.split_once('/').is_some_and(|(main, sub)| {
            let suffix = |sub: &str| sub.strip_prefix('*').is_some_and(|rest| rest.is_empty() || rest.starts_with('+'));
            token(main) && (token(sub) || (suffix(sub) && (sub == "*" || token(&sub[2..]))))
        });
        if !is_type || text.len() > TYPE_MAX_BYTES {
            return Err(MediaTypesError(text.chars().take(TYPE_MAX_BYTES).collect()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl From<MediaTypes> for String {
    fn from(types: MediaTypes) -> Self {
        types.0
    }
}

impl fmt::Display for MediaTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            types: TYPES.map(|text| MediaTypes(text.to_owned())).to_vec(),
            least_bytes: LEAST_BYTES,
            codings: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
        }
    }
}

fn are_usual_types(types: &[MediaTypes]) -> bool {
    types.iter().map(|types| &*types.0).eq(TYPES)
}

fn is_usual_least(bytes: &u32) -> bool {
    *bytes == LEAST_BYTES
}

fn are_usual_codings(codings: &[Coding]) -> bool {
    codings == [Coding::Zstd, Coding::Br, Coding::Gzip]
}

/// What is wrong with compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// None, or too many.
    #[error("types has from 1 to {TYPES_MAX} media types")]
    Types,
    /// Too large.
    #[error("least_bytes is at most {LEAST_BYTES_MAX}")]
    Least,
    /// None, or one twice.
    #[error("codings has from 1 to 3 of \"zstd\", \"br\" and \"gzip\", each once")]
    Codings,
}

impl Compression {
    pub(super) fn check(&self) -> Result<(), CompressionError> {
        if self.types.is_empty() || self.types.len() > TYPES_MAX {
            return Err(CompressionError::Types);
        }
        if self.least_bytes > LEAST_BYTES_MAX {
            return Err(CompressionError::Least);
        }
        let is_twice = |at: usize| self.codings[..at].contains(&self.codings[at]);
        if self.codings.is_empty() || (0..self.codings.len()).any(is_twice) {
            return Err(CompressionError::Codings);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(text: &str) -> Result<MediaTypes, MediaTypesError> {
        text.to_owned().try_into()
    }

    #[test]
    fn a_pattern_is_for_a_type_for_a_kind_or_for_a_suffix() {
        for (pattern, media_type, has) in [
            ("text/html", "text/html", true),
            ("Text/HTML", "tEXT/html", true),
            ("text/html", "text/htm", false),
            ("text/html", "text/html5", false),
            ("text/*", "text/css", true),
            ("text/*", "TEXT/css", true),
            ("text/*", "text/", false),
            ("text/*", "textual/css", false),
            ("application/*+json", "application/ld+json", true),
            ("application/*+json", "application/ld+JSON", true),
            ("application/*+json", "application/+json", false),
            ("application/*+json", "application/json", false),
            ("application/*+json", "application/ld+json5", false),
        ] {
            assert_eq!(types(pattern).expect(pattern).has(media_type.as_bytes()), has, "{pattern} {media_type}");
        }
        for bad in [
            "",
            "text",
            "*",
            "*/*",
            "/html",
            "text/",
            "text/html; charset=utf-8",
            "text/ht*",
            "text/*json",
            "text/*+",
            "a b/c",
        ] {
            assert!(types(bad).is_err(), "{bad}");
        }
        assert!(types(&format!("text/{}", "a".repeat(123))).is_err());
    }

    #[test]
    fn what_is_usual_is_spelt_as_others_would_be() {
        for text in TYPES {
            assert_eq!(types(text).expect(text).to_string(), text);
        }
        assert_eq!(serde_json::to_string(&Compression::default()).expect("plain data"), "{}");
        assert_eq!(serde_json::from_str::<Compression>("{}").expect("plain data"), Compression::default());
    }
}
