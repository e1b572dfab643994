//! Paths: the one form in which they are compared, and every way in which somebody behind may read one differently.
//!
//! A request is routed by its path's *normal form* and forwarded as it was sent. Two spellings that all agree on become one:
//! escapes of plain characters are undone, the others get upper-case digits, `.` and `..` are resolved (RFC 3986 section 6.2.2).
//! Servers do not agree on an escaped slash, a backslash, a semicolon, an empty segment and a zero: each is a
//! [`Reading`], and whoever routes asks whether all readings of a path lead to the same place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest path in a table, in bytes.
pub const PATH_MAX_BYTES: usize = 2048;

const SLASH: &str = "/";
const UPPER_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// One way to read a path where servers differ; the default is that of RFC 3986.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading(u8);

impl Reading {
    /// `%2F` separates segments.
    const ESCAPED_SLASH: u8 = 1;
    /// `\` and `%5C` separate segments.
    const BACKSLASH: u8 = 2;
    /// `;`, `%3B` and what follows do not belong to a segment.
    const PARAMETERS: u8 = 4;
    /// `%00` ends the path.
    const ZERO: u8 = 8;
    /// Empty segments are not there.
    const MERGED: u8 = 16;

    /// Every way to read `path` that makes a difference, the default one first.
    pub fn all(path: &str) -> impl Iterator<Item = Self> + use<> {
        let in_doubt = Self::in_doubt(path);
        (0..=in_doubt).filter(move |ways| ways & !in_doubt == 0).map(Self)
    }

    /// What servers may read differently in it.
    fn in_doubt(path: &str) -> u8 {
        let bytes = path.as_bytes();
        let mut ways = 0;
        for (at, byte) in bytes.iter().enumerate() {
            ways |= match byte {
                b'\\' => Self::BACKSLASH,
                b';' => Self::PARAMETERS,
                b'/' if at > 0 && bytes[at - 1] == b'/' => Self::MERGED,
                b'%' => match escaped(&bytes[at..]) {
                    Some(b'/') => Self::ESCAPED_SLASH,
                    Some(b'\\') => Self::BACKSLASH,
                    Some(b';') => Self::PARAMETERS,
                    Some(0) => Self::ZERO,
                    _ => 0,
                },
                _ => 0,
            };
        }
        // Each of the others can empty a segment.
        if ways == 0 { 0 } else { ways | Self::MERGED }
    }

    fn has(self, way: u8) -> bool {
        self.0 & way != 0
    }
}

/// Whether a path is its own normal form, and can be read in one way only. Most are.
pub fn is_normal(path: &str) -> bool {
    let mut before = 0;
    let mut bytes = path.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let mut dot_segment = || matches!(bytes.peek(), None | Some(b'/' | b'.'));
        match byte {
            b'/' if before == b'/' => return false,
            // Perhaps: who looks closer finds out.
            b'.' if before == b'/' && dot_segment() => return false,
            b';' => return false,
            b'/' => {}
            byte if !is_plain(byte) => return false,
            _ => {}
        }
        before = byte;
    }
    path.starts_with('/')
}

/// Writes the normal form of `path` into `form`. What does not begin with a slash (`*`) is read as `/`.
pub fn normalise(path: &str, reading: Reading, form: &mut String) {
    form.clear();
    form.push('/');
    let Some(path) = path.strip_prefix('/') else { return };
    let mut bytes = path.as_bytes();
    let (mut begin, mut skips) = (form.len(), false);
    while let [first, rest @ ..] = bytes {
        let escape = escaped(bytes);
        bytes = if escape.is_some() { &rest[2..] } else { rest };
        let byte = escape.unwrap_or(*first);
        let separates = match byte {
            b'/' => escape.is_none() || reading.has(Reading::ESCAPED_SLASH),
            b'\\' => reading.has(Reading::BACKSLASH),
            _ => false,
        };
        if separates {
            end_segment(form, begin, Some(reading));
            (begin, skips) = (form.len(), false);
        } else if byte == 0 && reading.has(Reading::ZERO) {
            break;
        } else if skips || (byte == b';' && reading.has(Reading::PARAMETERS)) {
            skips = true;
        } else if is_plain(byte) || (byte == b';' && escape.is_none()) {
            form.push(char::from(byte));
        } else {
            form.push('%');
            form.push(char::from(UPPER_DIGITS[usize::from(byte >> 4)]));
            form.push(char::from(UPPER_DIGITS[usize::from(byte & 15)]));
        }
    }
    end_segment(form, begin, None);
}

