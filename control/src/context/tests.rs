use std::process::Command as Program;

use super::*;

/// A developer's folder, and what is committed in it.
struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Self { folder };
        made.git(&["init", "--quiet", "work"]);
        made
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Program::new("git");
        git.current_dir(self.folder.path()).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.com");
        }
        let out = git.output().unwrap();
        assert!(out.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.folder.path().join("work").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn link(&self, name: &str, target: &str) -> &Self {
        let path = self.folder.path().join("work").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Commits everything and brings it to a repository of ours.
    async fn commit(&self) -> (Repository, Commit) {
        self.git(&["-C", "work", "add", "--all"]);
        self.git(&["-C", "work", "commit", "--quiet", "--message", "x"]);
        let branch = "develop".parse().unwrap();
        let bare = Repository::create(self.folder.path().join("bare.git"), &branch).await.unwrap();
        self.git(&["-C", "work", "push", "--quiet", "../bare.git", "HEAD:refs/heads/develop"]);
        (bare, self.git(&["-C", "work", "rev-parse", "HEAD"]).parse().unwrap())
    }
}

fn names(context: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(context);
    let entries = archive.entries().unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.header().entry_type() != tar::EntryType::XGlobalHeader);
    files.map(|entry| entry.path().unwrap().display().to_string()).collect()
}

#[tokio::test]
async fn a_commit_is_archived_whole_even_against_its_own_attributes() {
    let work = Work::new();
    work.file("Dockerfile", "FROM scratch\n").file("a/b.txt", "$Format:%H$");
    work.file(".gitattributes", "a export-ignore\n*.txt export-subst\n").link("c", "a/b.txt");
    let (bare, commit) = work.commit().await;
    let context = context(&bare, &commit).await.unwrap();
    assert_eq!(names(&context), [".gitattributes", "Dockerfile", "a/", "a/b.txt", "c"]);
    assert_eq!(dockerfile(&context).as_deref(), Some("FROM scratch\n"));
    assert!(context.windows(12).any(|bytes| bytes == b"$Format:%H$\0"), "the file is as it was committed");
}

#[tokio::test]
async fn a_commit_that_is_not_there_is_told() {
    let work = Work::new();
    let (bare, _) = work.file("Dockerfile", "").commit().await;
    let unknown = "0123456789012345678901234567890123456789".parse().unwrap();
    assert!(matches!(context(&bare, &unknown).await, Err(ContextError::Repository(_))));
}

#[tokio::test]
async fn a_tree_that_is_too_large_is_refused() {
    let work = Work::new();
    let (bare, commit) = work.file("large", &"x".repeat(100_000)).commit().await;
    assert!(matches!(limited(&bare, &commit, 50_000, bounds::BOUNDS).await, Err(ContextError::TooLarge(50_000))));
    assert!(limited(&bare, &commit, 200_000, bounds::BOUNDS).await.is_ok());
}

