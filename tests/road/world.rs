//! A whole Dormouse in this process, on free ports and an empty folder, with what its users do as methods.
//!
//! Whatever a scenario makes is removed when its world ends, however it ends.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dormouse::app::Addresses;
use dormouse::cli::LogOutput;
use dormouse::config::{Demo, LogConfig, UpConfig};
use dormouse_control::crash::Crash;
use dormouse_control::engine::Engine;
use dormouse_control::engine::docker::Docker;
use dormouse_control::engine::fake::Fake;
use dormouse_control::git::Limits;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

use crate::http::{Answer, Visitor};
use crate::life::{Life, Room};
use crate::source::Source;

/// What is waited for happens within this time, or has failed.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct World {
    life: Option<Life>,
    kind: Kind,
    config: UpConfig,
    pub(crate) engine: Arc<dyn Engine>,
    /// The scripted engine, where it is that one.
    pub(crate) fake: Option<Fake>,
    token: String,
    client: reqwest::Client,
    sources: tempfile::TempDir,
    _data: tempfile::TempDir,
}

/// As what it lives, again and again.
#[derive(Clone, Copy)]
enum Kind {
    Here(Room),
    Program,
}

/// What a push said, and whether git was content.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) ok: bool,
    pub(crate) said: String,
}

/// How something ended that was followed, with what it said before.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) ok: bool,
    pub(crate) text: String,
    pub(crate) lines: Vec<String>,
}

impl World {
    pub(crate) async fn fake() -> Self {
        Self::new(Some(Fake::new()), Crash::default(), Room::Ample).await
    }

    /// On the scripted engine, with an application `shop` whose Test is ready.
    pub(crate) async fn with_shop() -> Self {
        let world = Self::fake().await;
        world.deployed("shop", "the version").await;
        world.until("shop", "test", "ready").await;
        world
    }

    /// On the scripted engine, with few addresses.
    pub(crate) async fn narrow_fake() -> Self {
        Self::new(Some(Fake::new()), Crash::default(), Room::Narrow).await
    }

    /// On real Docker, with few addresses.
    pub(crate) async fn narrow_docker() -> Self {
        Self::new(None, Crash::default(), Room::Narrow).await
    }

    /// On the scripted engine, with other limits for pushes.
    pub(crate) async fn with_limits(pushes: Limits) -> Self {
        let (data, mut config) = empty();
        config.pushes = pushes;
        let fake = Fake::new();
        let (life, engine) = Life::here(&config, Some(&fake), Room::Ample);
        Self::living(life, engine, Some(fake), Kind::Here(Room::Ample), (data, config))
    }

    /// On the scripted engine, with its data in a folder that is there.
    pub(crate) async fn fake_in(folder: &Path) -> Self {
        let (data, mut config) = empty();
        config.data = folder.join("data");
        config.access_log = Some(config.data.join("access.log").into());
        let fake = Fake::new();
        let (life, engine) = Life::here(&config, Some(&fake), Room::Ample);
        Self::living(life, engine, Some(fake), Kind::Here(Room::Ample), (data, config))
    }

    /// On the scripted engine, with a crash in its first life.
    #[cfg(feature = "crash-points")]
    pub(crate) async fn crashing(crash: Crash) -> Self {
        Self::new(Some(Fake::new()), crash, Room::Ample).await
    }

    pub(crate) async fn docker() -> Self {
        Self::new(None, Crash::default(), Room::Ample).await
    }

    /// The program itself, on Docker.
    pub(crate) async fn program() -> Self {
        let (data, config) = empty();
        let life = Life::program(&config.data);
        Self::of_program(life, (data, config)).await
    }

    /// The program itself, on Docker, with a crash in its first life.
    #[cfg(feature = "crash-points")]
    pub(crate) async fn crashing_program(point: &str) -> Self {
        let (data, config) = empty();
        let life = Life::crashing_program(&config.data, point);
        Self::of_program(life, (data, config)).await
    }

