//! What is run: the program, its arguments and its environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::Access;
use shepherd_job::ModelRef;

use super::process::MARK;
use super::{BareOptions, Transport};
use crate::SheepError;
use crate::token::{self, Token};

/// Variables of the daemon that configure it; they may hold secrets.
const CONFIGURATION: &str = "SHEPHERD__";

/// The command of one run, without its output. Checks that the model and the
/// program are there.
pub(super) fn command(
    options: &BareOptions,
    model: &ModelRef,
    endpoint: &str,
    token: &Token,
    run: &str,
) -> Result<Command, SheepError> {
    let environment = environment(std::env::vars_os(), options, model, endpoint, token, run);
    let path = environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
    let (program, arguments) = program(options, path)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg("-p")
        .arg(options.port.to_string())
        .arg(config_path(model))
        .current_dir(&options.working_directory)
        .env_clear()
        .envs(environment);
    Ok(command)
}

/// The program, looked for along `path`, and its first arguments.
fn program<'o>(
    options: &'o BareOptions,
    path: Option<&OsStr>,
) -> Result<(PathBuf, &'o [String]), SheepError> {
    let (name, arguments) = options
        .runner_command
        .split_first()
        .ok_or_else(|| SheepError::Misconfigured("the runner command is empty".to_owned()))?;
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    Ok((find(name, options, beside, path)?, arguments))
}

/// Checks what a runner of any model needs: the working directory and the program.
pub(super) fn check(options: &BareOptions) -> Result<(), SheepError> {
    if !options.working_directory.is_dir() {
        return Err(no_working_directory(options));
    }
    check_program(options)
}

/// Checks that the program is there.
pub(super) fn check_program(options: &BareOptions) -> Result<(), SheepError> {
    let own = options.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsString::from(value));
    let path = own.or_else(|| std::env::var_os("PATH"));
    program(options, path.as_deref()).map(drop)
}

fn no_working_directory(options: &BareOptions) -> SheepError {
    let directory = options.working_directory.display();
    SheepError::Misconfigured(format!("the working directory {directory} does not exist"))
}

/// Checks that the model is there. Its message reaches clients, which know it; they are told
/// the path below the working directory, for the rest is the machine's own business.
pub(super) fn check_model(options: &BareOptions, model: &ModelRef) -> Result<(), SheepError> {
    let path = config_path(model);
    let file = options.working_directory.join(&path);
    match std::fs::metadata(&file) {
        Ok(meta) if meta.is_file() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(SheepError::Misconfigured(format!("cannot look for {}: {e}", file.display())))
        }
        // That says nothing of a model: a file system that is not mounted, for one.
        Ok(_) | Err(_) if !options.working_directory.is_dir() => Err(no_working_directory(options)),
        Ok(_) | Err(_) => Err(SheepError::Model(format!(
            "Cannot load model `{model}`, file `{}` does not exist.",
            path.display()
        ))),
    }
}

/// Tells the state of the files that say what a model is from others: which they are, when
/// they were changed, and how long they are; none where that cannot be seen. Not of all that
/// the model may load: a runner may write beside them.
pub(super) fn model_stamp(options: &BareOptions, model: &ModelRef) -> Option<u64> {
    let config = options.working_directory.join(config_path(model));
    let state = |meta: Metadata| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    let runner = match std::fs::metadata(config.with_file_name("runner.yaml")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return None,
        found => found.ok().map(state),
    };
    let mut hasher = DefaultHasher::new();
    (state(std::fs::metadata(config).ok()?), runner).hash(&mut hasher);
    Some(hasher.finish())
}

/// `NAME/VERSION/config.yaml`, or `NAME/config.yaml` when the version is empty.
pub(super) fn config_path(model: &ModelRef) -> PathBuf {
    // A runner would take a path that begins with a hyphen for an option.
    let mut path = PathBuf::from(if model.name().starts_with('-') { "./" } else { "" });
    path.push(model.name());
    if !model.version().is_empty() {
        path.push(model.version());
    }
    path.push("config.yaml");
    path
}

/// Finds the program. A name is looked for in `beside` and then along `path`, or the other
/// way round; what has a slash is found as seen from the working directory.
fn find(
    name: &str,
    options: &BareOptions,
    beside: Option<PathBuf>,
    path: Option<&OsStr>,
) -> Result<PathBuf, SheepError> {
    let working_directory = &options.working_directory;
    let directories: Vec<PathBuf> = if name.contains('/') {
        vec![working_directory.clone()]
    } else {
        // An empty element of PATH is the working directory: nobody means that here.
        let path = path.into_iter().flat_map(std::env::split_paths).filter(|dir| !dir.as_os_str().is_empty());
        match options.transport {
            Transport::Ipc => beside.into_iter().chain(path).collect(),
            Transport::Tcp => path.chain(beside).collect(),
        }
    };
    let found = directories
        .iter()
        .map(|dir| dir.join(name))
        .find(|program| program.is_file() && rustix::fs::access(program, Access::EXEC_OK).is_ok());
    match found {
        // The child looks for it from another directory.
        Some(program) => std::path::absolute(&program)
            .map_err(|e| SheepError::Misconfigured(format!("cannot resolve {}: {e}", program.display()))),
        None if name.contains('/') => Err(SheepError::Misconfigured(format!(
            "the runner {} does not exist or is not executable",
            working_directory.join(name).display()
        ))),
        None => {
            let places: Vec<String> = directories.iter().map(|dir| dir.display().to_string()).collect();
            let places =
                if places.is_empty() { "nowhere, for PATH is empty".to_owned() } else { places.join(", ") };
            Err(SheepError::Misconfigured(format!("cannot find the runner `{name}`; looked in {places}")))
        }
    }
}

fn environment(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    options: &BareOptions,
    model: &ModelRef,
    endpoint: &str,
    token: &Token,
    run: &str,
) -> BTreeMap<OsString, OsString> {
    let is_withheld = |name: &OsStr| {
        let text = name.to_string_lossy();
        // The configuration reads its variables without regard to case.
        text.get(..CONFIGURATION.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONFIGURATION))
            || options.withheld_env.iter().any(|withheld| name == OsStr::new(withheld))
    };
    let mut environment: BTreeMap<_, _> = inherited.filter(|(name, _)| !is_withheld(name)).collect();
    environment.extend(options.env.iter().map(|(name, value)| (name.into(), value.into())));
    let ours = [
        ("CUDA_VISIBLE_DEVICES", visible_gpus(&options.devices)),
        ("SHEPHERD_LISTEN", endpoint.to_owned()),
        (token::VARIABLE, token.as_str().to_owned()),
        ("SHEPHERD_SHEEP", options.id.to_string()),
        ("SHEPHERD_MODEL", model.to_string()),
        (MARK, run.to_owned()),
    ];
    environment.extend(ours.map(|(name, value)| (name.into(), value.into())));
    environment
}

/// The numbers of `/dev/nvidiaN` devices, joined by commas.
fn visible_gpus(devices: &[String]) -> String {
    let numbers: Vec<&str> = devices
        .iter()
        .filter_map(|device| device.strip_prefix("/dev/nvidia"))
        .filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    numbers.join(",")
}

#[cfg(test)]
mod tests;
