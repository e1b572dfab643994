//! What may be in a context. The engine unpacks it; whatever that one does, nothing in it leads out of it.
//!
//! Absolute links are allowed (`media -> /data/media` is common): nothing of ours follows a link, and the engine takes `/` for
//! the root of the context while it builds, and the application's own container does so later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

/// How many symbolic links one name may lead through, as in Linux.
const LINKS_MAX: usize = 40;

/// Why a tree is no build context. Paths are the developer's own, so they are shown.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The archive cannot be read.
    #[error("read the archive of the commit")]
    Unreadable(#[source] std::io::Error),
    /// A name that is absolute or has `..` in it.
    #[error("the commit has a file named {}, which leads out of it", .0.display())]
    Name(PathBuf),
    /// Neither file nor folder nor symbolic link.
    #[error("the commit has {}, which is neither a file nor a folder nor a symbolic link", .0.display())]
    Kind(PathBuf),
    /// A relative symbolic link out of the tree.
    #[error("the symbolic link {} leads out of the commit, to {}: make it lead to a file of the commit, or make it absolute",
            link.display(), target.display())]
    Link {
        /// Where it is.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file below something that is a symbolic link.
    #[error("the commit has {} below a symbolic link", .0.display())]
    BelowLink(PathBuf),
}

/// Looks at every entry of `archive`.
pub(super) fn check(archive: &[u8]) -> Result<(), Refused> {
    let mut names = BTreeSet::new();
    let mut links = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().map_err(Refused::Unreadable)? {
        let entry = entry.map_err(Refused::Unreadable)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let path = entry.path().map_err(Refused::Unreadable)?.into_owned();
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(Refused::Name(path));
        }
        match kind {
            EntryType::Regular | EntryType::Directory => {}
            EntryType::Symlink => {
                let target = entry.link_name().map_err(Refused::Unreadable)?.unwrap_or_default().into_owned();
                links.insert(path.clone(), target);
            }
            _ => return Err(Refused::Kind(path)),
        }
        names.insert(path);
    }
    if let Some(name) = names.iter().find(|name| name.ancestors().skip(1).any(|above| links.contains_key(above))) {
        return Err(Refused::BelowLink(name.clone()));
    }
    for (link, target) in &links {
        if !stays_inside(link, &links) {
            return Err(Refused::Link { link: link.clone(), target: target.clone() });
        }
    }
    Ok(())
}

/// Follows `link` through the other links, as the engine's kernel would, and says whether it never leaves the root. A link
/// that leads nowhere or in a circle leads to nothing outside.
fn stays_inside(link: &Path, links: &BTreeMap<PathBuf, PathBuf>) -> bool {
    let mut at = PathBuf::new();
    let mut ahead: Vec<Part> = parts(link);
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        match part {
            Part::Root => at.clear(),
            Part::Up if !at.pop() => return false,
            Part::Up => {}
            Part::Name(name) => {
                at.push(name);
                let Some(target) = links.get(&at) else { continue };
                followed += 1;
                if followed > LINKS_MAX {
                    return true;
                }
                at.pop();
                ahead.extend(parts(target));
            }
        }
    }
    true
}

enum Part {
    Root,
    Up,
    Name(PathBuf),
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<Part> {
    let part = |component| match component {
        Component::RootDir | Component::Prefix(_) => Some(Part::Root),
        Component::ParentDir => Some(Part::Up),
        Component::CurDir => None,
        Component::Normal(name) => Some(Part::Name(name.into())),
    };
    path.components().rev().filter_map(part).collect()
}
