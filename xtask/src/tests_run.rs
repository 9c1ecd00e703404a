//! `cargo xtask test`: every test of the workspace, unit, end-to-end and documentation tests.

use std::process::Command;

use crate::command::{self, build_binaries, cargo};
use crate::engine::{self, Engine};
use crate::{Profile, Result, python, setup};

/// Sets up, builds the binaries that end-to-end tests start, and runs `cargo test` with `arguments` (the whole
/// workspace when there are none). cargo's closing lines are the last thing printed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::build_tools()?;
    let python = python::TESTS.make()?.join("python3");
    // cargo builds a package's binaries for that package's own tests only, and the end-to-end tests are a
    // package of their own: they are told where the binaries are, or each would build its own. The
    // development profile is the tests' profile too, so nothing is built twice.
    let binaries = build_binaries(Profile::Dev)?;
    let engine = if engine::is_wanted(arguments) { Engine::find() } else { None };
    let mut test = test_command(arguments);
    if let Some(engine) = &engine {
        test.env(engine::VARIABLE, &engine.host);
    }
    test.env("SHEPHERD_BIN_DIR", binaries).env("SHEPHERD_TEST_PYTHON", python);
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        // A part that a test needs and CI lacks is a failure there, not a skip.
        test.env("SHEPHERD_TEST_NO_SKIP", "1");
    }
    command::run("running every test", &mut test)
}

fn test_command(arguments: &[String]) -> Command {
    let mut test = cargo();
    test.args(["test", "--locked"]);
    if arguments.is_empty() {
        test.args(["--workspace", "--no-fail-fast"]);
    } else {
        test.args(arguments);
    }
    test
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<&str> {
        command.get_args().filter_map(|word| word.to_str()).collect()
    }

    #[test]
    fn the_whole_workspace_is_tested_unless_a_part_is_named() {
        assert_eq!(words(&test_command(&[])), ["test", "--locked", "--workspace", "--no-fail-fast"]);
        let part = ["-p".to_owned(), "shepherd-job".to_owned()];
        assert_eq!(words(&test_command(&part)), ["test", "--locked", "-p", "shepherd-job"]);
    }
}
