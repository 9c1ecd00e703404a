//! The Python runner of this repository, installed beside the demo's model.

use std::path::Path;
use std::process::Command;

use crate::{Result, command};

/// Installs `python/runner` into the environment whose programs are in `programs`, again at each run, so that it
/// is never that of an earlier state of the repository. What it needs is there already
/// (`examples/demo/requirements.txt`), so nothing is downloaded.
///
/// # Errors
/// It cannot be built or installed.
pub(super) fn install(programs: &Path) -> Result<()> {
    let mut pip = Command::new(programs.join("python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--force-reinstall"]);
    pip.args(["--no-index", "--no-deps", "--no-build-isolation", "./python/runner"]);
    command::run_quietly("installing this repository's Python runner", &mut pip)
}
