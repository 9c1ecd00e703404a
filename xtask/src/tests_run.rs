//! `cargo xtask test`: every test of the workspace, unit, end-to-end and documentation tests, and those of the Python
//! packages.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use crate::command::{self, build_binaries, cargo};
use crate::engine::{self, Engine};
use crate::{Profile, Result, packages, python, setup, simulate};

/// Sets up, builds the binaries that end-to-end tests start, and runs `cargo test` with `arguments`. Without any it
/// is everything: the whole workspace, and before it the Python packages. cargo's closing lines are the last thing
/// printed. Where only some packages of the workspace are tested, what they do not use is not made.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let everything = arguments.is_empty();
    // A part that a test needs and CI lacks is a failure there, not a skip.
    let no_skip = std::env::var_os("CI").is_some_and(|value| value == "true");
    setup::build_tools()?;
    // cargo builds a package's binaries for that package's own tests only, and the end-to-end tests are a
    // package of their own: they are told where the binaries are, or each would build its own. The
    // development profile is the tests' profile too, so nothing is built twice. What Python needs is
    // downloaded meanwhile.
    let (binaries, environments) = thread::scope(|scope| {
        let is_wanted = tests_any(arguments, &[END_TO_END]);
        let environments = is_wanted
            .then(|| scope.spawn(|| Environments::make(everything).map_err(|error| error.to_string())));
        (build_binaries(Profile::Dev), environments.map(|thread| thread.join().expect("no step panics")))
    });
    let binaries = binaries?;
    let environments = match environments.transpose() {
        Ok(environments) => environments,
        Err(reason) if no_skip => return Err(reason.into()),
        Err(reason) => {
            println!("left out: all that needs Python, because {reason}");
            None
        }
    };

    let mut test = test_command(arguments);
    test.env("SHEPHERD_BIN_DIR", &binaries);
    if everything && std::env::var_os(simulate::SEEDS).is_none() {
        test.env(simulate::SEEDS, simulate::SEEDS_OF_ALL_TESTS);
    }
    if no_skip {
        test.env("SHEPHERD_TEST_NO_SKIP", "1");
    }
    let mut packages = Ok(());
    if let Some(Environments { tests, suites }) = environments {
        test.env("SHEPHERD_TEST_PYTHON", tests.join("python3")).envs(packages::variables(&suites)?);
        if everything {
            packages = packages::test(suites, &binaries, no_skip);
        }
    }
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

/// The package whose tests start programs in Python.
const END_TO_END: &str = "shepherd-tests";

/// What Python needs.
struct Environments {
    /// The programs of the end-to-end tests' own.
    tests: PathBuf,
    suites: Vec<packages::Ready>,
}

impl Environments {
    /// Makes those of all suites, or of those that the end-to-end tests use, too.
    fn make(everything: bool) -> Result<Self> {
        python::install()?;
        let mut suites = packages::suites()?;
        if !everything {
            suites.retain(packages::Suite::serves_others);
        }
        Ok(Self { tests: python::TESTS.make()?, suites: packages::make(suites)? })
    }
}

/// Whether `cargo test` with these arguments tests one of these packages.
pub(crate) fn tests_any(arguments: &[String], of: &[&str]) -> bool {
    let mut words = arguments.iter().map(String::as_str).take_while(|word| *word != "--");
    let mut packages = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "-p" | "--package" => packages.extend(words.next()),
            _ => packages.extend(word.strip_prefix("--package=").or_else(|| word.strip_prefix("-p"))),
        }
    }
    packages.is_empty() || packages.iter().any(|package| of.contains(package))
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