#[tokio::test]
async fn c03_a_tree_of_too_many_too_deep_or_too_long_names_is_refused_in_words() {
    let bounds = bounds::Bounds { entries: 6, depth: 2, path_bytes: 20, ..bounds::BOUNDS };
    let told = async |files: &[&str]| {
        let work = Work::new();
        for file in files {
            work.file(file, "");
        }
        let (bare, commit) = work.commit().await;
        limited(&bare, &commit, CONTEXT_MAX_BYTES, bounds).await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(told(&["a/b/c", "d", "e", "f"]).await, Ok(()));
    let words = |result: Result<(), String>| result.expect_err("it is refused");
    assert!(words(told(&["a/b/c", "d", "e", "f", "g"]).await).contains("more than 6 files and folders"));
    assert!(words(told(&["a/b/c/d"]).await).contains("more than 2 deep, at a/b/c"));
    assert!(words(told(&["a23456789012345678901"]).await).contains("more than 20 bytes, which begins with a234"));
}

/// Folders that each name the one before ten times: few objects, and more files than any disk holds.
#[tokio::test]
async fn c03_a_tree_that_unfolds_without_end_is_refused() {
    let work = Work::new();
    let (bare, _) = work.file("Dockerfile", "").commit().await;
    let mut level = work.git(&["-C", "bare.git", "rev-parse", "develop^{tree}"]);
    for _ in 0..9 {
        let tree: String = (0..10).map(|name| format!("040000 tree {level}\td{name}\n")).collect();
        std::fs::write(work.folder.path().join("tree"), tree).unwrap();
        let input = std::fs::File::open(work.folder.path().join("tree")).unwrap();
        let made = Program::new("git").current_dir(bare.path()).arg("mktree").stdin(input).output().unwrap();
        level = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    }
    let commit = work.git(&["-C", "bare.git", "commit-tree", "-m", "x", &level]).parse().unwrap();
    let error = context(&bare, &commit).await.unwrap_err();
    assert!(matches!(error, ContextError::Unbounded(Unbounded::Entries(_))), "{error}");
}

#[tokio::test]
async fn c05_links_out_of_the_tree_are_refused() {
    for (name, target) in [("x", "../x"), ("a/x", "../../x"), ("x", "d/../../y")] {
        let work = Work::new();
        let (bare, commit) = work.file("d/f", "").link(name, target).commit().await;
        let error = context(&bare, &commit).await.unwrap_err();
        assert!(matches!(error, ContextError::Refused(Refused::Link { .. })), "{target}: {error}");
    }
    // Each by itself stays inside; together they do not.
    let work = Work::new();
    let (bare, commit) = work.link("a/b/up", "../..").link("out", "a/b/up/../x").commit().await;
    assert!(matches!(context(&bare, &commit).await, Err(ContextError::Refused(Refused::Link { .. }))));
    let work = Work::new();
    let (bare, commit) = work.link("root", "/").link("out", "root/../x").commit().await;
    assert!(
        matches!(context(&bare, &commit).await, Err(ContextError::Refused(Refused::Link { .. }))),
        "above the root"
    );
    let fine = Work::new();
    fine.file("a/f", "").link("a/up", "../a/f").link("b", "a").link("c", "b/f").link("loop", "loop").link("gone", "no");
    // Absolute ones are the image's own affair.
    fine.link("media", "/data/media").link("d/root", "/").link("through", "d/root/a");
    let (bare, commit) = fine.commit().await;
    context(&bare, &commit).await.unwrap();
}

#[test]
fn c05_hostile_archives_are_refused() {
    let entry = |name: &str, kind, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 1024]);
        bytes
    };
    use tar::EntryType as Kind;
    assert!(matches!(check::check(&entry("/etc/x", Kind::Regular, "")), Err(Refused::Name(_))));
    assert!(matches!(check::check(&entry("../x", Kind::Regular, "")), Err(Refused::Name(_))));
    assert!(matches!(check::check(&entry("a/../../x", Kind::Directory, "")), Err(Refused::Name(_))));
    for kind in [Kind::Block, Kind::Char, Kind::Fifo, Kind::Link] {
        assert!(matches!(check::check(&entry("x", kind, "/dev/sda")), Err(Refused::Kind(_))));
    }
    let mut below = entry("d", Kind::Symlink, "e")[..512].to_vec();
    below.extend(entry("d/f", Kind::Regular, ""));
    assert!(matches!(check::check(&below), Err(Refused::BelowLink(_))));
    assert!(matches!(check::check(&[7; 512]), Err(Refused::Unreadable(_))));
}

#[test]
fn no_dockerfile_is_seen_below_the_root() {
    assert_eq!(dockerfile(&archive(&[("a/Dockerfile", b"x", 0o644)])), None);
    assert_eq!(dockerfile(&archive(&[("./Dockerfile", b"x", 0o644)])).as_deref(), Some("x"));
    assert_eq!(dockerfile(b"no archive"), None);
}

#[test]
fn another_dockerfile_comes_over_the_one_that_is_there() {
    let context = archive(&[("Dockerfile", b"FROM a\n", 0o640), ("z", b"zz", 0o644)]);
    let [first, second] = with_dockerfile(&context, |text| [text, b"LABEL x\n"].concat()).expect("it has one");
    let whole = [first, second].concat();
    let folder = tempfile::tempdir().expect("a folder");
    tar::Archive::new(&whole[..]).unpack(folder.path()).expect("it is an archive");
    assert_eq!(std::fs::read(folder.path().join("Dockerfile")).expect("a file"), b"FROM a\nLABEL x\n");
    assert_eq!(std::fs::read(folder.path().join("z")).expect("a file"), b"zz");
    assert!(with_dockerfile(&archive(&[("z", b"zz", 0o644)]), <[u8]>::to_vec).is_none());
}
