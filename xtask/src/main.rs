//! The commands of this workspace: `cargo xtask demo`, `cargo xtask test`, `cargo xtask simulate`,
//! `cargo xtask images`, `cargo xtask setup`.
//!
//! Each does all the set-up it needs on a Debian-like machine that has the Rust toolchain, Python 3 and root
//! (or sudo), and says what it installs and why. A step that fails ends the command with a message and exit
//! code 1; a wrong command line ends it with 2.
//!
//! Not here: anything a shell one-liner does (formatting, clippy, documentation and cargo-deny are in
//! `.ci/run`), and any dependency, because this is the first thing that is built on a fresh machine.

mod command;
mod demo;
mod engine;
mod images;
mod packages;
mod python;
mod pythons;
mod setup;
mod simulate;
mod tests_run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a command ends with: the message is for the person who ran it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup                   install what building needs, where it is missing (apt-get)
  demo [--debug]          build, start the daemon, run the demo's pictures through it, stop it;
                          --debug uses the development build instead of the release build
  images                  build the images of the daemon, of the runner and of an example model, without
                          internet; it takes a container engine
  test [CARGO TEST ARGS]  set up, build, and run every test of the workspace and of the Python packages;
                          arguments go to cargo test, and then it is the workspace alone
  simulate [--seeds N] [--from SEED]
                          run scenarios of the simulation of a whole shepherd, 2,000 by default
  simulate --seed SEED [--trace]
                          run one of them; --trace prints all that happens
";

/// How the daemon is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// Fast to run.
    Release,
    /// Shares its artifacts with the tests.
    Dev,
}

#[derive(Debug, PartialEq, Eq)]
enum Task {
    Setup,
    Demo(Profile),
    Images,
    Test(Vec<String>),
    Simulate(simulate::Simulate),
    Help,
}

fn parse(arguments: &[String]) -> Option<Task> {
    let (name, rest) = arguments.split_first()?;
    match (name.as_str(), rest) {
        ("setup", []) => Some(Task::Setup),
        ("demo", []) => Some(Task::Demo(Profile::Release)),
        ("demo", [flag]) if flag == "--debug" => Some(Task::Demo(Profile::Dev)),
        ("images", []) => Some(Task::Images),
        ("test", rest) => Some(Task::Test(rest.to_vec())),
        ("simulate", rest) => simulate::Simulate::parse(rest).map(Task::Simulate),
        ("help" | "--help" | "-h", []) => Some(Task::Help),
        _ => None,
    }
}

/// The root of the workspace, wherever the command was started.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the xtask is a member of the workspace")
}

/// Where cargo puts what it builds, and the demo its files.
fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match parse(&arguments) {
        Some(Task::Setup) => setup::build_tools(),
        Some(Task::Demo(profile)) => demo::run(profile),
        Some(Task::Images) => images::run(),
        Some(Task::Test(arguments)) => tests_run::run(&arguments),
        Some(Task::Simulate(which)) => simulate::run(&which),
        Some(Task::Help) => {
            print!("{USAGE}");
            Ok(())
        }
        None => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Option<Task> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_is_understood() {
        assert_eq!(parse_line("setup"), Some(Task::Setup));
        assert_eq!(parse_line("demo"), Some(Task::Demo(Profile::Release)));
        assert_eq!(parse_line("demo --debug"), Some(Task::Demo(Profile::Dev)));
        assert_eq!(parse_line("images"), Some(Task::Images));
        let expected = vec!["-p".to_owned(), "shepherd-job".to_owned()];
        assert_eq!(parse_line("test -p shepherd-job"), Some(Task::Test(expected)));
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        let lines =
            ["", "build", "demo --fast", "demo --debug twice", "images now", "setup now", "simulate now"];
        for line in lines {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
