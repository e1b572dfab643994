//! Compiles the demo application to a static program that runs in an image `FROM scratch`.
//!
//! It is no crate of the workspace: it has no dependencies, and must be linked statically while the rest is not. So the
//! compiler that compiles this program compiles it, too, directly.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "boilerplates/hello";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let program = PathBuf::from(told("OUT_DIR").expect("cargo tells the output folder")).join("hello");
    let mut rustc = Command::new(told("RUSTC").expect("cargo tells the compiler"));
    // A path that is the same everywhere, so that the program is, too.
    rustc.current_dir(SOURCE).arg("src/main.rs").arg("-o").arg(&program);
    rustc.args(["--crate-name", "hello", "--edition", "2024"]);
    rustc.arg("--target").arg(told("TARGET").expect("cargo tells the target"));
    for option in ["target-feature=+crt-static", "opt-level=s", "panic=abort", "strip=symbols"] {
        rustc.args(["-C", option]);
    }
    if let Some(linker) = told("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let status = rustc.status().expect("the compiler that runs this can be started");
    assert!(status.success(), "the demo application does not compile; is the static C library there (libc6-dev)?");
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by variables")]
fn told(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
