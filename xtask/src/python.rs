//! Virtual environments: Python packages that stay inside the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, succeeds};
use crate::setup::{self, Need};
use crate::{Result, root, target_dir};

const PYTHON: &[Need] = &[
    Need {
        what: "Python 3",
        why: "the demo's model and the tests' S3 servers and clients are Python programs",
        packages: &["python3"],
        is_present: || succeeds("python3", &["--version"]),
    },
    Need {
        what: "Python's venv module",
        why: "Python packages go into an environment of their own",
        packages: &["python3-venv"],
        // Debian ships `venv` without the `ensurepip` that it needs.
        is_present: || succeeds("python3", &["-c", "import venv, ensurepip"]),
    },
];

/// Packages that are installed together.
pub(crate) struct Environment {
    /// What they are, to go after "installing".
    what: &'static str,
    /// Where below the target directory.
    folder: &'static str,
    /// The file that names every package that is needed.
    requirements: &'static str,
    /// What must load before they count as installed.
    imports: &'static str,
}

/// The demo's model.
pub(crate) const DEMO: Environment = Environment {
    what: "the text recognition",
    folder: "demo/venv",
    requirements: "examples/demo/requirements.txt",
    imports: "rapidocr_onnxruntime",
};

/// S3 servers and clients that others wrote.
pub(crate) const TESTS: Environment = Environment {
    what: "the S3 servers and clients and the ZeroMQ of the tests",
    folder: "test-python",
    requirements: "tests/requirements.txt",
    imports: "awscli, boto3, minio, moto.server, moto.s3.responses, moto.iam, zmq",
};

impl Environment {
    /// Makes the environment, or takes the one that an earlier run finished with the same requirements.
    ///
    /// Returns its directory of programs, to be put first on a PATH; `python3` is one of them.
    ///
    /// # Errors
    /// Python cannot be installed, or a package cannot be downloaded.
    pub(crate) fn make(&self) -> Result<PathBuf> {
        setup::install_missing(PYTHON)?;
        let requirements = root().join(self.requirements);
        let wanted = fs::read_to_string(&requirements)
            .map_err(|error| format!("cannot read {}: {error}", requirements.display()))?;
        let folder = target_dir().join(self.folder);
        let programs = folder.join("bin");
        let python = programs.join("python3");
        // Written last, so an interrupted installation is done again.
        let stamp = folder.join("requirements.installed");
        let is_current = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
        if is_current && succeeds(&python, &["--version"]) {
            command::step(&format!("using {} of an earlier run", self.what));
            return Ok(programs);
        }
        let mut create = Command::new("python3");
        create.args(["-m", "venv", "--clear"]).arg(&folder);
        command::run_quietly("making a Python environment", &mut create)?;
        command::run_quietly(&format!("installing {}", self.what), &mut install(&python, &requirements))?;
        let mut import = Command::new(&python);
        import.args(["-c", &format!("import {}", self.imports)]);
        command::run_quietly(&format!("loading {} once", self.what), &mut import)?;
        fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
        Ok(programs)
    }
}

/// The requirements name every package that is needed, so pip resolves nothing: the metadata of some asks for
/// more than is used (a display's libraries, every service of a cloud), or refuses Pythons that they run on.
fn install(python: &Path, requirements: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--ignore-requires-python", "-r"]).arg(requirements);
    pip
}
