//! The Python packages below `python/`, and how they are tested: on the oldest and on the newest Python of this
//! machine, against the daemon's development build, and with the frameworks that the first shepherd's models use.
//!
//! Every directory there that has a `requirements-test.txt` takes part. What this machine has no Python for is left
//! out, and said.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::python::Environment;
use crate::pythons::{self, Python};
use crate::{Result, command, root, target_dir};

/// The package that runners in Python need.
const RUNNER: &str = "python/runner";

/// What the models of the first shepherd need, and where it is said which packages those are.
const FRAMEWORKS: [&str; 2] = [TUTORIAL, "emloop"];
/// The one of the tutorial's first job.
const TUTORIAL: &str = "cxflow";
/// Their packages are pinned for this version of Python: cxflow runs on no later one.
const FRAMEWORKS_MINOR: u32 = 11;

/// A package's tests in an environment of their own.
pub(crate) struct Suite {
    what: String,
    python: String,
    folder: String,
    package: String,
    requirements: Vec<String>,
    /// Types are checked too.
    lint: bool,
    framework: Option<&'static str>,
}

/// A suite whose environment is there.
pub(crate) struct Ready {
    suite: Suite,
    python: PathBuf,
}

/// All suites that this machine has a Python for.
pub(crate) fn suites() -> Result<Vec<Suite>> {
    let pythons = pythons::find();
    let Some((oldest, newest)) = pythons.first().zip(pythons.last()) else {
        return Err(
            "the Python packages are for Python 3.8 to 3.13, and this machine has none of them".into()
        );
    };
    let mut suites = Vec::new();
    for package in packages()? {
        suites.push(Suite::new(&package, oldest, oldest == newest));
        if oldest == newest {
            println!("left out: {package} with another Python than 3.{}, the only one here", oldest.minor);
        } else {
            suites.push(Suite::new(&package, newest, true));
        }
    }
    match pythons.iter().find(|python| python.minor == FRAMEWORKS_MINOR) {
        Some(python) => suites.extend(FRAMEWORKS.map(|name| Suite::with_framework(name, python))),
        None => println!(
            "left out: the example models with {}, because no Python 3.{FRAMEWORKS_MINOR} is here",
            FRAMEWORKS.join(" and ")
        ),
    }
    Ok(suites)
}

/// The packages' directories, from the root of the workspace.
fn packages() -> Result<Vec<String>> {
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(root().join("python"))? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str()
            && entry.path().join("requirements-test.txt").is_file()
        {
            packages.push(format!("python/{name}"));
        }
    }
    packages.sort_unstable();
    Ok(packages)
}

impl Suite {
    fn new(package: &str, python: &Python, lint: bool) -> Self {
        let minor = python.minor;
        let mut requirements = vec![format!("{package}/requirements-test.txt")];
        let lint_requirements = format!("{package}/requirements-lint.txt");
        let lint = lint && root().join(&lint_requirements).is_file();
        if lint {
            requirements.push(lint_requirements);
        }
        Self {
            what: format!("{package} with Python 3.{minor}"),
            python: python.program.clone(),
            folder: format!("{package}-3.{minor}"),
            package: package.to_owned(),
            requirements,
            lint,
            framework: None,
        }
    }

    fn with_framework(name: &'static str, python: &Python) -> Self {
        let requirements = ["test", name].map(|kind| format!("{RUNNER}/requirements-{kind}.txt"));
        Self {
            what: format!("the example models with {name}"),
            folder: format!("{RUNNER}-{name}"),
            requirements: requirements.into(),
            lint: false,
            framework: Some(name),
            ..Self::new(RUNNER, python, false)
        }
    }

    /// Makes its environment, or takes that of an earlier run.
    fn make(self) -> Result<Ready> {
        let requirements: Vec<&str> = self.requirements.iter().map(String::as_str).collect();
        let environment = Environment {
            what: &self.what,
            python: &self.python,
            folder: &self.folder,
            requirements: &requirements,
            ours: Some(&self.package),
            imports: self.framework.unwrap_or("pytest"),
        };
        let python = environment.make()?.join("python3");
        Ok(Ready { suite: self, python })
    }

