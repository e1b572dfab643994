//! No shell, anywhere: programs are called with lists of arguments.

use std::fs;
use std::path::{Path, PathBuf};

/// The names of shells, and how one is told to run a line.
const SHELLS: [&str; 8] =
    ["\"sh\"", "\"bash\"", "\"dash\"", "/bin/sh", "/bin/bash", "/bin/dash", "sh -c", "/usr/bin/env"];

#[test]
fn no_program_is_called_by_a_shell() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "control", "proxy", "link", "sandbox"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "the sources are here");
    for file in files {
        let text = fs::read_to_string(&file).expect("it is text");
        for (number, line) in text.lines().enumerate() {
            // A script that a test writes is called by its own name, or by nobody.
            let shell = SHELLS.iter().find(|shell| line.contains(**shell) && !line.contains("#!"));
            assert_eq!(shell, None, "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

/// The Rust files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for found in fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = found.path();
        if path.is_dir() && found.file_name() != "target" {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}
