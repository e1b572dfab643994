//! A program of others: a child with files of its own, which ends with its test, whatever processes it has made.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
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
    running: Running,
    /// Holds the port of servers that take a number only.
    _port: Option<OwnedFd>,
    _folder: TempDir,
}

impl Part {
    /// Starts one that says `ADDRESS:PORT` after those words, once it serves.
    pub(crate) async fn saying(mut command: Command, words: &str) -> Self {
        let folder = folder();
        let mut running = Running::begin(&mut command, folder.path());
        let address = soon("a server's words", async {
            loop {
                let said = running.said();
                let begin = said.split_once(words).map(|(_, rest)| rest);
                // The line is whole.
                if let Some((line, _)) = begin.and_then(|begin| begin.split_once('\n')) {
                    let is_address = |byte: char| byte.is_ascii_digit() || ".:".contains(byte);
                    let end = line.find(|byte| !is_address(byte)).unwrap_or(line.len());
                    return line[..end].parse().unwrap_or_else(|_| panic!("no address in {line:?}"));
                }
                running.goes_on();
                sleep(LOOK).await;
            }
        })
        .await;
        Self { address, running, _port: None, _folder: folder }
    }

    /// Starts one that is told its folder and port, and serves there when it accepts.
    pub(crate) async fn at(command: impl FnOnce(&Path, SocketAddr) -> Command) -> Self {
        let (folder, (address, port)) = (folder(), reserve());
        let mut running = Running::begin(&mut command(folder.path(), address), folder.path());
        soon("a server", async {
            while TcpStream::connect(address).await.is_err() {
                running.goes_on();
                sleep(LOOK).await;
            }
        })
        .await;
        Self { address, running, _port: Some(port), _folder: folder }
    }
}

impl Part {
    /// Ends it as it is asked to in earnest, and waits for that.
    pub(crate) async fn stop(mut self) {
        kill_process_group(self.running.group(), Signal::TERM).unwrap();
        soon("a server's end", async {
            while self.running.ended().is_none() {
                sleep(LOOK).await;
            }
        })
        .await;
    }
}

/// A child and all that it has started, which end when this is dropped: whether it came to serve or not.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command whose words go to a file of that folder.
    fn begin(command: &mut Command, folder: &Path) -> Self {
        let log = folder.join("log");
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// One that ended will never serve.
    fn goes_on(&mut self) {
        if let Some(status) = self.ended() {
            panic!("it ended with {status} and said: {}", self.said());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process_group(self.group(), Signal::KILL);
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

/// A free port, which stays free for whoever sets `SO_REUSEADDR`, as servers do, and is nobody else's.
pub(crate) fn reserve() -> (SocketAddr, OwnedFd) {
    let made = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&made, true).unwrap();
    bind(&made, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    (getsockname(&made).unwrap().try_into().unwrap(), made)
}
