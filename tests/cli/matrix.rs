//! Every word that the command line takes, as it should not be: each argument and option of each command, from clap's own
//! list, so that a new one without a row here fails.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::{Arg, ArgAction, Command as Clap, CommandFactory};

use dormouse::cli::Cli;

use super::*;

/// Commands run side by side.
const AT_ONCE: usize = 4;
/// The most that is said about one mistake, in bytes: what was given is not all given back.
const SAID_MAX_BYTES: usize = 4096;

/// A word as it should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Missing,
    Empty,
    Long,
    NonUtf8,
    Control,
    Lines,
    Dash,
    Traversal,
    LookAlike,
    Backwards,
    Huge,
    Negative,
    Zero,
    Unit,
}
use Case::*;

const CASES: [Case; 14] =
    [Missing, Empty, Long, NonUtf8, Control, Lines, Dash, Traversal, LookAlike, Backwards, Huge, Negative, Zero, Unit];

impl Case {
    fn word(self) -> Option<OsString> {
        Some(match self {
            Missing => return None,
            Empty => "".into(),
            Long => "x".repeat(100_000).into(),
            NonUtf8 => OsString::from_vec(b"a\xff\xfe".to_vec()),
            Control => "a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{8}".into(),
            Lines => "a\r\nhint: do as I say\n".into(),
            Dash => "-rf".into(),
            Traversal => "../../etc/passwd".into(),
            // A Cyrillic letter first.
            LookAlike => "\u{4bb}ello".into(),
            Backwards => "\u{202e}olleh\u{2066}".into(),
            Huge => "99999999999999999999999".into(),
            Negative => "-1".into(),
            Zero => "0".into(),
            Unit => "10parsecs".into(),
        })
    }
}

/// What an argument takes: which cases it is tried with, which of them are as good as any, and how the others end.
struct Row {
    tried: &'static [Case],
    good: &'static [Case],
    code: i32,
}

const fn row(good: &'static [Case]) -> Row {
    Row { tried: &CASES, good, code: 64 }
}

/// The row of an argument.
fn row_of(command: &str, arg: &str) -> Row {
    match (command, arg) {
        ("up", "http" | "https" | "api" | "admin" | "workers" | "drain_delay") => row(&[]),
        ("up", "zone") => row(&[Unit]),
        ("up", "engine") => Row { code: 78, ..row(&[]) },
        ("up", "data") => Row {
            code: 78,
            ..row(&[Long, Control, Lines, Dash, Traversal, LookAlike, Backwards, Huge, Negative, Zero, Unit])
        },
        ("up" | "edge", "access_log" | "log") => row(&[Traversal]),
        ("up" | "edge", "otlp" | "otlp_sample") => row(&[]),
        ("edge", "name" | "region") => row(&[Huge, Zero, Unit]),
        ("edge", "table" | "config" | "cert" | "key" | "run" | "ticket_keys" | "cookie_key" | "client_ca") => {
            row(&[NonUtf8, Long, Control, Lines, Dash, Traversal, LookAlike, Backwards, Huge, Negative, Zero, Unit])
        }
        ("edge", "http2_prior_knowledge") => row(&[Missing]),
        ("edge", _) => row(&[]),
        // `status` of all is as good.
        ("status", "name") => row(&[Missing, Huge, Zero, Unit]),
        (_, "name" | "environment") => row(&[Huge, Zero, Unit]),
        (_, "tail") => row(&[Zero]),
        (_, "sleep_after" | "ready_within" | "memory" | "variables" | "removed") => row(&[]),
        (_, "cpus" | "processes") => row(&[Zero]),
        (_, "maintenance" | "pause" | "index") => row(&[]),
        (_, "removed_passwords") => row(&[Dash, Traversal, Huge, Negative, Zero, Unit]),
        // A good user's password is not on stdin.
        (_, "password") => row(&[Dash, Traversal, Huge, Negative, Zero, Unit]),
        ("environment policy", "file") => {
            row(&[NonUtf8, Long, Control, Lines, Dash, Traversal, LookAlike, Backwards, Huge, Negative, Zero, Unit])
        }
        ("environment policy", "clear") => row(&[Missing]),
        // What could be a host is asked for; tests ask nobody else.
        (_, "api") => Row { tried: &[Missing, Empty, NonUtf8, Control, Lines, Backwards, Huge], ..row(&[]) },
        (_, "token") => row(&[Empty, Long, Dash, Traversal, Huge, Negative, Zero, Unit]),
        (_, "data") => {
            row(&[NonUtf8, Long, Control, Lines, Dash, Traversal, LookAlike, Backwards, Huge, Negative, Zero, Unit])
        }
        (_, "json" | "follow" | "demo") => row(&[Missing]),
        _ => panic!("{command} {arg} has no row: say what it takes"),
    }
}

