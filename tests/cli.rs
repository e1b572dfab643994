//! The command line, from outside: what scripts rely on, and what people get to read.
//!
//! The control plane is a stub here, which answers what it was told to and notes what it was asked.

#![expect(clippy::unwrap_used, reason = "what a test relies on ends it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

#[path = "cli/matrix.rs"]
mod matrix;
#[path = "cli/policy.rs"]
mod policy;
#[path = "cli/terminal.rs"]
mod terminal;

/// One request that the stub saw.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    token: Option<String>,
    body: String,
}

/// A control plane that always gives the same answer.
struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    fn new(status: u16, kind: &str, body: impl ToString) -> Self {
        Self::with(status, kind, "", body)
    }

    fn with(status: u16, kind: &str, headers: &str, body: impl ToString) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nConnection: close\r\n{headers}\r\n");
        let (notes, answer) = (Arc::clone(&asked), head + &body.to_string());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                notes.lock().unwrap().push(read(&stream));
                // Some tests leave early.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { url, asked }
    }

    fn json(body: &Value) -> Self {
        Self::new(200, "application/json", body)
    }

    fn stream(lines: &[Value]) -> Self {
        Self::new(200, "application/x-ndjson", lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    fn problem(status: u16, problem: &Value) -> Self {
        Self::new(status, "application/problem+json", problem)
    }

    /// Runs the program against this control plane.
    fn run(&self, words: &[&str]) -> Output {
        dormouse(&[words, &["--api", &self.url, "--token", "secret"]].concat())
    }

    fn asked(&self) -> Asked {
        let asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }
}

fn read(stream: &TcpStream) -> Asked {
    let mut input = BufReader::new(stream);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.trim().is_empty()) {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        lines.push(line);
    }
    let header = |name: &str| {
        let of = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        lines.iter().find(of).map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let mut asked = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    input.read_exact(&mut asked).unwrap();
    Asked { line: lines[0].trim().to_owned(), token: header("authorization"), body: String::from_utf8(asked).unwrap() }
}

/// The program, in an environment that says nothing.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.env_clear().env("HOME", "/nonexistent");
    command
}

