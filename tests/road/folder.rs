//! The data folder as it should not be: told before anything is made, and left as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{fails, up};

/// Nobody's user id on every Linux.
const NOBODY: u32 = 65534;

/// An engine that is not there: who gets so far has found nothing wrong with the folder.
const NO_ENGINE: [&str; 2] = ["--engine", "unix:///nonexistent/docker.sock"];
const GOT_FAR: (i32, &str) = (69, "container engine");

fn on(data: &Path) -> Command {
    up(data, &NO_ENGINE)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// By a user who may do nothing: this one, or nobody if this one may do everything.
fn fails_powerless(mut command: Command, code: i32, words: &[&str]) {
    if !is_root() {
        return fails(&mut command, code, words);
    }
    let program = PathBuf::from(command.get_program());
    let reachable = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
    if program.ancestors().all(reachable) {
        return fails(command.uid(NOBODY).gid(NOBODY), code, words);
    }
    // What lies in root's own folder is out of reach for others; a copy is not.
    let folder = tempfile::tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    let copy = folder.path().join("dormouse");
    fs::copy(program, &copy).expect("a copy");
    let mut other = Command::new(copy);
    other.args(command.get_args()).env_remove("DOCKER_HOST").uid(NOBODY).gid(NOBODY);
    fails(&mut other, code, words);
}

/// What lies in a folder, with its content.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let all = fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().is_file());
    let mut all: Vec<_> = all.map(|entry| (entry.path(), fs::read(entry.path()).expect("a file"))).collect();
    all.sort();
    all
}

/// A folder whose store has been written once.
fn with_store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        dormouse_control::open_store(folder.path()).await.expect("a store").close().await;
    });
    let file = folder.path().join("dormouse.db");
    (folder, file)
}

#[test]
fn missing_parents_are_made_for_the_owner_only() {
    let folder = tempfile::tempdir().expect("a folder");
    fails(&mut on(&folder.path().join("a/b/c")), GOT_FAR.0, &[GOT_FAR.1]);
    for made in ["a", "a/b", "a/b/c"] {
        assert_eq!(mode(&folder.path().join(made)), 0o700, "{made}");
    }
    for file in ["admin.token", "dormouse.db", "lock"] {
        assert_eq!(mode(&folder.path().join("a/b/c").join(file)), 0o600, "{file}");
    }
}

#[test]
fn what_is_no_folder_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "mine").expect("a file");
    fails(&mut on(&file), 73, &["cannot use", "--data"]);
    fails(&mut on(&file.join("below")), 73, &["cannot use", "--data"]);
    assert_eq!(fs::read(&file).expect("a file"), b"mine");
}

#[test]
fn a_folder_that_may_not_be_written_is_told_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a folder");
    set_mode(folder.path(), 0o555);
    set_mode(&data, 0o555);
    for data in [&data, &folder.path().join("new")] {
        fails_powerless(on(data), 73, &["cannot use", "ermission denied", "--data"]);
    }
    assert_eq!((content(&data), mode(&data)), (Vec::new(), 0o555));
    set_mode(folder.path(), 0o755);
    assert!(!folder.path().join("new").exists());
}

/// A small disk of the test's own.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Only root may have one.
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "dormouse-test"]).arg(folder.path());
        let mounted = is_root() && mount.status().is_ok_and(|status| status.success());
        if !mounted {
            crate::not_tested("a disk of the test's own needs root and mount");
        }
        mounted.then(|| Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success()), "{} is not mounted any more", self.0.path().display());
        }
    }
}

#[test]
fn a_disk_that_is_read_only_is_told() {
    let Some(disk) = Disk::new("size=1m,mode=755,ro") else { return };
    fails(&mut on(disk.0.path()), 73, &["cannot use", "ead-only", "--data"]);
    fails(&mut on(&disk.0.path().join("new")), 73, &["cannot use", "ead-only", "--data"]);
}

#[test]
fn a_disk_that_is_full_is_told() {
    let Some(disk) = Disk::new("size=64k,mode=755") else { return };
    let fill = fs::write(disk.0.path().join("all"), [0; 128 << 10]);
    assert!(fill.is_err(), "it is full now");
    fails(&mut on(disk.0.path()), 73, &["o space left", "--data"]);
    for half in ["admin.token", "admin.new"] {
        assert!(!disk.0.path().join(half).exists(), "{half}: nothing that is half a token");
    }
    // A little room, which fills up while the store is made.
    fs::write(disk.0.path().join("all"), [0; 32 << 10]).expect("it fits");
    fails(&mut on(disk.0.path()), 73, &["store", "the disk that holds"]);
    fs::remove_file(disk.0.path().join("all")).expect("a file");
}

