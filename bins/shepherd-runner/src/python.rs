//! Models that a Python class serves: this program becomes the Python runner.
//!
//! The process stays the same, so that whoever started it watches and ends the
//! right one, and what it was told by its environment is told to the other.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command of the Python package, looked for on `PATH`.
const PROGRAM: &str = "shepherd-runner-py";
/// The package's module, for an interpreter that was named.
const MODULE: &str = "shepherd_runner";

/// How the Python runner is started.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Python {
    /// The class that serves the model, as runner.yaml names it.
    pub(crate) class: Option<String>,
    /// The interpreter that has the package; a name is looked for on `PATH`.
    pub(crate) interpreter: Option<PathBuf>,
    /// Where it runs, if not here; absolute.
    pub(crate) cwd: Option<PathBuf>,
    /// What is added to its environment.
    pub(crate) env: BTreeMap<String, String>,
}

impl Python {
    /// Becomes the runner; returns only if that fails, with the reason. The class
    /// `default` serves a model that names none, and for want of that one of the runner's.
    pub(crate) fn become_runner(
        self,
        port: u16,
        stream: &str,
        default: Option<&str>,
        config: &Path,
    ) -> anyhow::Error {
        let mut command = match &self.interpreter {
            Some(interpreter) => {
                let mut command = Command::new(interpreter);
                command.args(["-m", MODULE]);
                command
            }
            None => Command::new(PROGRAM),
        };
        command.args(["-p", &port.to_string(), "-s", stream]);
        // The runner reads little YAML by itself: what was read here it need not read.
        match (&self.class, default) {
            (Some(class), _) => {
                command.args(["--class", class]);
            }
            (None, Some(class)) => {
                command.args(["-r", class]);
            }
            (None, None) => {}
        }
        command.arg("--").arg(config).envs(&self.env);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let error = command.exec();
        let program = command.get_program().to_string_lossy();
        let what = match self.class.as_deref().or(default) {
            Some(class) => format!("the class `{class}` is served by the Python package `shepherd-runner`"),
            None => format!(
                "there is no `{}` that names a `command` or a `class`, so that the model is one for the Python \
                 package `shepherd-runner`",
                config.with_file_name("runner.yaml").display()
            ),
        };
        if error.kind() != ErrorKind::NotFound {
            return anyhow::anyhow!("{what}: cannot run `{program}`: {error}");
        }
        anyhow::anyhow!(
            "{what}, and there is no `{program}`: install the package, or name the `python` that has it in \
             runner.yaml"
        )
    }
}
