//! The secrets that edges share to seal session tickets with, as they are given from outside, and those that a proxy made
//! itself, as they go to its successor.
//!
//! A few at a time: the current one, the previous one, perhaps the next. Nothing here shows a secret, errors included, and each
//! is overwritten when it is dropped.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of a secret.
pub(super) const SECRET_BYTES: usize = 32;
/// Secrets that are given at a time.
const KEYS_MAX: usize = 8;
/// Of a key that goes to a successor: the form's number, from when it is used in seconds of Unix time, the secret.
const FORM_BYTES: usize = 1 + 8 + SECRET_BYTES;
/// The form that is written, and the only one that is read.
const FORM: u8 = 1;

/// A secret, and from when it is used. It is not used when it is a day old.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    secret: [u8; SECRET_BYTES],
    not_before: SystemTime,
}

/// A secret that a proxy made itself, for the tickets of one of its listeners. Only a successor on the same machine gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTicketKey {
    /// The listener's name.
    pub listener: String,
    /// The secret.
    pub key: TicketKey,
}

/// A few secrets. The newest that has begun seals tickets; the others open what was sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys(Vec<TicketKey>);

/// Why ticket keys are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeysError {
    /// There is none.
    #[error("there is no ticket key")]
    None,
    /// More than are kept.
    #[error("there are more than {KEYS_MAX} ticket keys")]
    TooMany,
    /// Two are the same.
    #[error("a ticket key is there twice")]
    Twice,
    /// A line is no key.
    #[error("line {0} is no ticket key")]
    Line(
        /// Counted from 1.
        usize,
    ),
}

impl TicketKey {
    /// A secret of random bytes that is used from `not_before` on.
    pub fn new(secret: [u8; SECRET_BYTES], not_before: SystemTime) -> Self {
        Self { secret, not_before }
    }

    /// What [`TicketKey::from_bytes`] reads again; to be overwritten after use, as it holds the secret.
    pub fn to_bytes(&self) -> Vec<u8> {
        let begins = self.not_before.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        [&[FORM][..], &begins.to_be_bytes(), &self.secret].concat()
    }

    /// The key that another process wrote, if it did so in a form that is known.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FORM_BYTES] = bytes.try_into().ok()?;
        let (&[form], rest) = bytes.split_first_chunk::<1>()?;
        let (begins, secret) = rest.split_first_chunk::<8>()?;
        let not_before = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_be_bytes(*begins)))?;
        (form == FORM).then_some(Self { secret: secret.try_into().ok()?, not_before })
    }

    pub(super) fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    pub(super) fn not_before(&self) -> SystemTime {
        self.not_before
    }

    fn parse(line: &str) -> Option<Self> {
        let (seconds, digits) = line.split_once(char::is_whitespace)?;
        let not_before = UNIX_EPOCH.checked_add(Duration::from_secs(seconds.parse().ok()?))?;
        let digits = digits.trim().as_bytes();
        let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
        let mut secret = [0; SECRET_BYTES];
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != SECRET_BYTES || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in secret.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self { secret, not_before })
    }
}

impl TicketKeys {
    /// At least one, and no two alike.
    pub fn new(keys: Vec<TicketKey>) -> Result<Self, TicketKeysError> {
        if keys.is_empty() {
            return Err(TicketKeysError::None);
        }
        if keys.len() > KEYS_MAX {
            return Err(TicketKeysError::TooMany);
        }
        if keys.iter().enumerate().any(|(at, key)| keys[..at].iter().any(|other| other.secret == key.secret)) {
            return Err(TicketKeysError::Twice);
        }
        Ok(Self(keys))
    }

    /// Reads a file's text: a line for each key, `SECONDS SECRET`: from when it is used, in seconds of Unix time, and 64 hex
    /// digits. Empty lines and those that begin with `#` do not count.
    pub fn parse(text: &str) -> Result<Self, TicketKeysError> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(|(at, line)| TicketKey::parse(line).ok_or(TicketKeysError::Line(at + 1)));
        Self::new(keys.collect::<Result<_, _>>()?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TicketKey> {
        self.0.iter()
    }
}

/// Leaves no secret behind in memory that others get.
impl Drop for TicketKey {
    fn drop(&mut self) {
        self.secret.fill(0);
        // Otherwise the compiler may leave it away: nobody reads it.
        std::hint::black_box(&self.secret);
    }
}

/// Shows no secret.
impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("not_before", &self.not_before).finish_non_exhaustive()
    }
}

/// Shows no secret.
impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff";

    #[test]
    fn a_file_has_a_key_in_each_line() {
        let other = CANARY.replace("c0", "C1");
        let keys = TicketKeys::parse(&format!("# ours\n\n1000 {CANARY}\n  2000\t{other}  \r\n")).expect("keys");
        let begins: Vec<_> = keys.iter().map(TicketKey::not_before).collect();
        assert_eq!(begins, [1000, 2000].map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(keys.iter().next().expect("one").secret()[..3], [0xc0, 0xff, 0xee]);
        let nine: String = (0..9).map(|at| format!("1 {at}{}\n", &CANARY[1..])).collect();
        for (text, error) in [
            ("", TicketKeysError::None),
            ("# nothing", TicketKeysError::None),
            (nine.as_str(), TicketKeysError::TooMany),
            (&format!("1 {CANARY}\n2 {CANARY}"), TicketKeysError::Twice),
            (&format!("\n1 {CANARY}0"), TicketKeysError::Line(2)),
            (&format!("1 {}", &CANARY[2..]), TicketKeysError::Line(1)),
            (&format!("1 {}g", &CANARY[1..]), TicketKeysError::Line(1)),
            (&format!("-1 {CANARY}"), TicketKeysError::Line(1)),
            (&format!("{} {CANARY}", u64::MAX), TicketKeysError::Line(1)),
            (CANARY, TicketKeysError::Line(1)),
        ] {
            assert_eq!(TicketKeys::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_key_goes_to_a_successor_as_bytes_and_no_other_bytes_are_one() {
        let key = TicketKey::new([7; SECRET_BYTES], UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let bytes = key.to_bytes();
        assert_eq!(TicketKey::from_bytes(&bytes).as_ref(), Some(&key));
        for length in (0..bytes.len()).chain([bytes.len() + 1]) {
            let mut other = bytes.clone();
            other.resize(length, 0);
            assert_eq!(TicketKey::from_bytes(&other), None, "{length} bytes");
        }
        let mut newer = bytes.clone();
        newer[0] = FORM + 1;
        assert_eq!(TicketKey::from_bytes(&newer), None, "another form");
        // A begin that no clock knows is refused by whoever uses it, and makes nothing panic here.
        let mut late = bytes;
        late[1..9].fill(0xff);
        assert_eq!(TicketKey::from_bytes(&late), None);
    }

    #[test]
    fn p53_a_secret_is_never_shown() {
        let keys = TicketKeys::parse(&format!("1 {CANARY}")).expect("a key");
        let own = keys.iter().map(|key| OwnTicketKey { listener: "https".to_owned(), key: key.clone() }).next();
        let shown = format!("{keys:?} {:?} {own:?}", keys.iter().next());
        assert!(!shown.contains("192, 255") && !shown.to_lowercase().contains("c0ffee"), "{shown}");
    }
}
