//! The router on a port of its own, repositories in a folder of their own, and the real git client.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_control::git::{Branch, Limits, LookupError, Pushes, RefUpdate, Repository, router};
use dormouse_control::task::Tasks;
use dormouse_link::Label;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

pub(crate) const TOKEN: &str = "a-good-token";

/// An application that cannot be looked up.
pub(crate) const UNKNOWABLE: &str = "unknowable";

/// Nothing here takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What a control plane would be: remembers what it was asked, and shows what the test gave it.
pub(crate) struct Plane {
    repositories: PathBuf,
    lookups: Mutex<usize>,
    pushes: Mutex<Vec<(Label, Vec<RefUpdate>)>>,
    scripts: Mutex<VecDeque<mpsc::Receiver<String>>>,
}

#[async_trait]
impl Pushes for Plane {
    fn authorised(&self, token: &str) -> bool {
        token == TOKEN
    }

    async fn repository(&self, app: &Label) -> Result<Option<Repository>, LookupError> {
        *self.lookups.lock().expect("no test panics with it") += 1;
        let path = self.repositories.join(format!("{app}.git"));
        match app.as_str() {
            UNKNOWABLE => Err(LookupError("the store is away".into())),
            _ => Ok(path.exists().then(|| Repository::at(path))),
        }
    }

    async fn pushed(&self, app: &Label, updated: Vec<RefUpdate>) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(10);
        for line in ["building", &format!("{app} is deployed")] {
            sender.send(line.to_owned()).await.expect("there is room");
        }
        self.pushes.lock().expect("no test panics with it").push((app.clone(), updated));
        self.scripts.lock().expect("no test panics with it").pop_front().unwrap_or(receiver)
    }
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) plane: Arc<Plane>,
    pub(crate) tasks: Tasks,
    pub(crate) port: u16,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    /// A server with the application `hello`.
    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let plane = Arc::new(Plane {
            repositories: folder.path().join("repositories"),
            lookups: Mutex::default(),
            pushes: Mutex::default(),
            scripts: Mutex::default(),
        });
        std::fs::create_dir(&plane.repositories).expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let tasks = Tasks::new();
        let router = router(plane.clone(), tasks.clone(), limits);
        // Of its own: it accepts until the test's runtime ends.
        Tasks::new().spawn("server", async move { axum::serve(listener, router).await.expect("serve") });
        let world = Self { folder, plane, tasks, port };
        world.app("hello").await;
        world
    }

    pub(crate) async fn app(&self, name: &str) -> Repository {
        let branch: Branch = "develop".parse().expect("a branch");
        Repository::create(self.repository(name), &branch).await.expect("a repository")
    }

    pub(crate) fn repository(&self, app: &str) -> PathBuf {
        self.plane.repositories.join(format!("{app}.git"))
    }

    pub(crate) fn url(&self, app: &str) -> String {
        format!("http://me:{TOKEN}@127.0.0.1:{}/git/{app}.git", self.port)
    }

    pub(crate) fn lookups(&self) -> usize {
        *self.plane.lookups.lock().expect("no test panics with it")
    }

    /// The refs that each call of `pushed` was told of.
    pub(crate) fn pushes(&self) -> Vec<Vec<String>> {
        let pushes = self.plane.pushes.lock().expect("no test panics with it");
        pushes.iter().map(|(_, updated)| updated.iter().map(|update| update.name.clone()).collect()).collect()
    }

    /// The next push shows what is sent here.
    pub(crate) fn script(&self) -> mpsc::Sender<String> {
        let (sender, receiver) = mpsc::channel(10);
        self.plane.scripts.lock().expect("no test panics with it").push_back(receiver);
        sender
    }

    /// A work tree with one commit on `develop`.
    pub(crate) async fn tree(&self, name: &str) -> Tree {
        let tree = Tree(self.folder.path().join(name));
        std::fs::create_dir(&tree.0).expect("a folder");
        tree.ok(&["init", "--quiet", "--initial-branch=develop"]).await;
        tree.commit("Dockerfile", b"FROM scratch\n").await;
        tree
    }
}

pub(crate) struct Tree(pub(crate) PathBuf);

impl Tree {
    pub(crate) fn git(&self, arguments: &[&str]) -> Command {
        git(&self.0, arguments)
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.git(arguments).output();
        timeout(DEADLINE, output).await.expect("git ends in time").expect("git runs")
    }

    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "git {arguments:?}: {}", words(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What people see of a command that must fail.
    pub(crate) async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "git {arguments:?} succeeded: {}", words(&output));
        words(&output)
    }

    pub(crate) async fn commit(&self, file: &str, content: &[u8]) {
        std::fs::write(self.0.join(file), content).expect("write a file");
        self.ok(&["add", "--all"]).await;
        self.ok(&["commit", "--quiet", "--message", file]).await;
    }

    /// A client whose standard error is read by the test, in a process group of its own.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.git(arguments).process_group(0).stderr(Stdio::piped()).spawn().expect("git runs")
    }
}

pub(crate) fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn git(folder: &Path, arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        git.env_remove(variable);
    }
    git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0")]);
    git.envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.invalid"), ("LC_ALL", "C")]);
    git.envs([("GIT_COMMITTER_NAME", "A"), ("GIT_COMMITTER_EMAIL", "a@example.invalid")]);
    git.current_dir(folder).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    git
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
