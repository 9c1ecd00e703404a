//! `cargo xtask test`: every test of the workspace, unit, end-to-end and documentation tests, and those of the Python
//! packages.

use std::process::Command;
use std::thread;

use crate::command::{self, build_binaries, cargo};
use crate::engine::{self, Engine};
use crate::{Profile, Result, packages, python, setup};

/// Sets up, builds the binaries that end-to-end tests start, and runs `cargo test` with `arguments`. Without any it
/// is everything: the whole workspace, and before it the Python packages. cargo's closing lines are the last thing
/// printed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let everything = arguments.is_empty();
    setup::build_tools()?;
    python::install()?;
    let mut suites = packages::suites()?;
    if !everything {
        // The end-to-end tests use them, too.
        suites.retain(packages::Suite::serves_others);
    }
    // cargo builds a package's binaries for that package's own tests only, and the end-to-end tests are a
    // package of their own: they are told where the binaries are, or each would build its own. The
    // development profile is the tests' profile too, so nothing is built twice. What Python needs is
    // downloaded meanwhile.
    let (binaries, environments) = thread::scope(|scope| {
        let environments = scope.spawn(|| {
            let tests = python::TESTS.make().map_err(|error| error.to_string())?;
            let suites = packages::make(suites).map_err(|error| error.to_string())?;
            Ok::<_, String>((tests, suites))
        });
        (build_binaries(Profile::Dev), environments.join().expect("no step panics"))
    });
    let (binaries, (tests, suites)) = (binaries?, environments?);
    // A part that a test needs and CI lacks is a failure there, not a skip.
    let no_skip = std::env::var_os("CI").is_some_and(|value| value == "true");

    let mut test = test_command(arguments);
    test.env("SHEPHERD_BIN_DIR", &binaries).env("SHEPHERD_TEST_PYTHON", tests.join("python3"));
    test.envs(packages::variables(&suites)?);
    if no_skip {
        test.env("SHEPHERD_TEST_NO_SKIP", "1");
    }
    let packages = if everything { packages::test(suites, &binaries, no_skip) } else { Ok(()) };
    let engine = if engine::is_wanted(arguments) { Engine::find() } else { None };
    if let Some(engine) = &engine {
        test.env(engine::VARIABLE, &engine.host);
    }
    let workspace = command::run("running every test", &mut test);
    match (packages, workspace) {
        (Err(packages), Err(workspace)) => Err(format!("{packages}; {workspace}").into()),
        (packages, workspace) => packages.and(workspace),
    }
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