    /// On real Docker at this address.
    pub(crate) async fn docker_at(address: &str) -> Self {
        let (data, mut config) = empty();
        config.engine = Some(address.to_owned());
        let (life, engine) = Life::here(&config, None, Room::Ample);
        Self::living(life, engine, None, Kind::Here(Room::Ample), (data, config))
    }

    /// On the same kind of engine, empty and configured differently.
    pub(crate) async fn but(self, change: impl FnOnce(&mut UpConfig)) -> Self {
        let fake = self.fake.as_ref().map(|_| Fake::new());
        drop(self);
        let (data, mut config) = empty();
        change(&mut config);
        let (life, engine) = Life::here(&config, fake.as_ref(), Room::Ample);
        Self::living(life, engine, fake, Kind::Here(Room::Ample), (data, config))
    }

    async fn of_program(life: Life, (data, config): (tempfile::TempDir, UpConfig)) -> Self {
        let store = dormouse_control::open_store(&config.data).await.expect("its store");
        let engine = Docker::connect(None, store.installation()).await.expect("Docker");
        store.close().await;
        Self::living(life, Arc::new(engine), None, Kind::Program, (data, config))
    }

    async fn new(fake: Option<Fake>, crash: Crash, room: Room) -> Self {
        let (data, mut config) = empty();
        config.crash = crash;
        let (life, engine) = Life::here(&config, fake.as_ref(), room);
        config.crash = Crash::default();
        Self::living(life, engine, fake, Kind::Here(room), (data, config))
    }

    fn living(
        life: Life,
        engine: Arc<dyn Engine>,
        fake: Option<Fake>,
        kind: Kind,
        (data, config): (tempfile::TempDir, UpConfig),
    ) -> Self {
        let token = std::fs::read_to_string(config.data.join("admin.token")).expect("a token").trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let sources = tempfile::tempdir().expect("a folder");
        Self { life: Some(life), kind, config, engine, fake, token, client, sources, _data: data }
    }

    /// Where the API is, and the token for it.
    pub(crate) fn door(&self) -> (std::net::SocketAddr, &str) {
        (self.addresses().api, &self.token)
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.life.as_ref().expect("it runs").addresses()
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.config.data
    }

