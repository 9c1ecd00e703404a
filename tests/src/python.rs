//! The Python that has the packages of `tests/requirements.txt`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// Names the interpreter; `cargo xtask test` sets it.
const VARIABLE: &str = "SHEPHERD_TEST_PYTHON";

/// The interpreter, or [`skip`](crate::skip)s the test that asks.
///
/// # Panics
/// As `skip` does.
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os(VARIABLE).map(PathBuf::from);
    if python.is_none() {
        crate::skip(&format!("{VARIABLE} names no Python with the packages of tests/requirements.txt"));
    }
    python
}

/// A script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Runs a script of `tests/python` with these variables and `PATH` as its whole environment; what it printed.
///
/// # Panics
/// When it fails, with what it printed, or does not end.
pub async fn run_script(python: &Path, name: &str, variables: &[(&str, &str)]) -> String {
    run_python(python, &script(name), &[], variables).await
}

/// As [`run_script`], for a script anywhere, with arguments.
///
/// # Panics
/// As it does.
pub async fn run_python(
    python: &Path,
    script: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> String {
    let mut command = Command::new(python);
    command.arg(script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    // Settings of this machine's own S3 clients are no part of a test.
    command.env_clear().envs(variables.iter().copied()).env("PYTHONUTF8", "1");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let name = script.display();
    let output = tokio::time::timeout(2 * crate::PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} did not end"));
    let output = output.unwrap_or_else(|e| panic!("cannot run {name}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}:\n{text}", output.status);
    text.into_owned()
}
