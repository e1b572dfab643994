//! A bare repository on disk, and every call of git on it.
//!
//! Each call gets the same bare environment and the same settings on its command line: neither the machine's configuration nor
//! the repository's own can change what git does here, and no hook ever runs. Nothing goes through a shell.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::name::{Branch, Commit};

/// How long one of the calls here may take.
const CALL_WITHIN: Duration = Duration::from_secs(120);

/// The longest list of refs that is read, in bytes: some 200 000 of them.
const REFS_MAX_BYTES: u64 = 16 << 20;

/// The longest other answer of git that is read, in bytes.
const ANSWER_MAX_BYTES: u64 = 4 << 10;

/// A disk without room for so much is full.
const PROBE_BYTES: usize = 16 << 10;

/// What holds for every call.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    // A push that was answered is on disk.
    "core.fsync=committed,reference",
    // The path is always ours to give, whoever owns the data folder.
    "safe.directory=*",
    "receive.fsckObjects=true",
    "receive.denyDeletes=true",
    "receive.denyNonFastForwards=false",
    // Housekeeping would go on after the response, unasked and unlimited.
    "receive.autogc=false",
    "receive.advertisePushOptions=false",
    // What is larger is streamed and not held in memory.
    "core.bigFileThreshold=32m",
    "gc.auto=0",
    "maintenance.auto=false",
    // Branches and tags are all there is: refs/replace/ would change what a commit means.
    "transfer.hideRefs=refs/",
    "transfer.hideRefs=!refs/heads/",
    "transfer.hideRefs=!refs/tags/",
    "uploadpack.allowTipSHA1InWant=false",
    "uploadpack.allowReachableSHA1InWant=false",
    "uploadpack.allowAnySHA1InWant=false",
    // An image is made from the commit's whole tree, readable for whoever the image runs as.
    "tar.umask=0022",
];

/// What git says, in the language it is told to use, where a disk has no room.
pub(super) const DISK_FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// What an archive may not leave out or change, whatever the tree's own attributes say.
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";

/// The refs of a repository: branches and tags by their full names.
pub type Refs = BTreeMap<String, Commit>;

/// A bare repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository(PathBuf);

/// Why git did not do something.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Git could not be run.
    #[error("run git to {doing}: is it installed?")]
    Run {
        /// What was asked.
        doing: &'static str,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("{doing}: git says: {says}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Its words.
        says: String,
    },
    /// It said more than allowed.
    #[error("{doing}: more than {limit} bytes")]
    TooMuch {
        /// What was asked.
        doing: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// It took too long.
    #[error("{doing}: not done within {} seconds", CALL_WITHIN.as_secs())]
    Deadline {
        /// What was asked.
        doing: &'static str,
    },
    /// A file of the repository could not be written.
    #[error("write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl RepositoryError {
    /// Whether the disk of the repositories is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Refused { says, .. } => DISK_FULL.iter().any(|words| says.contains(words)),
            Self::Write { source, .. } | Self::Run { source, .. } => is_no_room(source),
            Self::TooMuch { .. } | Self::Deadline { .. } => false,
        }
    }
}

impl Repository {
    /// The repository at an absolute path, which [`Repository::create`] made before.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the repository, its HEAD on `branch`; finishes what an earlier call began, and changes nothing of one that is
    /// whole. The folder above must be there.
    pub async fn create(path: impl Into<PathBuf>, branch: &Branch) -> Result<Self, RepositoryError> {
        let path = path.into();
        let path = std::path::absolute(&path).map_err(|source| RepositoryError::Write { path, source })?;
        let repository = Self(path);
        match repository.make(branch).await {
            Ok(()) => Ok(repository),
            // Git does not say so in each of its words.
            Err(error) => Err(match no_room(repository.0.parent().unwrap_or(&repository.0)).await {
                Some(source) => RepositoryError::Write { path: repository.0, source },
                None => error,
            }),
        }
    }