    /// Ends the program in order, and starts it again on the same folder and engine.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) async fn stop(&mut self) {
        self.life.take().expect("it runs").stop().await;
    }

    pub(crate) async fn start(&mut self) {
        self.begin();
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.life.take().expect("it runs").kill();
    }

    /// Waits for the end that the program makes of itself.
    #[cfg(feature = "crash-points")]
    pub(crate) fn crashed(&mut self) {
        self.life.take().expect("it runs").crashed();
    }

    /// Starts the program again, with a crash in this life.
    #[cfg(feature = "crash-points")]
    pub(crate) fn begin_crashing(&mut self, point: &str) {
        self.life = Some(Life::crashing_program(&self.config.data, point));
    }

    /// Starts it again on the same folder and engine, after whichever end, as what it was.
    pub(crate) fn begin(&mut self) {
        self.life = Some(match self.kind {
            Kind::Program => Life::program(&self.config.data),
            Kind::Here(room) => Life::here(&self.config, self.fake.as_ref(), room).0,
        });
    }

    /// Waits until an application is no more.
    pub(crate) async fn until_gone(&self, app: &str) {
        let deadline = Instant::now() + SOON;
        while self.api("GET", &format!("/apps/{app}"), None).await.0 != 404 {
            assert!(Instant::now() < deadline, "{app} is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many instances are on the engine.
    pub(crate) async fn until_instances(&self, count: usize) {
        let deadline = Instant::now() + SOON;
        loop {
            let left = self.engine.instances().await.expect("the engine answers");
            if left.len() == count {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the newest deployment of Test is in a state.
    pub(crate) async fn until_latest(&self, app: &str, state: &str) {
        let deadline = Instant::now() + SOON;
        while self.environment(app, "test").await["latest"]["state"] != state {
            assert!(Instant::now() < deadline, "the newest deployment of {app} did not become {state}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks again and again, as visitors do, until there is an answer of the application.
    pub(crate) async fn until_served(&self, host: &str) {
        let deadline = Instant::now() + SOON;
        while self.get(host).await.status != 200 {
            assert!(Instant::now() < deadline, "{host} was not served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn visitor(&self) -> Visitor {
        Visitor::new(self.addresses().http.expect("http is served"))
    }

    pub(crate) fn fleeting_visitor(&self) -> Visitor {
        Visitor::fleeting(self.addresses().http.expect("http is served"))
    }

    pub(crate) fn https(&self) -> std::net::SocketAddr {
        self.addresses().https.expect("https is served")
    }

    pub(crate) async fn get(&self, host: &str) -> Answer {
        self.visitor().get(host, "/").await.expect("an answer")
    }

    /// One request to the API: status and document.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.api_as(&self.token, method, path, body).await
    }

    pub(crate) async fn api_as(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let url = format!("http://{}/api/v1{path}", self.addresses().api);
        let mut request = self.client.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the API answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks the API, which may not live to answer.
    #[cfg(feature = "crash-points")]
    pub(crate) async fn try_api(&self, method: &str, path: &str) {
        let url = format!("http://{}/api/v1{path}", self.addresses().api);
        let request = self.client.request(method.parse().expect("a method"), url).bearer_auth(&self.token);
        drop(request.send().await);
    }

    /// Something that is followed to its end.
    pub(crate) async fn follow(&self, method: &str, path: &str) -> End {
        let (status, answer) = self.api(method, path, None).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        let text = match answer {
            Value::String(text) => text,
            document => document.to_string(),
        };
        let mut lines = Vec::new();
        for line in text.lines() {
            let word: Value = serde_json::from_str(line).expect("each line is JSON");
            if let Some(done) = word.get("done") {
                let text = done["text"].as_str().expect("how it ended").to_owned();
                return End { ok: done["ok"] == true, text, lines };
            }
            lines.extend(word["line"].as_str().map(str::to_owned));
        }
        panic!("{method} {path} did not end: {text}");
    }

    pub(crate) async fn create(&self, app: &str) {
        let (status, answer) = self.api("POST", "/apps", Some(json!({ "name": app }))).await;
        assert_eq!(status, 201, "{answer}");
    }

    pub(crate) async fn set(&self, app: &str, environment: &str, settings: Value) {
        let (status, answer) =
            self.api("PATCH", &format!("/apps/{app}/environments/{environment}"), Some(settings)).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) async fn environment(&self, app: &str, environment: &str) -> Value {
        let (status, answer) = self.api("GET", &format!("/apps/{app}"), None).await;
        assert_eq!(status, 200, "{answer}");
        let all = answer["environments"].as_array().expect("environments");
        all.iter().find(|found| found["name"] == environment).expect("the environment is there").clone()
    }

    /// Waits until an environment is in a state.
    pub(crate) async fn until(&self, app: &str, environment: &str, state: &str) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let found = self.environment(app, environment).await;
            if found["state"] == state {
                return found;
            }
            assert!(Instant::now() < deadline, "{app} {environment} did not become {state}: {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn deploy(&self, app: &str, environment: &str) -> End {
        self.follow("POST", &format!("/apps/{app}/environments/{environment}/deploy")).await
    }

    pub(crate) async fn put_to_sleep(&self, app: &str, environment: &str) -> End {
        self.follow("POST", &format!("/apps/{app}/environments/{environment}/sleep")).await
    }

    pub(crate) async fn wake(&self, app: &str, environment: &str) -> End {
        self.follow("POST", &format!("/apps/{app}/environments/{environment}/wake")).await
    }

    /// What the containers of an environment wrote.
    pub(crate) async fn logs(&self, app: &str, environment: &str) -> Vec<String> {
        let (status, answer) =
            self.api("GET", &format!("/apps/{app}/environments/{environment}/logs?tail=1000"), None).await;
        assert_eq!(status, 200, "{answer}");
        let text = match answer {
            Value::String(text) => text,
            document => document.to_string(),
        };
        let line = |line: &str| serde_json::from_str::<Value>(line).ok()?["text"].as_str().map(str::to_owned);
        text.lines().filter_map(line).collect()
    }

    /// Commits a source and pushes it with git.
    pub(crate) async fn push(&self, app: &str, source: &Source) -> Push {
        self.push_as(&self.token, app, source).await
    }

    /// Pushes from another folder, over whatever is there, and it is deployed.
    pub(crate) async fn pushed_by(&self, who: &str, app: &str, source: &Source) -> Push {
        let push = self.push_by(who, app, source).await;
        assert!(push.ok && push.said.contains("succeeded"), "{}", push.said);
        push
    }

    /// Pushes from another folder, over whatever is there.
    pub(crate) async fn push_by(&self, who: &str, app: &str, source: &Source) -> Push {
        self.push_from(&self.sources.path().join(who), &self.token, app, source).await
    }

    pub(crate) async fn push_as(&self, token: &str, app: &str, source: &Source) -> Push {
        self.push_from(&self.sources.path().join(app), token, app, source).await
    }

    async fn push_from(&self, folder: &Path, token: &str, app: &str, source: &Source) -> Push {
        source.write(folder);
        if !folder.join(".git").exists() {
            git(folder, &["init", "--quiet", "--initial-branch", "develop"]).await;
        }
        git(folder, &["add", "--all"]).await;
        git(folder, &["commit", "--quiet", "--allow-empty", "--message", "a change"]).await;
        let url = self.remote_as(token, app);
        git(folder, &["push", "--force", &url, "develop"]).await
    }

    /// Where an application is pushed to.
    pub(crate) fn remote(&self, app: &str) -> String {
        self.remote_as(&self.token, app)
    }

    fn remote_as(&self, token: &str, app: &str) -> String {
        format!("http://dormouse:{token}@{}/git/{app}.git", self.addresses().api)
    }

    /// Pushes, and it is deployed.
    pub(crate) async fn pushed(&self, app: &str, source: &Source) -> Push {
        let push = self.push(app, source).await;
        assert!(push.ok && push.said.contains("succeeded"), "{}", push.said);
        push
    }

    /// An application that serves on Test.
    pub(crate) async fn deployed(&self, app: &str, message: &str) {
        self.create(app).await;
        self.pushed(app, &Source::says(message)).await;
    }
}

/// An empty folder, and everything on free ports.
fn empty() -> (tempfile::TempDir, UpConfig) {
    let data = tempfile::tempdir().expect("a folder");
    let free = "127.0.0.1:0".parse().expect("an address");
    let config = UpConfig {
        data: data.path().join("data"),
        http: free,
        https: free,
        api: free,
        admin: free,
        zone: "localhost".parse().expect("a host"),
        demo: Demo::Without,
        engine: None,
        drain_delay: Duration::ZERO,
        workers: 2,
        log: LogConfig { filter: None, output: LogOutput::Stderr },
        access_log: Some(data.path().join("data/access.log").into()),
        otlp: None,
        name: "edge".to_owned(),
        pushes: Limits::default(),
        build_deadline: dormouse_control::BUILD_DEADLINE,
        crash: Crash::default(),
    };
    (data, config)
}

/// Runs git, as a developer does in a folder.
pub(crate) async fn git(folder: &Path, arguments: &[&str]) -> Push {
    let mut git = Command::new("git");
    git.current_dir(folder).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    git.env_clear().env("PATH", env!("PATH")).env("HOME", folder);
    git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0")]);
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "A developer").env(format!("GIT_{who}_EMAIL"), "a@example.com");
    }
    let output = tokio::time::timeout(SOON * 2, git.output()).await.expect("git ends").expect("git runs");
    Push { ok: output.status.success(), said: String::from_utf8_lossy(&output.stderr).into_owned() }
}

impl Drop for World {
    fn drop(&mut self) {
        // First the program, then what it made: nothing is made anew in between.
        let cleaned = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                if let Some(life) = self.life.take() {
                    life.stop().await;
                }
                self.engine.remove_all().await
            })
        });
        if !std::thread::panicking() {
            cleaned.expect("everything that was made is removed");
        }
    }
}
