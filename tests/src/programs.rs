//! Where the binaries under test are.
//!
//! Cargo builds no binary of another package for a test, so the harness has it
//! built: the binaries are always those of the sources at hand. `SHEPHERD_BIN_DIR`
//! names a directory with binaries to test instead.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The path of a binary of the workspace, such as `shepherd`.
///
/// # Panics
/// When it cannot be built, or is not there.
pub fn built(name: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    if let Some(dir) = std::env::var_os("SHEPHERD_BIN_DIR") {
        return existing(Path::new(&dir), name);
    }
    // Locked while it builds: whoever else needs it waits for it.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.get_or_insert_default().insert(name.to_owned()) {
        build(name);
    }
    existing(&target_dir(), name)
}

fn existing(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    assert!(path.is_file(), "there is no {}: build it, or set SHEPHERD_BIN_DIR", path.display());
    path
}

/// `target/PROFILE`: a test runs from its `deps`, a program from itself.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the running program has a path");
    let dir = exe.parent().expect("a program is in a directory");
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

fn build(name: &str) {
    // Set by cargo for the programs that it runs; without it they were built by hand.
    let Some(cargo) = std::env::var_os("CARGO") else { return };
    let dir = target_dir();
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bin", name]);
    if dir.ends_with("release") {
        command.arg("--release");
    }
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if let Some(target) = dir.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "the binary {name} does not build");
}