    /// Whether the end-to-end tests start programs of its environment.
    pub(crate) fn serves_others(&self) -> bool {
        self.is_runner() || self.framework == Some(TUTORIAL)
    }

    /// Whether its environment is that of a runner in Python, without more.
    fn is_runner(&self) -> bool {
        self.package == RUNNER && self.framework.is_none()
    }
}

/// Makes the suites' environments side by side: most of it is waiting for downloads.
pub(crate) fn make(suites: Vec<Suite>) -> Result<Vec<Ready>> {
    // An error of ours does not travel between threads; its text does.
    in_parallel(suites, |suite| suite.make().map_err(|error| error.to_string()))
        .into_iter()
        .map(|made| made.map_err(Into::into))
        .collect()
}

/// What tells the end-to-end tests which interpreters can run runners: the variables and their values.
pub(crate) fn variables(suites: &[Ready]) -> Result<Vec<(&'static str, OsString)>> {
    let runners: Vec<&PathBuf> =
        suites.iter().filter(|ready| ready.suite.is_runner()).map(|ready| &ready.python).collect();
    let tutorial = suites.iter().find(|ready| ready.suite.framework == Some(TUTORIAL));
    let mut variables = Vec::new();
    if !runners.is_empty() {
        // The oldest first.
        variables.push(("SHEPHERD_TEST_RUNNER_PYTHONS", std::env::join_paths(runners)?));
    }
    variables.extend(tutorial.map(|ready| ("SHEPHERD_TEST_CXFLOW", ready.python.clone().into_os_string())));
    Ok(variables)
}

/// Runs the suites side by side: most of it is waiting for processes. All of them are run, also after one that fails.
pub(crate) fn test(suites: Vec<Ready>, binaries: &Path, no_skip: bool) -> Result<()> {
    let failed: Vec<String> = in_parallel(suites, |ready| ready.test(binaries, no_skip))
        .into_iter()
        .filter_map(std::result::Result::err)
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

impl Ready {
    fn test(self, binaries: &Path, no_skip: bool) -> std::result::Result<(), String> {
        let package = root().join(&self.suite.package);
        let mut test = Command::new(&self.python);
        test.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).current_dir(&package);
        test.env("SHEPHERD_BIN", binaries.join("shepherd"));
        test.env("SHEPHERD_RUNNER_BIN", binaries.join("shepherd-runner"));
        if no_skip {
            test.env("SHEPHERD_TEST_NO_SKIP", "1");
        }
        if let Some(name) = self.suite.framework {
            test.args(["tests/test_frameworks.py", "-k", name]).env("SHEPHERD_TEST_FRAMEWORK", name);
        }
        let tested = command::run_summed_up(&format!("testing {}", self.suite.what), &mut test);
        let linted = if self.suite.lint {
            let mut lint = Command::new(&self.python);
            lint.args(["-m", "mypy", "--cache-dir"]).arg(target_dir().join(&self.suite.folder).join("mypy"));
            command::run_summed_up(
                &format!("checking the types of {}", self.suite.package),
                lint.current_dir(package),
            )
        } else {
            Ok(())
        };
        tested.and(linted).map_err(|error| error.to_string())
    }
}

/// Does something with each at the same time; the outcomes in their order.
fn in_parallel<T: Send, R: Send>(items: Vec<T>, action: impl Fn(T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let action = &action;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || action(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no step panics")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_s_package_is_among_those_tested() {
        assert!(packages().unwrap().iter().any(|package| package == RUNNER));
    }

    #[test]
    fn a_framework_has_an_environment_of_its_own() {
        let python = Python { minor: FRAMEWORKS_MINOR, program: "python3".to_owned() };
        let plain = Suite::new(RUNNER, &python, true);
        for name in FRAMEWORKS {
            let suite = Suite::with_framework(name, &python);
            assert_ne!(suite.folder, plain.folder);
            assert!(
                suite.requirements.iter().all(|file| root().join(file).is_file()),
                "{:?}",
                suite.requirements
            );
            assert!(plain.is_runner() && !suite.is_runner());
        }
    }

    #[test]
    fn outcomes_keep_the_order_of_what_they_are_of() {
        assert_eq!(
            in_parallel((0..20).collect(), |number| number * 2),
            (0..20).map(|n| n * 2).collect::<Vec<_>>()
        );
    }
}