fn dormouse(words: &[&str]) -> Output {
    program().args(words).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[track_caller]
fn fails(output: &Output, expected: i32, parts: &[&str]) {
    assert_eq!(code(output), expected, "{}", err(output));
    assert!(err(output).starts_with("error: "), "{}", err(output));
    for part in parts {
        assert!(err(output).contains(part), "{part:?} is missing in: {}", err(output));
    }
    assert_eq!(out(output), "", "results only");
}

fn app() -> Value {
    let deployment = json!({"number": 3, "commit": "0123456789abcdef", "state": "succeeded", "reason": null,
        "last_lines": [], "created_at": 1_000, "ended_at": 2_000});
    let failed = json!({"number": 4, "commit": "fedcba9876543210", "state": "failed", "reason": "it exited with code 3",
        "last_lines": ["one\u{1b}[2J", "two"], "created_at": 3_000, "ended_at": 4_000});
    json!({"name": "hello", "branch": "develop", "git_url": "http://127.0.0.1:9000/git/hello.git", "created_at": 1_000,
    "environments": [
        {"name": "test", "urls": ["http://hello-test.localhost:8080/"], "state": "asleep", "reason": "idle for 15m",
         "serving": deployment, "latest": failed, "sleep_after_ms": 900_000, "ready_within_ms": 60_000,
         "last_active_at": null, "something_new": 1},
        {"name": "live", "urls": ["http://hello.localhost:8080/"], "state": "empty", "reason": null,
         "serving": null, "latest": null, "sleep_after_ms": null, "ready_within_ms": 60_000, "last_active_at": null},
    ]})
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_64_and_says_what_does() {
    for words in [
        &["nonsense"][..],
        &["deploy"],
        &["deploy", "Hello"],
        &["deploy", "../etc"],
        &["deploy", "--", "--upload-pack=x"],
        &["deploy", "hello", "-e", "Test"],
        &["app", "create", "a.b"],
        &["logs", "hello", "--tail", "-1"],
        &["environment", "set", "hello"],
        &["environment", "set", "hello", "--sleep-after", "soon"],
        &["environment", "set", "hello", "--variable", "1X=y"],
        &["environment", "set", "hello", "--memory", "512"],
        &["environment", "set", "hello", "--cpus", "many"],
        &["environment", "set", "hello", "--processes", "-1"],
        &["up", "--http", "nowhere"],
        &["up", "--workers", "0"],
        &["up", "--zone", "a/b"],
        &["status", "--api", "https://127.0.0.1:9"],
    ] {
        fails(&dormouse(words), 64, &["hint: "]);
    }
    let nothing = dormouse(&[]);
    assert_eq!(code(&nothing), 64);
    assert!(err(&nothing).contains("Usage: dormouse"), "{}", err(&nothing));
    for word in ["--help", "--version"] {
        let output = dormouse(&[word]);
        assert_eq!((code(&output), err(&output)), (0, ""));
        assert!(out(&output).contains("dormouse"));
    }
}

#[test]
fn a_configuration_that_makes_no_sense_ends_with_78() {
    fails(&dormouse(&["up", "--http", "127.0.0.1:9000"]), 78, &["--http", "--api", "127.0.0.1:9000", "hint: "]);
    fails(&dormouse(&["up", "--engine", "ssh://x"]), 78, &["ssh://x", "DOCKER_HOST", "hint: "]);
    fails(&program().env_remove("HOME").arg("up").output().unwrap(), 78, &["--data DIR"]);
}

#[test]
fn a_control_plane_that_is_not_there_ends_with_69_and_says_where_it_was_looked_for() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = dormouse(&["status", "--api", &gone]);
    fails(&output, 69, &[&gone, "refused", "hint: ", "dormouse up"]);

    let stranger = Stub::new(200, "text/html", "<h1>hello</h1>");
    fails(&stranger.run(&["status"]), 69, &["no Dormouse", "hint: "]);
    let elsewhere = Stub::json(&json!({"apps": []}));
    let stranger = Stub::with(302, "text/html", &format!("Location: {}/api/v1/apps\r\n", elsewhere.url), "");
    fails(&stranger.run(&["status"]), 69, &["no Dormouse", "hint: "]);
    assert!(elsewhere.asked.lock().unwrap().is_empty(), "a token is not carried on");
}

#[test]
fn a_token_that_is_refused_ends_with_77() {
    let stub = Stub::problem(401, &json!({"title": "Unauthorized", "status": 401}));
    fails(&stub.run(&["app", "list"]), 77, &["Unauthorized", "hint: ", "admin.token"]);
    assert_eq!(stub.asked().token.as_deref(), Some("Bearer secret"));

    let stub = Stub::problem(401, &json!({"title": "Unauthorized", "detail": "no such token", "hint": "ask Ann"}));
    fails(&stub.run(&["app", "list"]), 77, &["error: no such token", "hint: ask Ann"]);
}

#[test]
fn what_the_control_plane_refuses_is_told_with_its_hint() {
    for (status, expected) in [(400, 65), (404, 65), (409, 65), (422, 65), (503, 69), (500, 70)] {
        let stub =
            Stub::problem(status, &json!({"title": "No", "detail": "hello\u{7} is taken", "hint": "take another"}));
        fails(&stub.run(&["app", "create", "hello"]), expected, &["error: hello  is taken", "hint: take another"]);
    }
    fails(&Stub::new(500, "text/plain", "?").run(&["status"]), 70, &["500"]);
}

#[test]
fn address_and_token_are_found_in_the_data_folder_and_stay_in_the_house() {
    let stub = Stub::json(&json!({"apps": []}));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".local/share/dormouse");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("api.addr"), stub.url.strip_prefix("http://").unwrap()).unwrap();
    std::fs::write(folder.join("admin.token"), "from-file\n").unwrap();
    let run = |home: &Path, words: &[&str]| program().env("HOME", home).args(words).output().unwrap();
    assert_eq!(code(&run(home.path(), &["status"])), 0);
    assert_eq!(stub.asked().token.as_deref(), Some("Bearer from-file"));

    let elsewhere = Stub::json(&json!({"apps": []}));
    assert_eq!(code(&run(home.path(), &["status", "--api", &elsewhere.url])), 0);
    assert_eq!(elsewhere.asked().token, None);

    let by_variable = Stub::json(&json!({"apps": []}));
    let mut command = program();
    command.env("DORMOUSE_API", &by_variable.url).env("DORMOUSE_TOKEN", "from-variable").arg("status");
    assert_eq!(code(&command.output().unwrap()), 0);
    assert_eq!(by_variable.asked().token.as_deref(), Some("Bearer from-variable"));
}

