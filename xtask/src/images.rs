//! `cargo xtask images`: the images of this project, built from what this machine has.

use std::process::Command;

use crate::command::{self, build_binaries, succeeds};
use crate::{Profile, Result, engine, root, setup};

/// Builds the release binaries and, with `docker/build-local`, the images of them.
pub(crate) fn run() -> Result<()> {
    setup::build_tools()?;
    setup::install_missing(&[engine::SHELL])?;
    if !succeeds("docker", &["version"]) {
        return Err("no container engine answers: `docker version` says why".into());
    }
    let programs = build_binaries(Profile::Release)?;
    let mut build = Command::new(root().join("docker/build-local"));
    command::run("building the images", build.arg(programs))
}
