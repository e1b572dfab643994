//! The program itself: what it prints, how it ends, and what a `kill -9` leaves.

#![expect(clippy::disallowed_methods, reason = "processes are waited for in real time, outside of any runtime")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dormouse_control::engine::Engine;
use dormouse_control::engine::docker::Docker;

use crate::http::Visitor;

/// The program starts, and ends, within this time, or has hung.
const WITHIN: Duration = Duration::from_secs(60);

/// A running `dormouse up`, on free ports.
pub(crate) struct Program {
    child: Child,
    ready: String,
    said: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn up(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.args(["up", "--data"]).arg(data);
    for listener in ["--http", "--https", "--api", "--admin"] {
        if !more.contains(&listener) {
            command.args([listener, "127.0.0.1:0"]);
        }
    }
    command.args(more).env_remove("DOCKER_HOST").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Program {
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        Self::of(&mut up(data, more))
    }

    /// One that ends itself at a point.
    #[cfg(feature = "crash-points")]
    pub(crate) fn crashing(data: &Path, point: &str) -> Self {
        Self::of(up(data, &[]).env("DORMOUSE_CRASH_AT", point))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("a line");
        if !ready.starts_with("ready ") {
            let output = child.wait_with_output().expect("it ends");
            panic!("no ready line but {ready:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // Read on, so that it never waits for a full pipe.
        let stderr = child.stderr.take().expect("a pipe");
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().expect("no test panics with it").push(line);
            }
        });
        Self { child, ready, said }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let words = self.ready.split_whitespace().filter_map(|word| word.split_once('='));
        let found = words.filter(|(found, _)| *found == name).map(|(_, address)| address).next();
        found.expect("it is in the line").parse().expect("an address")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its log so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("no test panics with it").clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `dormouse` answers to a command, given the folder of one that runs.
fn dormouse(data: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    let output = command.args(words).arg("--data").arg(data).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn fails(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "stdout is for results");
    for word in words.iter().chain(&["error: ", "hint: "]) {
        assert!(said.contains(word), "it says {word:?}: {said}");
    }
}

/// Started on this folder, it ends with the code and these words.
pub(crate) fn fails_on(data: &Path, more: &[&str], code: i32, words: &[&str]) {
    fails(&mut up(data, more), code, words);
}

/// Removes what a program made on Docker, by the id that its store has.
pub(crate) struct Traces<'a>(pub(crate) &'a Path);

impl Traces<'_> {
    fn engine(&self) -> (tokio::runtime::Runtime, Docker) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let docker = runtime.block_on(async {
            let store = dormouse_control::open_store(self.0).await.expect("its store");
            let docker = Docker::connect(None, store.installation()).await.expect("Docker");
            store.close().await;
            docker
        });
        (runtime, docker)
    }
}

impl Drop for Traces<'_> {
    fn drop(&mut self) {
        let (runtime, docker) = self.engine();
        let removed = runtime.block_on(docker.remove_all());
        if !std::thread::panicking() {
            removed.expect("everything that was made is removed");
        }
    }
}

mod docker {
    use super::*;

    #[test]
    fn the_demo_leads_from_one_command_to_a_page_and_after_kill_9_it_carries_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let traces = Traces(data);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let page = |program: &Program, host: &str| {
            let visitor = Visitor::new(program.address("http"));
            runtime.block_on(visitor.get(host, "/")).expect("an answer")
        };
        let mut program = Program::start(data, &["--demo"]);
        wait_for(|| page(&program, "hello.localhost").status == 200);
        let answer = page(&program, "hello-test.localhost");
        assert_eq!((answer.status, answer.body.contains("message.txt")), (200, true), "{}", answer.body);
        let (code, out, said) = dormouse(data, &["sleep", "hello"]);
        assert_eq!(code, Some(0), "{out}{said}");

