//! Running other programs, with a line that says what runs and a message when it fails.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use crate::{Profile, Result, root, target_dir};

/// Announces a step, so that a long run can be followed and its log be searched.
pub(crate) fn step(what: &str) {
    println!("==> {what}");
}

/// Runs a command in the root of the workspace, its output going to ours, and fails unless it exits with 0.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let started = begin(what, command);
    let status = command.status().map_err(|error| cannot_start(what, command, &error))?;
    end(what, command, started, status)
}

/// Like [`run`], for programs whose output matters only when they fail: it is shown then.
pub(crate) fn run_quietly(what: &str, command: &mut Command) -> Result<()> {
    let started = begin(what, command);
    let output = command.output().map_err(|error| cannot_start(what, command, &error))?;
    if !output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    end(what, command, started, output.status)
}

/// Like [`run_quietly`], for tests: the last line of their output, which sums them up, is shown in any case.
pub(crate) fn run_summed_up(what: &str, command: &mut Command) -> Result<()> {
    let started = begin(what, command);
    let output = command.output().map_err(|error| cannot_start(what, command, &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        println!("    {what}: {}", text.trim_end().lines().last().unwrap_or("no output"));
    } else {
        print!("{text}");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    end(what, command, started, output.status)
}

fn begin(what: &str, command: &mut Command) -> Instant {
    step(what);
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    Instant::now()
}

fn cannot_start(what: &str, command: &Command, error: &std::io::Error) -> String {
    format!("{what}: cannot start {}: {error}", program(command))
}

fn end(what: &str, command: &Command, started: Instant, status: ExitStatus) -> Result<()> {
    if !status.success() {
        return Err(format!("{what}: {} ended with {status}", program(command)).into());
    }
    // Named again: several may run at the same time.
    println!("    {what}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Whether a command can be started and exits with 0; its output goes nowhere.
pub(crate) fn succeeds(program: impl AsRef<OsStr>, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// The cargo that runs this program, so that both use one toolchain.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds the binaries that the demo and the end-to-end tests start, and returns the directory they are in.
///
/// The development build selects what `cargo test` selects: with fewer packages the features of shared
/// dependencies would differ, and each would be built twice.
pub(crate) fn build_binaries(profile: Profile) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked", "--bins"]);
    let folder = match profile {
        Profile::Release => {
            build.args(["--release", "-p", "shepherd", "-p", "shepherd-runner-bin"]);
            "release"
        }
        Profile::Dev => {
            build.args(["--workspace", "--tests"]);
            "debug"
        }
    };
    run("building shepherd and shepherd-runner", &mut build)?;
    Ok(target_dir().join(folder))
}

fn program(command: &Command) -> String {
    Path::new(command.get_program()).display().to_string()
}