#[test]
fn status_is_a_table_for_people() {
    let stub = Stub::json(&json!({"apps": [app()]}));
    let output = stub.run(&["status"]);
    assert_eq!((code(&output), err(&output)), (0, ""));
    assert_eq!(stub.asked().line, "GET /api/v1/apps HTTP/1.1");
    let lines: Vec<Vec<&str>> = out(&output).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{}", out(&output));
    assert_eq!(lines[0][..3], ["APP", "ENVIRONMENT", "STATE"]);
    let test = ["hello", "test", "asleep", "#3", "0123456789", "#4", "fedcba9876", "failed", "15m", "-"];
    assert_eq!(lines[1], [&test[..], &["http://hello-test.localhost:8080/"]].concat());
    assert_eq!(lines[2], ["hello", "live", "empty", "-", "-", "never", "-", "http://hello.localhost:8080/"]);
}

#[test]
fn status_of_one_application_tells_why_and_the_last_words() {
    let stub = Stub::json(&app());
    let output = stub.run(&["status", "hello"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(stub.asked().line, "GET /api/v1/apps/hello HTTP/1.1");
    for part in ["test: idle for 15m", "deployment #4", "it exited with code 3", "  | one [2J\n  | two\n"] {
        assert!(out(&output).contains(part), "{part:?} is missing in: {}", out(&output));
    }
}

#[test]
fn json_is_the_answer_as_it_is() {
    let apps = json!({"apps": [app()]});
    for words in [&["status", "--json"][..], &["app", "list", "--json"], &["app", "--json", "list"]] {
        let output = Stub::json(&apps).run(words);
        assert_eq!((code(&output), err(&output)), (0, ""));
        assert_eq!(out(&output), format!("{apps}\n"), "{words:?}");
    }
    let output = Stub::json(&app()).run(&["app", "create", "hello", "--json"]);
    assert_eq!((out(&output), err(&output)), (format!("{}\n", app()).as_str(), ""));
}

#[test]
fn a_created_application_comes_with_what_to_do_next() {
    let stub = Stub::new(201, "application/json", app());
    let output = stub.run(&["app", "create", "hello"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let asked = stub.asked();
    assert_eq!(asked.line, "POST /api/v1/apps HTTP/1.1");
    assert_eq!(serde_json::from_str::<Value>(&asked.body).unwrap(), json!({"name": "hello"}));
    assert!(out(&output).contains("http://127.0.0.1:9000/git/hello.git"), "{}", out(&output));
    assert!(err(&output).contains("git push dormouse HEAD:develop"), "{}", err(&output));
}

#[test]
fn progress_is_shown_and_its_end_is_the_exit_code() {
    let lines = [json!({"line": "building"}), json!({"alive": true}), json!({"line": "started\u{1b}[2J\n"})];
    let good = json!({"done": {"ok": true, "text": "hello (test) runs 0123456"}});
    let bad = json!({"done": {"ok": false, "text": "the container exited with code 3"}});
    for (words, line) in [
        (&["deploy", "hello", "-e", "live"][..], "POST /api/v1/apps/hello/environments/live/deploy HTTP/1.1"),
        (&["sleep", "hello"], "POST /api/v1/apps/hello/environments/test/sleep HTTP/1.1"),
        (&["wake", "hello"], "POST /api/v1/apps/hello/environments/test/wake HTTP/1.1"),
        (&["app", "delete", "hello"], "DELETE /api/v1/apps/hello HTTP/1.1"),
    ] {
        let stub = Stub::stream(&[&lines[..], std::slice::from_ref(&good)].concat());
        let output = stub.run(words);
        assert_eq!((code(&output), out(&output)), (0, "hello (test) runs 0123456\n"), "{}", err(&output));
        assert_eq!(err(&output), "building\nstarted [2J\n");
        assert_eq!(stub.asked().line, line);
    }
    let failed = Stub::stream(&[&lines[..], std::slice::from_ref(&bad)].concat());
    let output = failed.run(&["deploy", "hello"]);
    assert_eq!((code(&output), out(&output)), (1, ""));
    assert!(err(&output).ends_with("error: the container exited with code 3\n"), "{}", err(&output));

    let output = Stub::stream(&[&lines[..2], std::slice::from_ref(&bad)].concat()).run(&["deploy", "hello", "--json"]);
    assert_eq!((code(&output), out(&output)), (1, format!("{}\n{bad}\n", lines[0]).as_str()));
}

#[test]
fn progress_that_breaks_off_is_no_success() {
    let lines = [json!({"line": "building"})];
    let output = Stub::stream(&lines).run(&["deploy", "hello"]);
    assert_eq!((code(&output), out(&output)), (69, ""));
    assert!(err(&output).contains("broke off") && err(&output).contains("dormouse status"), "{}", err(&output));
    let cut = Stub::new(200, "application/x-ndjson", "{\"done\":{\"ok\":true,\"text\":\"x\"}}");
    assert_eq!(code(&cut.run(&["deploy", "hello"])), 69, "a line without its end may be cut");
}

#[test]
fn logs_are_results() {
    let lines =
        [json!({"stderr": false, "text": "one"}), json!({"alive": true}), json!({"stderr": true, "text": "two\r\n"})];
    let stub = Stub::stream(&lines);
    let output = stub.run(&["logs", "hello", "--tail", "7", "-f"]);
    assert_eq!((code(&output), out(&output), err(&output)), (0, "one\ntwo\n", ""));
    assert_eq!(stub.asked().line, "GET /api/v1/apps/hello/environments/test/logs?tail=7&follow=true HTTP/1.1");
    let output = Stub::stream(&lines).run(&["logs", "hello", "--json"]);
    assert_eq!(out(&output), format!("{}\n{}\n", lines[0], lines[2]));
    let cut = Stub::new(200, "application/x-ndjson", format!("{}\n{{\"stderr\":fal", lines[0]));
    let output = cut.run(&["logs", "hello"]);
    assert_eq!((code(&output), out(&output)), (69, "one\n"), "{}", err(&output));
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let lines: Vec<_> =
        (0..20_000).map(|n| json!({"stderr": false, "text": format!("line {n} of very many")})).collect();
    let stub = Stub::stream(&lines);
    let mut command = program();
    command.args(["logs", "hello", "--api", &stub.url, "--token", "x"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "line 0 of very many\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, ""));
}

#[test]
fn an_environment_is_changed_in_what_was_named_only() {
    let environment = &app()["environments"][0];
    let asked = |words: &[&str]| {
        let stub = Stub::json(environment);
        let output = stub.run(&[&["environment", "set", "hello"], words].concat());
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains("15m"), "{}", out(&output));
        assert!(stub.asked().line.starts_with("PATCH /api/v1/apps/hello/environments/"), "{:?}", stub.asked());
        serde_json::from_str::<Value>(&stub.asked().body).unwrap()
    };
    assert_eq!(asked(&["--sleep-after", "2s"]), json!({"sleep_after_ms": 2_000}));
    assert_eq!(asked(&["-e", "live", "--sleep-after", "never"]), json!({"sleep_after_ms": null}));
    let limits = ["--memory", "256m", "--cpus", "0.5", "--processes", "100"];
    assert_eq!(asked(&limits), json!({"memory_bytes": 256 << 20, "cpus_milli": 500, "processes": 100}));
    let variables = ["--ready-within", "10s", "--variable", "A=b=c", "--variable", "B=", "--remove-variable", "C"];
    assert_eq!(asked(&variables), json!({"ready_within_ms": 10_000, "variables": {"A": "b=c", "B": "", "C": null}}));
}