#[test]
fn modes_that_let_others_in_are_closed_and_a_token_that_others_could_read_is_not_used() {
    let (folder, file) = with_store();
    set_mode(folder.path(), 0o777);
    set_mode(&file, 0o666);
    fails(&mut on(folder.path()), GOT_FAR.0, &[GOT_FAR.1]);
    assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
    let token = folder.path().join("admin.token");
    let before = fs::read(&token).expect("a token");
    set_mode(&token, 0o644);
    fails(&mut on(folder.path()), 78, &["admin.token", "644", "chmod 600", "remove it"]);
    assert_eq!((fs::read(&token).expect("a token"), mode(&token)), (before, 0o644), "it is left as it is");
}

#[test]
fn a_token_that_is_none_is_told_and_an_empty_one_is_made_anew() {
    let (folder, _) = with_store();
    let token = folder.path().join("admin.token");
    for bad in [&b"\xff\xfe\x00"[..], b"\x1b[2J", b"two words", &[b'x'; 1 << 20]] {
        fs::write(&token, bad).expect("a file");
        set_mode(&token, 0o600);
        fails(&mut on(folder.path()), 78, &["admin.token", "holds no token", "remove it"]);
        assert_eq!(fs::read(&token).expect("a file"), bad, "it is left as it is");
    }
    fs::write(&token, "").expect("a file");
    fails(&mut on(folder.path()), GOT_FAR.0, &[GOT_FAR.1]);
    assert_eq!(fs::read_to_string(&token).expect("a token").trim().len(), 64);
}

#[test]
fn a_damaged_store_is_told_and_left_as_it_is() {
    for (bad, words) in [
        (Damage::Garbage, ["it is damaged", "backup"]),
        (Damage::Half, ["it is damaged", "backup"]),
        (Damage::Middle, ["it is damaged", "backup"]),
    ] {
        let (folder, file) = with_store();
        bad.to(&file);
        let before = fs::read(&file).expect("a file");
        fails(&mut on(folder.path()), 73, &words);
        assert!(fs::read(&file).expect("a file") == before, "{bad:?}: it is left as it is");
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Garbage,
    Half,
    Middle,
}

impl Damage {
    fn to(self, file: &Path) {
        let mut bytes = fs::read(file).expect("a store");
        let half = bytes.len() / 2;
        match self {
            Self::Garbage => bytes.fill(b'x'),
            Self::Half => bytes.truncate(half),
            Self::Middle => bytes[half / 2..half].fill(0xff),
        }
        fs::write(file, bytes).expect("a file");
    }
}

#[test]
fn a_lost_store_does_not_take_the_repositories_with_it() {
    let (folder, file) = with_store();
    let repository = folder.path().join("git/0123.git");
    fs::create_dir_all(&repository).expect("a folder");
    for lost in ["empty", "gone"] {
        match lost {
            "empty" => fs::write(&file, "").expect("a file"),
            _ => fs::remove_file(&file).expect("it was there"),
        }
        fails(&mut on(folder.path()), 73, &["missing or empty", "dormouse.db", "backup"]);
        assert!(repository.exists() && fs::metadata(&file).map_or(0, |found| found.len()) == 0, "{lost}");
    }
}

#[test]
fn an_address_that_is_stale_or_none_is_told_to_clients() {
    let folder = tempfile::tempdir().expect("a folder");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let status = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command.env_clear().args(["status", "--data"]).arg(folder.path());
        command
    };
    let address = folder.path().join("api.addr");
    fs::write(&address, format!("{gone}\n")).expect("a file");
    fails(&mut status(), 69, &[&gone.to_string(), "refused", "dormouse up"]);
    for bad in [&b"\xff"[..], b"no address\x1b[2J", &[b'x'; 1 << 20]] {
        fs::write(&address, bad).expect("a file");
        fails(&mut status(), 78, &["dormouse up", "--api"]);
    }
    fs::write(&address, "127.0.0.1:1").expect("a file");
    let mut other = status();
    other.args(["--api", &gone.to_string()]);
    fails(&mut other, 69, &[&gone.to_string()]);
}

#[test]
fn an_engine_that_this_user_may_not_use_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, path) = (folder.path().join("data"), folder.path().join("docker.sock"));
    let _socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    fs::create_dir(&data).expect("a folder");
    set_mode(folder.path(), 0o755);
    set_mode(&path, 0o000);
    if is_root() {
        std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let engine = format!("unix://{}", path.display());
    let command = up(&data, &["--engine", &engine]);
    fails_powerless(command, 69, &["docker.sock", "ermission denied", "usermod -aG docker"]);
}

#[test]
fn an_address_of_an_engine_that_is_none_is_told_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    for bad in ["docker.sock", "tcp://", "tcp://a b:1", "http://h:99999", "https://h:1", "unix://relative", "ssh://h"] {
        fails(&mut up(&data, &["--engine", bad]), 78, &["--engine", "unix:///PATH"]);
    }
    assert!(!data.exists());
}
