//! Virtual environments: Python packages that stay inside the target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, succeeds};
use crate::setup::{self, Need};
use crate::{Result, root, target_dir};

const PYTHON: &[Need] = &[
    Need {
        what: "Python 3",
        why: "the demo's model, the tests' S3 servers and clients and the packages for models are Python programs",
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
pub(crate) struct Environment<'a> {
    /// What they are, to go after "installing".
    pub(crate) what: &'a str,
    /// The Python that they are for: a name on `PATH`, or a path.
    pub(crate) python: &'a str,
    /// Where below the target directory.
    pub(crate) folder: &'a str,
    /// The files that name every package that is needed.
    pub(crate) requirements: &'a [&'a str],
    /// A package of ours, which is then used as it lies in the tree.
    pub(crate) ours: Option<&'a str>,
    /// What must load before they count as installed.
    pub(crate) imports: &'a str,
}

/// The demo's model.
pub(crate) const DEMO: Environment<'static> = Environment {
    what: "the text recognition",
    python: "python3",
    folder: "demo/venv",
    requirements: &["examples/demo/requirements.txt"],
    ours: None,
    imports: "rapidocr_onnxruntime",
};

/// S3 servers and clients that others wrote.
pub(crate) const TESTS: Environment<'static> = Environment {
    what: "the S3 servers and clients and the ZeroMQ of the tests",
    python: "python3",
    folder: "test-python",
    requirements: &["tests/requirements.txt"],
    ours: None,
    imports: "awscli, boto3, minio, moto.server, moto.s3.responses, moto.iam, zmq",
};

/// Installs Python, where it is missing.
pub(crate) fn install() -> Result<()> {
    setup::install_missing(PYTHON)
}

impl Environment<'_> {
    /// Makes the environment, or takes the one that an earlier run finished with the same requirements.
    ///
    /// Returns its directory of programs, to be put first on a PATH; `python3` is one of them.
    ///
    /// # Errors
    /// Python cannot be installed, or a package cannot be downloaded.
    pub(crate) fn make(&self) -> Result<PathBuf> {
        install()?;
        let wanted = self.wanted()?;
        let folder = target_dir().join(self.folder);
        let programs = folder.join("bin");
        let python = programs.join("python3");
        // Written last, so an interrupted installation is done again.
        let stamp = folder.join("requirements.installed");
        let imports = ["-c", &format!("import {}", self.imports)];
        // Another run may share the target directory. The lock ends with the process, at the latest.
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let lock = target_dir().join(format!("{}.lock", self.folder));
        let lock = File::create(&lock).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(|error| format!("cannot lock {}: {error}", folder.display()))?;
        let is_current = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
        if is_current && succeeds(&python, &imports) {
            command::step(&format!("using {} of an earlier run", self.what));
            return Ok(programs);
        }
        let mut create = Command::new(self.python);
        create.args(["-m", "venv", "--clear"]).arg(&folder);
        command::run_quietly(&format!("making a Python environment for {}", self.what), &mut create)?;
        let mut install = pip_install(&python);
        for file in self.requirements {
            install.arg("-r").arg(root().join(file));
        }
        command::run_quietly(&format!("installing {}", self.what), &mut install)?;
        if let Some(ours) = self.ours {
            // What builds it is among the requirements.
            let mut install = pip_install(&python);
            install.args(["--no-build-isolation", "--editable"]).arg(root().join(ours));
            command::run_quietly(&format!("installing {ours}"), &mut install)?;
        }
        let mut import = Command::new(&python);
        import.args(imports);
        command::run_quietly(&format!("loading {} once", self.what), &mut import)?;
        fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
        Ok(programs)
    }

    /// All that says what is to be in it.
    fn wanted(&self) -> Result<String> {
        let project = self.ours.map(|ours| format!("{ours}/pyproject.toml"));
        let version = Command::new(self.python).arg("--version").output();
        let version = version.map_err(|error| format!("cannot run {}: {error}", self.python))?;
        // A system's upgrade changes the first, and a package of ours is used where it lies.
        let mut wanted = format!("{}{}\n", String::from_utf8_lossy(&version.stdout), root().display());
        for file in self.requirements.iter().copied().chain(project.as_deref()) {
            let path = root().join(file);
            let text = fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            wanted.push_str(&text);
        }
        Ok(wanted)
    }
}

/// The requirements name every package that is needed, so pip resolves nothing: the metadata of some asks for
/// more than is used (a display's libraries, every service of a cloud), or refuses Pythons that they run on.
fn pip_install(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--ignore-requires-python"]);
    pip
}
