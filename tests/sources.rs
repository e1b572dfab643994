//! What no compiler says of the sources: who knows of whom, and that no shell is called.

use std::fs;
use std::path::{Path, PathBuf};

/// The names of shells, and how one is told to run a line.
const SHELLS: [&str; 8] =
    ["\"sh\"", "\"bash\"", "\"dash\"", "/bin/sh", "/bin/bash", "/bin/dash", "sh -c", "/usr/bin/env"];

/// Programs are called with lists of arguments.
#[test]
fn no_program_is_called_by_a_shell() {
    let folders = ["src", "control", "proxy", "link", "sandbox"];
    // A script that a test writes is called by its own name, or by nobody.
    let calls = |line: &str| SHELLS.iter().any(|shell| line.contains(shell)) && !line.contains("#!");
    assert_eq!(lines(&folders, calls), [""; 0]);
}

#[test]
fn the_planes_know_nothing_of_each_other() {
    assert_eq!(lines(&["proxy/src"], |line| line.contains("dormouse_control")), [""; 0]);
    assert_eq!(lines(&["control/src"], |line| line.contains("dormouse_proxy")), [""; 0]);
    for word in ["dormouse_control", "dormouse_proxy", "tokio", "async ", "SystemTime"] {
        assert_eq!(lines(&["link/src"], |line| line.contains(word)), [""; 0], "{word}");
    }
}

/// Another lane is to find everything that decides as it is: Pingora is known to the front, which hands connections to it, to
/// its lane, and to what makes peers of endpoints.
#[test]
fn what_decides_knows_nothing_of_pingora() {
    let decides = ["access", "checks", "decide", "live", "metrics", "overload"].map(|room| format!("proxy/src/{room}"));
    let files = ["access", "checks", "decide", "drain", "exchange", "live", "metrics", "overload", "wake"];
    let files = files.map(|room| format!("proxy/src/{room}.rs"));
    let rooms: Vec<_> = decides.iter().chain(&files).map(String::as_str).collect();
    assert_eq!(lines(&rooms, |line| line.contains("pingora")), [""; 0]);
}

/// The lines of code in folders and files that `is_found` is true for, with their places; comments are none.
fn lines(of: &[&str], is_found: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for path in of {
        let before = files.len();
        collect(root.join(path), &mut files);
        assert!(root.join(path).exists() && files.len() > before, "there are sources: {path}");
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("it is text");
        for (number, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && is_found(line) {
                found.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    found
}

/// A Rust file, or those below a folder.
fn collect(path: PathBuf, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let found = fs::read_dir(path).expect("the folder is there").flatten().map(|found| found.path());
        found.filter(|path| !path.ends_with("target")).for_each(|path| collect(path, files));
    } else if path.extension().is_some_and(|end| end == "rs") {
        files.push(path);
    }
}