/// One run: a command with one word as it should not be.
struct Run {
    name: String,
    words: Vec<OsString>,
    variable: Option<(String, OsString)>,
    is_good: bool,
    code: i32,
}

/// Every command that does something, by its words, with all that can be said to it.
fn leaves(command: &Clap, words: &[String], above: &[Arg]) -> Vec<(Vec<String>, Vec<Arg>)> {
    let own = |arg: &&Arg| !matches!(arg.get_action(), ArgAction::Help | ArgAction::Version);
    let args: Vec<Arg> = above.iter().chain(command.get_arguments().filter(own)).cloned().collect();
    let below: Vec<_> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    if below.is_empty() {
        return vec![(words.to_vec(), args)];
    }
    let deeper = |below: &&Clap| leaves(below, &[words, &[below.get_name().to_owned()]].concat(), &args);
    below.iter().flat_map(deeper).collect()
}

fn runs() -> Vec<Run> {
    let mut runs = Vec::new();
    for (path, args) in leaves(&Cli::command(), &[], &[]) {
        let command = path.join(" ");
        for arg in &args {
            let row = row_of(&command, arg.get_id().as_str());
            for &case in row.tried {
                runs.push(run(&path, &args, arg, case, &row));
                runs.extend(by_variable(&path, &args, arg, case, &row));
            }
        }
    }
    runs
}

/// All that a command needs but for one argument.
fn others(path: &[String], args: &[Arg], but: &Arg) -> Vec<OsString> {
    let mut words: Vec<OsString> = path.iter().map(OsString::from).collect();
    let id = but.get_id().as_str();
    if path == ["up"] {
        let listeners = ["http", "https", "api", "admin"].into_iter().filter(|listener| *listener != id);
        words.extend(listeners.map(|listener| format!("--{listener}=127.0.0.1:0").into()));
        if id != "engine" {
            words.push("--engine=unix:///nonexistent/docker.sock".into());
        }
        if id != "data" {
            words.push("--data=data".into());
        }
    }
    // There is no such file: that is where it ends.
    if path == ["edge"] && id != "table" {
        words.push("--table=table.json".into());
    }
    if path == ["edge"] && matches!(id, "ticket_keys" | "client_ca") {
        words.push("--https=127.0.0.1:0".into());
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if path == ["edge"] && id == one {
            words.push(format!("--{other}=file.pem").into());
        }
    }
    if path == ["environment", "set"] && id != "sleep_after" {
        words.push("--sleep-after=5m".into());
    }
    if id != "name" && args.iter().any(|arg| arg.is_positional() && arg.is_required_set()) {
        words.push("hello".into());
    }
    words
}

fn run(path: &[String], args: &[Arg], arg: &Arg, case: Case, row: &Row) -> Run {
    let mut words = others(path, args, arg);
    match (arg.get_long(), case.word()) {
        (Some(long), Some(word)) => {
            let mut option = OsString::from(format!("--{long}="));
            option.push(word);
            words.push(option);
        }
        (Some(long), None) => words.push(format!("--{long}").into()),
        (None, Some(word)) => words.extend(["--".into(), word]),
        (None, None) => {}
    }
    let is_good = row.good.contains(&case);
    // What clap itself finds is a mistake of the command line.
    let code =
        if matches!(case, Missing) || (matches!(case, NonUtf8) && arg.get_id() != "data") { 64 } else { row.code };
    let code = if matches!(case, Empty) && arg.get_id() == "data" { 64 } else { code };
    Run { name: format!("{} {} {case:?}", path.join(" "), arg.get_id()), words, variable: None, is_good, code }
}

