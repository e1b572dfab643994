//! How much a client may ask for, and what it is told where it asks for more.
//!
//! [`super::measure`] finds out while a push comes in, before git has all of it: a push over a limit changes nothing.

use std::fmt;
use std::time::Duration;

/// The longest name of a ref, in bytes, unless a test says otherwise.
pub(super) const REF_MAX_BYTES: usize = 250;

/// How much a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest pack that a push may send, in bytes.
    pub push_max_bytes: u64,
    /// How large the objects of a push may be together once they are unpacked, in bytes.
    pub unpacked_max_bytes: u64,
    /// How large one object may be: a version of a file, or the list of a folder's files. In bytes.
    pub object_max_bytes: u64,
    /// How many objects a push may send. Git keeps some hundred bytes in memory for each.
    pub objects_max: u32,
    /// How many refs a push may make or move. Each is on disk before the push is answered, one after the other.
    pub push_max_refs: usize,
    /// How many refs a repository may have. Each fetch and each push tells or reads them all.
    pub refs_max: usize,
    /// The longest name of a ref, in bytes.
    pub ref_max_bytes: usize,
    /// How long a push may take, the lines it shows included; the deployment goes on without a reader.
    pub push_within: Duration,
    /// How long a fetch may take.
    pub fetch_within: Duration,
    /// How long a client may send nothing in the middle of a request.
    pub idle: Duration,
    /// How many git programs run at the same time.
    pub processes: usize,
    /// How long a request waits for one of them to end.
    pub queue: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            push_max_bytes: 1 << 30,
            unpacked_max_bytes: 8 << 30,
            object_max_bytes: 256 << 20,
            objects_max: 2_000_000,
            push_max_refs: 1_000,
            refs_max: 10_000,
            ref_max_bytes: REF_MAX_BYTES,
            push_within: Duration::from_secs(60 * 60),
            fetch_within: Duration::from_secs(30 * 60),
            idle: Duration::from_secs(5 * 60),
            processes: 16,
            queue: Duration::from_secs(5),
        }
    }
}

/// Why a push is refused before git has seen all of it. Each carries its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The pack is too long.
    Push(u64),
    /// Its objects are too large together.
    Unpacked(u64),
    /// One object is too large.
    Object(u64),
    /// There are too many objects.
    Objects(u32),
    /// It makes or moves too many refs.
    PushRefs(usize),
    /// The repository would have too many refs.
    Refs(usize),
    /// A ref has too long a name.
    RefName(usize),
    /// It is no push as git makes them.
    Unreadable,
}

impl Excess {
    /// The same in a word or two, for the line of each ref.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::Push(_) | Self::Unpacked(_) => "push too large",
            Self::Object(_) => "file too large",
            Self::Objects(_) => "too many objects",
            Self::PushRefs(_) | Self::Refs(_) => "too many refs",
            Self::RefName(_) => "name too long",
            Self::Unreadable => "unreadable push",
        }
    }
}

/// What the developer reads: what is too much, and what to do.
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Push(limit) => write!(
                f,
                "this push sends more than {}: push older commits first, a part at a time, and keep large files elsewhere",
                Size(limit)
            ),
            Self::Unpacked(limit) => write!(
                f,
                "this push is larger than {} when it is unpacked: push older commits first, a part at a time, and keep \
                 large files elsewhere",
                Size(limit)
            ),
            Self::Object(limit) => write!(
                f,
                "this push has a file larger than {}: take it out of every commit that has it, and keep it elsewhere",
                Size(limit)
            ),
            Self::Objects(limit) => {
                write!(f, "this push has more than {limit} objects: push older commits first, a part at a time")
            }
            Self::PushRefs(limit) => write!(
                f,
                "this push makes or moves more than {limit} branches and tags: push those that are needed, by name, at \
                 most {limit} at a time"
            ),
            Self::Refs(limit) => write!(
                f,
                "the repository would have more than {limit} branches and tags: push only those that are needed; the \
                 operator can remove old ones"
            ),
            Self::RefName(limit) => {
                write!(f, "a branch or tag has a name of more than {limit} bytes: give it a shorter one")
            }
            Self::Unreadable => f.write_str("this push cannot be read: is it git that sends it, and is it up to date?"),
        }
    }
}

/// Bytes, for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 30 => write!(f, "{} GiB", bytes >> 30),
            bytes if bytes >= 1 << 20 => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}
