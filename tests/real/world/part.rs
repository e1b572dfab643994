//! A program of others: a child with files of its own, which ends with its test, whatever processes it has made.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::program::soon;

/// Between two looks whether it serves.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) struct Part {
    pub(crate) address: SocketAddr,
    child: Child,
    /// Holds the port of servers that take a number only.
    _port: Option<OwnedFd>,
    _folder: TempDir,
}

impl Part {
    /// Starts one that says `ADDRESS:PORT` after those words, once it serves.
    pub(crate) async fn saying(mut command: Command, words: &str) -> Self {
        let folder = folder();
        let (child, log) = spawn(&mut command, folder.path());
        let address = soon("a server's words", async {
            loop {
                let said = fs::read_to_string(&log).unwrap();
                let begin = said.split_once(words).map(|(_, rest)| rest);
                // The line is whole.
                if let Some((line, _)) = begin.and_then(|begin| begin.split_once('\n')) {
                    let is_address = |byte: char| byte.is_ascii_digit() || ".:".contains(byte);
                    let end = line.find(|byte| !is_address(byte)).unwrap_or(line.len());
                    return line[..end].parse().unwrap_or_else(|_| panic!("no address in {line:?}"));
                }
                assert!(!said.contains("rror"), "{said}");
                sleep(LOOK).await;
            }
        });
        Self { address: address.await, child, _port: None, _folder: folder }
    }

    /// Starts one that is told its folder and port, and serves there when it accepts.
    pub(crate) async fn at(command: impl FnOnce(&Path, SocketAddr) -> Command) -> Self {
        let (folder, (address, port)) = (folder(), reserve());
        let (child, log) = spawn(&mut command(folder.path(), address), folder.path());
        soon("a server", async {
            while TcpStream::connect(address).await.is_err() {
                let said = fs::read_to_string(&log).unwrap();
                assert!(!said.contains("rror"), "{said}");
                sleep(LOOK).await;
            }
        })
        .await;
        Self { address, child, _port: Some(port), _folder: folder }
    }
}

impl Part {
    /// Ends it as it is asked to in earnest, and waits for that.
    pub(crate) async fn stop(mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process_group(group, Signal::TERM).unwrap();
        soon("a server's end", async {
            while self.child.try_wait().unwrap().is_none() {
                sleep(LOOK).await;
            }
        })
        .await;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Where the tests' own programs in other languages are.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(name)
}

/// A program of the environment for Python.
pub(crate) fn python(name: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/python.sh");
    let Output { status, stdout, stderr } = Command::new(script).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let folder = String::from_utf8(stdout).unwrap();
    let mut command = Command::new(Path::new(folder.trim()).join("bin").join(name));
    command.env("PYTHONPATH", beside("python")).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

/// A server's program, which is not in everybody's path.
pub(crate) fn server(name: &str) -> Command {
    let installed = Path::new("/usr/sbin").join(name);
    Command::new(if installed.exists() { installed } else { name.into() })
}

/// A folder that a server's own user may read.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Starts a command whose words go to a file of that folder.
fn spawn(command: &mut Command, folder: &Path) -> (Child, PathBuf) {
    let log = folder.join("log");
    let file = File::create(&log).unwrap();
    let child = command.stdin(std::process::Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    (child.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")), log)
}

/// A free port, which stays free for whoever sets `SO_REUSEADDR`, as servers do, and is nobody else's.
pub(crate) fn reserve() -> (SocketAddr, OwnedFd) {
    let made = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&made, true).unwrap();
    bind(&made, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    (getsockname(&made).unwrap().try_into().unwrap(), made)
}
