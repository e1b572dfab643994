//! The program that is measured: the release build of `dormouse up` on free ports, with a data folder of its own, told
//! what to do by its API and by `git push`, as anybody would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use dormouse::boilerplate;
use dormouse_control::engine::Engine as _;
use dormouse_control::engine::docker::Docker;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::Result;

/// It starts, stops, and does each thing within this time, or hangs.
const WITHIN: Duration = Duration::from_secs(60);

/// How many steps of its log are kept.
const STEPS_MAX: usize = 10_000;

/// A step of the control plane: when, in milliseconds of the day, and what.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at: f64,
    pub(crate) text: String,
}

/// A running program.
pub(crate) struct Program {
    child: Child,
    folder: TempDir,
    pub(crate) http: SocketAddr,
    api: SocketAddr,
    token: String,
    client: reqwest::Client,
    steps: Arc<Mutex<Vec<Step>>>,
}

/// How something that takes its time ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

impl Program {
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command.args(["up", "--data"]).arg(&data).env_remove("DOCKER_HOST");
        command.env(
            "DORMOUSE_LOG",
            "warn,pingora=error,pingora_core=error,pingora_proxy=error,dormouse_control::reconcile=debug",
        );
        for listener in ["--http", "--https", "--api", "--admin"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let steps = Arc::new(Mutex::new(Vec::new()));
        let (stdout, stderr) = (child.stdout.take().ok_or("a pipe")?, child.stderr.take().ok_or("a pipe")?);
        let log = steps.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with the program")]
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match step(&line) {
                    Some(step) => {
                        let mut steps = log.lock().unwrap_or_else(PoisonError::into_inner);
                        if steps.len() == STEPS_MAX {
                            steps.clear();
                        }
                        steps.push(step);
                    }
                    None => eprintln!("dormouse: {line}"),
                }
            }
        });
        let mut ready = String::new();
        timeout(WITHIN, BufReader::new(stdout).read_line(&mut ready)).await??;
        let address = |name: &str| -> Result<SocketAddr> {
            let mut words = ready.split_whitespace().filter_map(|word| word.split_once('='));
            let found = words.find(|(found, _)| *found == name).ok_or("dormouse up did not get ready")?;
            Ok(found.1.parse()?)
        };
        let token = std::fs::read_to_string(data.join("admin.token"))?.trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(WITHIN).build()?;
        let (http, api) = (address("http")?, address("api")?);
        Ok(Self { child, folder, http, api, token, client, steps })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "dormouse up has ended".into())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The steps since a moment.
    pub(crate) fn steps_since(&self, at: f64) -> Vec<Step> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.iter().filter(|step| step.at >= at).cloned().collect()
    }

    /// The newest record of the access log.
    pub(crate) fn newest_record(&self) -> Result<Value> {
        let text = std::fs::read_to_string(self.data().join("access.log"))?;
        Ok(serde_json::from_str(text.lines().last().ok_or("nobody was served")?)?)
    }

    pub(crate) async fn create(&self, app: &str) -> Result<()> {
        let url = format!("http://{}/api/v1/apps", self.api);
        let request = self.client.post(url).bearer_auth(&self.token).json(&json!({ "name": app }));
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Deploys, puts to sleep or wakes, and waits for the end of it.
    pub(crate) async fn ask(&self, app: &str, environment: &str, verb: &str) -> Result<Done> {
        let url = format!("http://{}/api/v1/apps/{app}/environments/{environment}/{verb}", self.api);
        let answer = self.client.post(url).bearer_auth(&self.token).send().await?.error_for_status()?.text().await?;
        let words = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let done = words.filter_map(|word| word.get("done").cloned()).next().ok_or("it did not end")?;
        Ok(Done { ok: done["ok"] == true, text: done["text"].as_str().unwrap_or_default().to_owned() })
    }

    /// The same, and it must succeed.
    pub(crate) async fn must(&self, app: &str, environment: &str, verb: &str) -> Result<()> {
        let done = self.ask(app, environment, verb).await?;
        if done.ok { Ok(()) } else { Err(format!("{verb} {app} {environment}: {}", done.text).into()) }
    }

    /// A repository with the demo application, that can be pushed.
    pub(crate) async fn source(&self, app: &str) -> Result<Source> {
        let folder = self.folder.path().join("source").join(app);
        boilerplate::write(&folder, boilerplate::MESSAGE)?;
        let url = format!("http://dormouse:{}@{}/git/{app}.git", self.token, self.api);
        let source = Source { folder, url };
        source.git(&["init", "--quiet", "--initial-branch", "develop"]).await?;
        source.commit(boilerplate::MESSAGE).await?;
        Ok(source)
    }

    /// Ends it, and removes everything that it made on the engine.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        if timeout(WITHIN, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        let store = dormouse_control::open_store(&self.data()).await?;
        let docker = Docker::connect(None, store.installation()).await?;
        store.close().await;
        Ok(docker.remove_all().await?)
    }
}

/// An application's repository.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    url: String,
}

impl Source {
    /// Commits another message.
    pub(crate) async fn commit(&self, message: &str) -> Result<()> {
        std::fs::write(self.folder.join(boilerplate::MESSAGE_FILE), message)?;
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "a change"]).await
    }

    /// Remembers the newest commit under a name.
    pub(crate) async fn tag(&self, name: &str) -> Result<()> {
        self.git(&["tag", name]).await
    }

    /// Pushes a commit, and waits until it is deployed.
    pub(crate) async fn push(&self, commit: &str) -> Result<()> {
        self.git(&["push", "--quiet", "--force", &self.url, &format!("{commit}:refs/heads/develop")]).await
    }

    async fn git(&self, words: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        git.current_dir(&self.folder).args(words).stdin(Stdio::null()).kill_on_drop(true);
        git.env_clear().env("PATH", env!("PATH")).env("HOME", &self.folder);
        git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0")]);
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "A developer").env(format!("GIT_{who}_EMAIL"), "a@example.com");
        }
        let output = timeout(WITHIN, git.output()).await.map_err(|_| format!("git {} hangs", words[0]))??;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("git {}: {said}", words[0]).into()) }
    }
}

/// Milliseconds of the day (UTC), as the log has them.
pub(crate) fn clock() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() % 86_400.0 * 1_000.0
}

/// A line of the log that tells of a step: `2026-01-01T12:00:00.123456Z DEBUG step environment.id=…`.
fn step(line: &str) -> Option<Step> {
    let (time, text) = line.trim_start().split_once(' ')?;
    let clock = time.strip_suffix('Z')?.split_once('T')?.1;
    let mut parts = clock.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    let at = ((next()? * 60.0 + next()?) * 60.0 + next()?) * 1_000.0;
    text.contains(" step ").then(|| Step { at, text: text.to_owned() })
}

/// What stands in a line of `/proc`, as a number.
pub(crate) fn proc_number(file: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
}
