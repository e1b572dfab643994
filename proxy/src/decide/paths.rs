//! A request's path in every way in which it may be read behind: what is decided by it holds in all of them, or there is no
//! decision. Most paths can be read in one way, as they are, and cost nothing here.

use dormouse_link::path::{Reading, is_normal, normalise, replace};

use super::refuse::Reason;

/// Paths under it are ours on every host.
const RESERVED_PREFIX: &str = "/.dormouse/";
/// What the prefix has in it that other paths do not.
const RESERVED_WORD: &[u8] = b"dormouse";

/// Bytes that are read in all readings of a path together; nobody needs a path that is long and doubtful in many ways.
const READ_MAX_BYTES: usize = 64 << 10;

/// The path of a request.
pub(crate) struct Paths<'a> {
    path: &'a str,
    is_normal: bool,
}

/// Its readings lead to different places, or would cost too much.
#[derive(Debug)]
pub(crate) struct Ambiguous;

impl From<Ambiguous> for Reason {
    fn from(_: Ambiguous) -> Self {
        Self::AmbiguousPath
    }
}

impl<'a> Paths<'a> {
    pub(crate) fn of(path: &'a str) -> Self {
        Self { path, is_normal: is_normal(path) }
    }

    /// Whether it is ours as it is written, or in any reading: nobody gets around the prefix by another spelling of it.
    pub(crate) fn reserved(&self) -> Result<bool, Ambiguous> {
        if self.path.starts_with(RESERVED_PREFIX) {
            return Ok(true);
        }
        if self.is_normal {
            return Ok(is_reserved(self.path));
        }
        if !mentions(self.path.as_bytes(), RESERVED_WORD) {
            return Ok(false);
        }
        let mut reserved = false;
        self.each(|form| reserved |= is_reserved(form))?;
        Ok(reserved)
    }

    /// What `place` says of every reading.
    pub(crate) fn agreed<P: PartialEq>(&self, mut place: impl FnMut(&str) -> P) -> Result<P, Ambiguous> {
        if self.is_normal {
            return Ok(place(self.path));
        }
        let (mut agreed, mut differs) = (None, false);
        self.each(|form| {
            let place = place(form);
            differs |= agreed.as_ref().is_some_and(|agreed| *agreed != place);
            agreed = Some(place);
        })?;
        agreed.filter(|_| !differs).ok_or(Ambiguous)
    }

    /// The path with `by` in the place of the prefix `prefix`, spelt as the client did if that is possible. Every reading of it is
    /// what that reading of the path has in the place.
    pub(crate) fn replaced(&self, prefix: &str, by: &str) -> Result<String, Ambiguous> {
        if self.is_normal {
            return replace(self.path, prefix, by).ok_or(Ambiguous);
        }
        let mut form = String::new();
        normalise(self.path, Reading::default(), &mut form);
        let segments = prefix.trim_end_matches('/').matches('/').count();
        let cut = self.path.match_indices('/').nth(segments).map_or(self.path.len(), |(at, _)| at);
        let spelt = [prefix.trim_end_matches('/'), &self.path[cut..]].concat();
        let candidates = [replace(&spelt, prefix, by), replace(&form, prefix, by)];
        candidates.into_iter().flatten().find(|candidate| self.is_kept_in(candidate, prefix, by)).ok_or(Ambiguous)
    }

    /// Whether every reading of `candidate` has what the same reading of the path has.
    fn is_kept_in(&self, candidate: &str, prefix: &str, by: &str) -> bool {
        if self.is_too_much() {
            return false;
        }
        let (mut form, mut other) = (String::new(), String::new());
        Reading::all(self.path).all(|reading| {
            normalise(self.path, reading, &mut form);
            normalise(candidate, reading, &mut other);
            replace(&form, prefix, by).is_some_and(|wanted| wanted == other)
        })
    }

    fn each(&self, mut look: impl FnMut(&str)) -> Result<(), Ambiguous> {
        if self.is_too_much() {
            return Err(Ambiguous);
        }
        let mut form = String::with_capacity(self.path.len());
        for reading in Reading::all(self.path) {
            normalise(self.path, reading, &mut form);
            look(&form);
        }
        Ok(())
    }

    fn is_too_much(&self) -> bool {
        self.path.len().saturating_mul(Reading::all(self.path).count()) > READ_MAX_BYTES
    }
}

/// Whether the first segment of a normal form is ours, however large its letters are.
fn is_reserved(form: &str) -> bool {
    let (form, (prefix, slash)) = (form.as_bytes(), RESERVED_PREFIX.as_bytes().split_at(RESERVED_PREFIX.len() - 1));
    form.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
        && form.get(prefix.len()).is_none_or(|byte| *byte == slash[0])
}

/// Whether a word is anywhere in a path, however it is spelt.
fn mentions(mut bytes: &[u8], word: &[u8]) -> bool {
    let begins = |mut bytes: &[u8]| {
        word.iter().all(|letter| {
            let (byte, rest) = first(bytes);
            bytes = rest;
            byte.is_some_and(|byte| byte.eq_ignore_ascii_case(letter))
        })
    };
    while !bytes.is_empty() {
        if begins(bytes) {
            return true;
        }
        bytes = &bytes[1..];
    }
    false
}

/// The first character, unescaped, and what follows it.
fn first(bytes: &[u8]) -> (Option<u8>, &[u8]) {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match bytes {
        [b'%', high, low, rest @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
            (digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low), rest)
        }
        [byte, rest @ ..] => (Some(*byte), rest),
        [] => (None, bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_is_replaced_as_the_client_spelt_the_rest_or_not_at_all() {
        for (path, by, result) in [
            ("/api/x", "/", Some("/x")),
            ("/api", "/", Some("/")),
            ("/api/a%2fb;c", "/", Some("/a%2fb;c")),
            ("/%61pi/%7ex", "/v2", Some("/v2/%7ex")),
            ("/x/../api/y", "/", Some("/y")),
            ("/api/../api/%7ey", "/", Some("/~y")),
            ("/api/x/../y", "/", Some("/x/../y")),
            ("/./api/x", "/v2", Some("/v2/x")),
            ("/api//x", "/v2", Some("/v2//x")),
            ("/api//x", "/", Some("/x")),
            ("/api/..%2fapi/x", "/", None),
        ] {
            assert_eq!(Paths::of(path).replaced("/api", by).ok().as_deref(), result, "{path} {by}");
        }
    }

    #[test]
    fn what_is_long_and_doubtful_costs_nothing() {
        let long = format!("/x%2f\\;%00//{}", "dormouse".repeat(1000));
        assert!(Paths::of(&long).reserved().is_err());
        assert!(Paths::of(&long).agreed(|_| ()).is_err());
        let long = format!("/x//{}", "a".repeat(16 << 10));
        assert!(matches!(Paths::of(&long).reserved(), Ok(false)));
    }

    proptest! {
        #[test]
        fn what_is_replaced_is_read_alike_in_every_way(
            path in "/(api|%61pi|\\.|x)(/|%2f|\\\\|;|//|\\.\\.|\\.|%2e|a|%7e|api|%00){0,8}",
            by in "/|/v2|/a/b",
        ) {
            let paths = Paths::of(&path);
            let Ok(new) = paths.replaced("/api", &by) else { return Ok(()) };
            prop_assert!(new.starts_with('/'));
            for reading in Reading::all(&path) {
                let (mut was, mut is) = (String::new(), String::new());
                normalise(&path, reading, &mut was);
                normalise(&new, reading, &mut is);
                prop_assert_eq!(replace(&was, "/api", &by), Some(is), "{:?} {}", reading, &new);
            }
        }
    }
}