        program.signal("-KILL");
        program.ended();
        let mut program = Program::start(data, &["--demo"]);
        let (code, out, said) = dormouse(data, &["status", "hello", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        let app: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let state = |name: &str| {
            let all = app["environments"].as_array().expect("environments");
            all.iter().find(|found| found["name"] == name).expect("it is there")["state"].clone()
        };
        assert_eq!((state("live"), state("test")), ("ready".into(), "asleep".into()), "sleepers stay asleep");
        assert_eq!(page(&program, "hello.localhost").status, 200, "Live serves again");
        assert_eq!(page(&program, "hello-test.localhost").status, 200, "and Test wakes as ever");
        let (code, out, _) = dormouse(data, &["logs", "hello"]);
        assert!(code == Some(0) && out.contains("listening on port"), "{out}");
        let (code, out, said) = dormouse(data, &["app", "delete", "hello"]);
        assert_eq!(code, Some(0), "{out}{said}");
        assert_eq!(page(&program, "hello.localhost").status, 404);

        program.signal("-TERM");
        assert!(program.ended().success(), "told to stop, it ends well");
        assert!(!data.join("api.addr").exists());
        let (engine, docker) = traces.engine();
        assert_eq!(engine.block_on(docker.instances()).expect("Docker answers"), [], "nothing is left over");
    }

    #[test]
    fn a_folder_that_is_held_and_a_port_in_use_are_told_with_their_codes() {
        let folder = tempfile::tempdir().expect("a folder");
        let _traces = Traces(folder.path());
        let program = Program::start(folder.path(), &[]);
        fails(&mut up(folder.path(), &[]), 75, &["another Dormouse uses the folder"]);
        for listener in ["http", "https", "api", "admin"] {
            let other = tempfile::tempdir().expect("a folder");
            let traces = (listener != "api").then(|| Traces(other.path()));
            let address = program.address(listener).to_string();
            let flag = format!("--{listener}");
            fails(&mut up(other.path(), &[&flag, &address]), 69, &[&format!("for {listener} on {address}"), &flag]);
            drop(traces);
        }
    }

    #[test]
    fn c21_a_start_on_a_used_folder_whose_disk_is_full_is_told_and_with_room_it_starts() {
        let Some(disk) = crate::full_disk::Disk::new() else { return };
        let data = disk.path().join("data");
        let start_and_stop = || {
            let mut program = Program::start(&data, &[]);
            program.signal("-TERM");
            assert!(program.ended().success());
        };
        start_and_stop();
        let traces = Traces(&data);
        disk.fill();
        fails(&mut up(&data, &[]), 73, &["the disk that holds", "is full", "free some space"]);
        disk.free();
        start_and_stop();
        drop(traces);
    }

    #[test]
    fn a_secret_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("ca.key");
        for name in ["ca.pem", "ca.key"] {
            std::fs::write(folder.path().join(name), "x").expect("a file");
        }
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a mode");
        fails(&mut up(folder.path(), &[]), 78, &["ca.key", "chmod 600"]);
    }
}

pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come about");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_engine_that_does_not_run_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = format!("unix://{}/docker.sock", folder.path().display());
    fails(&mut up(&folder.path().join("data"), &["--engine", &socket]), 69, &["docker.sock", "start Docker"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    fails(&mut up(&file, &[]), 73, &["cannot use", "--data"]);
}

#[test]
fn an_engine_that_is_too_old_is_told_what_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    // Answers whatever it is asked, as an engine of 2017 would.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            while head.next().is_some_and(|line| !line.is_empty()) {}
            let body = r#"{"Version":"17.05.0-ce","ApiVersion":"1.29","MinAPIVersion":"1.12"}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nApi-Version: 1.29\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    let data = folder.path().join("data");
    fails(&mut up(&data, &["--engine", &address]), 69, &["1.29", "at least", "Docker 20.10"]);
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        dormouse_control::open_store(folder.path()).await.expect("a store").close().await;
    });
    let file = folder.path().join("dormouse.db");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', 1, x'00', 0)";
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.expect("the file opens");
        sqlx::query(newer).execute(&mut connection).await.expect("a row");
        sqlx::Connection::close(connection).await.expect("it closes");
    });
    let before = std::fs::read(&file).expect("a file");
    fails(&mut up(folder.path(), &[]), 73, &["cannot open the store", "newer Dormouse"]);
    assert_eq!(std::fs::read(&file).expect("a file"), before, "nothing was changed");
}