    async fn make(&self, branch: &Branch) -> Result<(), RepositoryError> {
        let doing = "make a repository";
        let mut init = git(&self.0);
        init.args(["init", "--quiet", "--bare", "--template=", "--"]).arg(&self.0);
        call(init, doing, ANSWER_MAX_BYTES).await?.whole(doing)?;
        let mut head = self.git();
        head.args(["symbolic-ref", "HEAD", &branch.full()]);
        call(head, doing, ANSWER_MAX_BYTES).await?.whole(doing)?;
        let info = self.0.join("info");
        let attributes = info.join("attributes");
        let written = async {
            tokio::fs::create_dir_all(&info).await?;
            tokio::fs::write(&attributes, ATTRIBUTES).await
        };
        written.await.map_err(|source| RepositoryError::Write { path: attributes, source })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The commit at the head of a branch, or `None` where there is no such branch.
    pub async fn head(&self, branch: &Branch) -> Result<Option<Commit>, RepositoryError> {
        let doing = "read the head of a branch";
        let mut git = self.git();
        // The name begins with refs/, so it can be no option.
        git.args(["rev-parse", "--verify", "--quiet"]).arg(format!("{}^{{commit}}", branch.full()));
        let answer = call(git, doing, ANSWER_MAX_BYTES).await?;
        if answer.code == Some(1) && answer.says.is_empty() {
            return Ok(None);
        }
        let text = answer.text(doing)?;
        text.trim_end().parse().map(Some).map_err(|_| RepositoryError::Refused { doing, says: text })
    }

    /// All branches and tags, and what they point to.
    pub async fn refs(&self) -> Result<Refs, RepositoryError> {
        let doing = "read the refs";
        let mut git = self.git();
        git.args(["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/tags/"]);
        let text = call(git, doing, REFS_MAX_BYTES).await?.text(doing)?;
        let line = |line: &str| {
            let (commit, name) = line.split_once(' ')?;
            Some((name.to_owned(), commit.parse().ok()?))
        };
        let refs: Option<Refs> = text.lines().map(line).collect();
        refs.ok_or(RepositoryError::Refused { doing, says: "something that is no list of refs".into() })
    }

    /// The paths of the commit's files and folders, each ended by a NUL, of at most `max_bytes` together.
    pub async fn names(&self, commit: &Commit, max_bytes: u64) -> Result<Vec<u8>, RepositoryError> {
        let doing = "list the commit's files";
        let mut git = self.git();
        git.args(["ls-tree", "-r", "-t", "-z", "--full-tree", "--name-only", "--end-of-options", commit.as_str()]);
        call(git, doing, max_bytes).await?.whole(doing)
    }

    /// The commit's tree as a tar archive of at most `max_bytes`: what an image is built from.
    pub async fn archive(&self, commit: &Commit, max_bytes: u64) -> Result<Bytes, RepositoryError> {
        let doing = "read the commit's files";
        let mut git = self.git();
        git.args(["archive", "--format=tar", "--end-of-options", commit.as_str()]);
        Ok(call(git, doing, max_bytes).await?.whole(doing)?.into())
    }

    fn git(&self) -> Command {
        let mut git = git(&self.0);
        let mut folder = OsString::from("--git-dir=");
        folder.push(&self.0);
        git.arg(folder);
        git
    }
}

/// Git with nothing of this process's environment but the places where programs are.
pub(super) fn git(repository: &Path) -> Command {
    let mut git = Command::new("git");
    #[expect(clippy::disallowed_methods, reason = "handed on to git as it is, not read as configuration")]
    let path = std::env::var_os("PATH");
    git.env_clear().envs(path.map(|path| ("PATH", path)));
    git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")]);
    git.envs([("GIT_NO_REPLACE_OBJECTS", "1"), ("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")]);
    git.env("HOME", repository);
    for setting in SETTINGS {
        git.args(["-c", setting]);
    }
    // A group of its own: Ctrl-C on a terminal reaches us, and we end git in order.
    git.process_group(0).kill_on_drop(true);
    git
}

/// What a small file meets in a folder whose disk has no room for it.
async fn no_room(folder: &Path) -> Option<io::Error> {
    let probe = folder.join("room");
    let written = tokio::fs::write(&probe, [0; PROBE_BYTES]).await;
    // Where there was none, there is none; one that stays is written over.
    let _gone = tokio::fs::remove_file(&probe).await;
    written.err().filter(is_no_room)
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What changed from `before` to `after`.
pub(super) fn updates(before: &Refs, after: &Refs) -> Vec<RefUpdate> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let update =
        |name: &String| RefUpdate { name: name.clone(), old: before.get(name).cloned(), new: after.get(name).cloned() };
    names.into_iter().map(update).filter(|update| update.old != update.new).collect()
}

struct Answer {
    code: Option<i32>,
    stdout: Vec<u8>,
    says: String,
}

impl Answer {
    fn whole(self, doing: &'static str) -> Result<Vec<u8>, RepositoryError> {
        match self.code {
            Some(0) => Ok(self.stdout),
            _ => Err(RepositoryError::Refused { doing, says: self.says }),
        }
    }

    fn text(self, doing: &'static str) -> Result<String, RepositoryError> {
        // Names of refs need not be UTF-8; what is replaced still compares equal to itself.
        self.whole(doing).map(|stdout| String::from_utf8_lossy(&stdout).into_owned())
    }
}

async fn call(mut git: Command, doing: &'static str, limit: u64) -> Result<Answer, RepositoryError> {
    git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = |source| RepositoryError::Run { doing, source };
    let mut child = git.spawn().map_err(run)?;
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    let mut stderr = child.stderr.take().expect("stderr was asked for as a pipe");
    let (mut out, mut said) = (Vec::new(), Vec::new());
    let read = async {
        let stdout = async {
            stdout.take(limit + 1).read_to_end(&mut out).await?;
            // Dropped here: a program that has more to say ends by it.
            io::Result::Ok(())
        };
        let stderr = async {
            (&mut stderr).take(ANSWER_MAX_BYTES).read_to_end(&mut said).await?;
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await
        };
        tokio::try_join!(stdout, stderr)?;
        child.wait().await
    };
    let status = timeout(CALL_WITHIN, read).await.map_err(|_| RepositoryError::Deadline { doing })?.map_err(run)?;
    if out.len() as u64 > limit {
        return Err(RepositoryError::TooMuch { doing, limit });
    }
    Ok(Answer { code: status.code(), stdout: out, says: String::from_utf8_lossy(&said).trim().to_owned() })
}

/// A ref that a push made, moved or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// Its full name, such as `refs/heads/develop`.
    pub name: String,
    /// What it pointed to; for an annotated tag that is the tag.
    pub old: Option<Commit>,
    /// What it points to now.
    pub new: Option<Commit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().expect("40 digits")
    }

    #[test]
    fn updates_are_what_was_made_moved_and_removed() {
        let refs =
            |list: &[(&str, char)]| list.iter().map(|(name, digit)| (name.to_string(), commit(*digit))).collect();
        let (before, after): (Refs, Refs) =
            (refs(&[("a", '1'), ("b", '1'), ("c", '1')]), refs(&[("a", '1'), ("b", '2'), ("d", '3')]));
        let update = |name: &str, old: Option<char>, new: Option<char>| RefUpdate {
            name: name.into(),
            old: old.map(commit),
            new: new.map(commit),
        };
        let expected = [update("b", Some('1'), Some('2')), update("c", Some('1'), None), update("d", None, Some('3'))];
        assert_eq!(updates(&before, &after), expected);
        assert_eq!(updates(&after, &after), []);
    }
}
