//! A Docker Engine of a test's own, which may be stopped, killed and hung: the machine's own engine notices nothing.
//!
//! It has its own folder, socket and containerd, and leaves the machine's firewall alone (a second engine that manages it
//! would clear the first one's rules): its containers are reached, but reach nothing themselves. It goes with all it holds.

#![expect(clippy::disallowed_methods, reason = "processes are waited for in real time, outside of any runtime")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// It is there within this time of its start; it first ends what another one left running.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// It ends within this time of SIGTERM: it stops its containers first.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// Whether containers run on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveRestore {
    Off,
    On,
}

pub(crate) struct PrivateEngine {
    folder: PathBuf,
    live_restore: LiveRestore,
    daemon: Option<Child>,
}

impl PrivateEngine {
    /// Starts one; `None`, with a word, where this machine cannot have one.
    pub(crate) fn start(live_restore: LiveRestore) -> Option<Self> {
        let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let program = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status();
        if !root || !program.is_ok_and(|status| status.success()) {
            crate::not_tested("an engine of the test's own needs root and dockerd");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("dormouse-engine-").tempdir().expect("a folder").keep();
        fs::write(folder.join("daemon.json"), "{}").expect("a file");
        let mut engine = Self { folder, live_restore, daemon: None };
        engine.make_bridge();
        engine.begin();
        Some(engine)
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.path("sock"))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The bridge for containers without a network of their own. Without one the daemon would remove `docker0`, which is
    /// another engine's.
    fn bridge(&self) -> String {
        let name = self.path("");
        let name = name.trim_end_matches('/').rsplit('-').next().unwrap_or_default();
        format!("dmo-{name}")
    }

    fn make_bridge(&self) {
        let (bridge, third) = (self.bridge(), std::process::id() % 256);
        let address = format!("10.217.{third}.1/24");
        for arguments in [
            &["link", "add", &bridge, "type", "bridge"][..],
            &["address", "add", &address, "dev", &bridge],
            &["link", "set", &bridge, "up"],
        ] {
            assert!(Command::new("ip").args(arguments).status().expect("ip runs").success(), "ip {arguments:?}");
        }
    }

    /// Starts the daemon, and returns when it answers.
    pub(crate) fn begin(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let mut daemon = Command::new("dockerd");
        for (flag, name) in
            [("config-file", "daemon.json"), ("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")]
        {
            daemon.arg(format!("--{flag}={}", self.path(name)));
        }
        daemon.args(["--host", &self.address(), "--iptables=false", "--ip6tables=false"]);
        daemon.arg(format!("--bridge={}", self.bridge()));
        daemon.args(["--ip-forward=false", "--ip-masq=false"]);
        if self.live_restore == LiveRestore::On {
            daemon.arg("--live-restore");
        }
        daemon.stdin(Stdio::null()).stderr(log.try_clone().expect("a log")).stdout(log);
        self.daemon = Some(daemon.spawn().expect("it starts"));
        let deadline = Instant::now() + STARTS_WITHIN;
        while !self.docker(&["version"]).status.success() {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().expect("it is a child"));
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("the engine did not start ({ended:?}): {lines:#?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What somebody does by hand.
    pub(crate) fn docker(&self, arguments: &[&str]) -> std::process::Output {
        let mut docker = Command::new("docker");
        docker.args(["--host", &self.address()]).args(arguments).env_remove("DOCKER_HOST").stdin(Stdio::null());
        docker.output().expect("docker runs")
    }

    /// The same, and it is done; returns what it printed.
    pub(crate) fn by_hand(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn signal(&self, name: &str) {
        let id = self.daemon.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }

    /// It is there, and answers nothing, until [`PrivateEngine::go_on`].
    pub(crate) fn hang(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        self.ended();
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.ended();
    }

    fn ended(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        let deadline = Instant::now() + ENDS_WITHIN;
        while daemon.try_wait().expect("it is a child").is_none() {
            if Instant::now() > deadline {
                daemon.kill().expect("it is a child");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            self.go_on();
            let containers = String::from_utf8_lossy(&self.docker(&["ps", "-aq"]).stdout).into_owned();
            for container in containers.lines() {
                self.docker(&["rm", "-f", container]);
            }
            self.docker(&["network", "prune", "-f"]);
            self.stop();
        }
        let _removed = Command::new("ip").args(["link", "delete", &self.bridge()]).status();
        for process in processes_of(&self.folder) {
            let _ended = Command::new("kill").args(["-KILL", &process]).stderr(Stdio::null()).status();
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let under = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let folder = self.path("");
        for mount in under.filter(|mount| mount.starts_with(&folder)).collect::<Vec<_>>().into_iter().rev() {
            let _unmounted = Command::new("umount").args(["--lazy", mount]).status();
        }
        let removed = fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            removed.expect("the engine's folder is removed");
        }
    }
}

/// The processes that an engine in this folder started and did not end, each before its parent.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&command).contains(&folder) {
            continue;
        }
        let id = entry.file_name().to_string_lossy().into_owned();
        let children = fs::read_to_string(entry.path().join(format!("task/{id}/children"))).unwrap_or_default();
        found.extend(children.split_whitespace().map(str::to_owned));
        found.push(id);
    }
    found
}