/// Resolves the segment from `begin` on, and separates it from the next one if there is a next one.
fn end_segment(form: &mut String, begin: usize, next: Option<Reading>) {
    match (&form[begin..], next) {
        (".", _) => form.truncate(begin),
        ("..", _) => {
            let parent = form[..begin - 1].rfind('/').map_or(1, |slash| slash + 1);
            form.truncate(parent);
        }
        ("", Some(reading)) if reading.has(Reading::MERGED) => {}
        (_, Some(_)) => form.push('/'),
        (_, None) => {}
    }
}

/// The byte that an escape stands for, if `bytes` begin with one.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match bytes {
        [b'%', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Characters that mean the same escaped or not: those of a segment (RFC 3986 section 3.3) but for the semicolon.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// Whether `path`, in normal form, is `prefix` or below it: by whole segments, and whether or not the prefix ends with a slash.
pub fn is_below(path: &str, prefix: &str) -> bool {
    below(path, prefix).is_some()
}

/// What follows a prefix in a path below it: nothing, or a slash and more.
pub fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The path with `by` in the place of `prefix`, if it is below that; it begins with one slash.
pub fn replace(path: &str, prefix: &str, by: &str) -> Option<String> {
    let rest = below(path, prefix)?;
    let by = by.strip_suffix('/').unwrap_or(by);
    let rest = if by.is_empty() { rest.trim_start_matches('/') } else { rest };
    let slash = if by.is_empty() { SLASH } else { "" };
    Some([by, slash, rest].concat())
}

/// A path in a table: normal, with one reading only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePath(Box<str>);

/// Why a text is no [`RoutePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is relative, or nothing.
    #[error("a path begins with /")]
    Relative,
    /// More than [`PATH_MAX_BYTES`].
    #[error("a path has at most {PATH_MAX_BYTES} characters")]
    TooLong,
    /// White space, a query, a fragment, or a character outside ASCII.
    #[error("a path has no ?, no #, no white space, and other letters as their escapes (%C3%A9)")]
    Character,
    /// Servers would read it in different ways, so no request could be told to have it.
    #[error("a path has no . or .. segments, no //, \\, or ;, and none of %2F, %5C, %3B, %00")]
    Ambiguous,
}

impl RoutePath {
    /// The path of everything.
    pub fn root() -> Self {
        Self(SLASH.into())
    }

    /// The path in its normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of everything.
    pub fn is_root(&self) -> bool {
        *self.0 == *SLASH
    }

    /// Without the slash at its end; two prefixes that differ in it are the same.
    pub fn as_prefix(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }
}

impl Default for RoutePath {
    fn default() -> Self {
        Self::root()
    }
}

impl FromStr for RoutePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::Relative);
        }
        if text.len() > PATH_MAX_BYTES {
            return Err(PathError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
            return Err(PathError::Character);
        }
        let mut form = String::with_capacity(text.len());
        normalise(text, Reading::default(), &mut form);
        let segments = |path: &str| path.split('/').count();
        // A dot segment takes itself away, or leaves a slash where it was the last.
        let has_dots = segments(text) != segments(&form) || form.ends_with('/') != text.ends_with('/');
        if has_dots || Reading::all(text).nth(1).is_some() {
            return Err(PathError::Ambiguous);
        }
        if form.len() > PATH_MAX_BYTES {
            return Err(PathError::TooLong);
        }
        Ok(Self(form.into()))
    }
}

impl TryFrom<String> for RoutePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<RoutePath> for String {
    fn from(path: RoutePath) -> Self {
        path.0.into()
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
