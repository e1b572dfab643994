//! Compiles the programs that run inside containers: one file each, without crates, linked statically, so that an image
//! `FROM scratch` can hold them. The sandbox becomes a part of this crate; the other is the contract tests' application.

use std::path::Path;
use std::process::Command;

fn main() {
    compile("../sandbox/main.rs", "sandbox");
    compile("tests/engine_contract/application.rs", "contract-application");
}

/// Compiles `source` to `OUT_DIR/name`.
fn compile(source: &str, name: &str) {
    println!("cargo::rerun-if-changed={source}");
    let out = Path::new(&variable("OUT_DIR")).join(name);
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", &name.replace('-', "_")])
        .args(["--target", &variable("TARGET")])
        .args(["-C", "target-feature=+crt-static", "-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&out)
        .arg(source)
        .status()
        .expect("cargo names a compiler that runs");
    assert!(status.success(), "cannot compile {source}: {status}");
}

#[expect(clippy::disallowed_methods, reason = "variables are how cargo talks to a build script")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
