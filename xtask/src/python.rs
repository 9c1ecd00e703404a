//! The virtual environment of the demo's model: Python packages that stay inside the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, succeeds};
use crate::setup::{self, Need};
use crate::{Result, root, target_dir};

const REQUIREMENTS: &str = "examples/demo/requirements.txt";

const PYTHON: &[Need] = &[
    Need {
        what: "Python 3",
        why: "the demo's model is a Python program",
        packages: &["python3"],
        is_present: || succeeds("python3", &["--version"]),
    },
    Need {
        what: "Python's venv module",
        why: "the demo's model has an environment of its own",
        packages: &["python3-venv"],
        // Debian ships `venv` without the `ensurepip` that it needs.
        is_present: || succeeds("python3", &["-c", "import venv, ensurepip"]),
    },
];

/// Makes the environment, or takes the one that an earlier run finished with the same requirements.
///
/// Returns its directory of programs, to be put first on a PATH.
///
/// # Errors
/// Python cannot be installed, or a package cannot be downloaded.
pub(crate) fn environment() -> Result<PathBuf> {
    setup::install_missing(PYTHON)?;
    let requirements = root().join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements)
        .map_err(|error| format!("cannot read {}: {error}", requirements.display()))?;
    let environment = target_dir().join("demo/venv");
    let programs = environment.join("bin");
    let python = programs.join("python3");
    // Written last, so an interrupted installation is done again.
    let stamp = environment.join("requirements.installed");
    let is_current = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
    if is_current && succeeds(&python, &["--version"]) {
        command::step("using the Python environment of an earlier run");
        return Ok(programs);
    }
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&environment);
    command::run_quietly("making a Python environment", &mut create)?;
    command::run_quietly("installing the text recognition", &mut install(&python, &requirements))?;
    let mut import = Command::new(&python);
    import.args(["-c", "import rapidocr_onnxruntime"]);
    command::run_quietly("loading the text recognition once", &mut import)?;
    fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
    Ok(programs)
}

/// The requirements name every package that is needed, so pip resolves nothing: the recogniser's own metadata
/// asks for the OpenCV that needs a display's libraries, and refuses Pythons that it runs on.
fn install(python: &Path, requirements: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--ignore-requires-python", "-r"]).arg(requirements);
    pip
}