/// The same by the argument's variable.
fn by_variable(path: &[String], args: &[Arg], arg: &Arg, case: Case, row: &Row) -> Option<Run> {
    let variable = arg.get_env()?.to_str().expect("a name").to_owned();
    let word = case.word()?;
    let run = run(path, args, arg, case, row);
    let words = others(path, args, arg);
    Some(Run { name: format!("{} by {variable}", run.name), words, variable: Some((variable, word)), ..run })
}

/// Does it in a folder of its own, and checks all that is true of any mistake. Returns what is not.
fn check(run: &Run, stub: &Stub) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    std::fs::create_dir_all(&deep).unwrap();
    stub.asked.lock().unwrap().clear();
    let mut command = program();
    command.current_dir(&deep).args(&run.words).env("DORMOUSE_API", &stub.url).env("DORMOUSE_TOKEN", "secret");
    if let Some((name, value)) = &run.variable {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let (code, out, err) = (output.status.code(), String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (Ok(out), Ok(err)) = (out, err) else { return Err("it does not speak UTF-8".to_owned()) };
    let raw = |letter: char| {
        (letter.is_control() && letter != '\n') || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let wrong = |what: &str| Err(format!("{what} ({code:?}): {}", err.chars().take(600).collect::<String>()));
    if err.contains(raw) || out.contains(raw) {
        return wrong("it says control characters");
    }
    if err.len() > SAID_MAX_BYTES {
        return wrong("it says too much");
    }
    if err.contains("panicked") {
        return wrong("it panics");
    }
    if err.contains("\nhint: do as I say") {
        return wrong("what was given looks like its own words");
    }
    let failed = code != Some(0);
    if failed && !(err.starts_with("error: ") && err.contains("\nhint: ") && out.is_empty()) {
        return wrong("it does not say what to do, on stderr alone");
    }
    if run.is_good {
        // It went on, and ended by what came then.
        let fine = [0, 64, 65, 69, 73, 77, 78].contains(&code.unwrap_or(-1)) && code != Some(64);
        return if fine { Ok(()) } else { wrong("it is as good as any") };
    }
    if code != Some(run.code) {
        return wrong(&format!("it should end with {}", run.code));
    }
    if !stub.asked.lock().unwrap().is_empty() {
        return wrong("it asked the control plane");
    }
    if files(folder.path()) != ["a", "a/b", "a/b/c"] {
        return wrong("it made something");
    }
    Ok(())
}

/// All that is below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            all.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
            if entry.path().is_dir() {
                open.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

#[test]
fn every_word_of_every_command_is_checked_before_anything_is_asked_or_made() {
    let runs = runs();
    assert!(runs.len() > 500, "{}", runs.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let stub = Stub::problem(404, &json!({"title": "Not found", "detail": "there is none", "hint": "no"}));
                while let Some(run) = runs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(what) = check(run, &stub) {
                        wrong.lock().unwrap().push(format!("{}: {what}", run.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} runs:\n{}", wrong.len(), runs.len(), wrong.join("\n"));
}

#[test]
fn a_log_filter_that_is_none_is_told_and_harmless() {
    for filter in [OsStr::from_bytes(b"\xff\xfe"), OsStr::new("\u{1b}[2J"), OsStr::new("a=b=c")] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program();
        command.args(["up", "--engine=unix:///nonexistent/docker.sock", "--api=127.0.0.1:0", "--data"]);
        let output = command.arg(folder.path()).env("DORMOUSE_LOG", filter).output().unwrap();
        assert_eq!(code(&output), 69, "{}", err(&output));
        assert!(
            err(&output).contains("DORMOUSE_LOG is no filter") && !err(&output).contains('\u{1b}'),
            "{}",
            err(&output)
        );
    }
}
