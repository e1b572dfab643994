//! Names in git: commits and branches, parsed at the border, so that nothing inside can be taken for an option or a path.

use std::fmt;
use std::str::FromStr;

/// The longest name of a branch, in bytes.
pub const BRANCH_MAX_BYTES: usize = 200;

/// The name of a commit: 40 lower-case hexadecimal digits, or 64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(String);

/// The text is no name of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a commit's name has 40 or 64 lower-case hexadecimal digits")]
pub struct CommitError;

impl Commit {
    /// The whole name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its beginning, for people.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl FromStr for Commit {
    type Err = CommitError;

    fn from_str(text: &str) -> Result<Self, CommitError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (digits && matches!(text.len(), 40 | 64)).then(|| Self(text.to_owned())).ok_or(CommitError)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a branch, without `refs/heads/`. Stricter than git: what is allowed means nothing to git or a shell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch(String);

/// Why a text names no branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchError {
    /// Nothing, or more than [`BRANCH_MAX_BYTES`].
    #[error("a branch's name has 1 to {BRANCH_MAX_BYTES} characters")]
    Length,
    /// Not made of parts that git and everybody else reads the same way.
    #[error(
        "a branch's name has letters, digits, '.', '_', '-' and '/'; no part begins with '.' or '-' or ends with '.' or '.lock'"
    )]
    Character,
}

impl Branch {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The full name of its ref.
    pub fn full(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

impl FromStr for Branch {
    type Err = BranchError;

    fn from_str(text: &str) -> Result<Self, BranchError> {
        if text.is_empty() || text.len() > BRANCH_MAX_BYTES {
            return Err(BranchError::Length);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(allowed)
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && !part.ends_with(".lock")
                && !part.contains("..")
        };
        if text == "HEAD" || !text.split('/').all(part) {
            return Err(BranchError::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().expect("40 digits")
    }

    #[test]
    fn c02_a_branch_is_what_everybody_reads_the_same_way() {
        for good in ["develop", "main", "feature/a-1", "v1.2_3"] {
            assert_eq!(good.parse::<Branch>().expect(good).full(), format!("refs/heads/{good}"));
        }
        for bad in [
            "-x",
            "a/-x",
            "--upload-pack=id",
            "../x",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a.",
            "a.lock",
            "a..b",
            "a b",
            "a;id",
            "$(id)",
            "a\n",
            "a@{1}",
            "a^",
            "a:b",
            "HEAD",
            "é",
            "a~1",
            "refs/heads/*",
        ] {
            assert_eq!(bad.parse::<Branch>(), Err(BranchError::Character), "{bad:?}");
        }
        assert_eq!("".parse::<Branch>(), Err(BranchError::Length));
        assert_eq!("a".repeat(201).parse::<Branch>(), Err(BranchError::Length));
    }

    #[test]
    fn a_commit_is_its_whole_name() {
        assert_eq!(commit('a').short(), "aaaaaaa");
        assert!("b".repeat(64).parse::<Commit>().is_ok());
        for bad in ["", "abc", "HEAD", &"A".repeat(40), &"g".repeat(40), &"a".repeat(41), &"é".repeat(20)] {
            assert_eq!(bad.parse::<Commit>(), Err(CommitError), "{bad:?}");
        }
    }
}
