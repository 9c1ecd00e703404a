//! `runner.yaml`, which lies beside the model's configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// Why a class is refused.
pub(crate) const NO_CLASSES: &str = "Python runner classes need a Python runner; \
    set the sheep's `runner_command` to one, or give a `command` in runner.yaml";

/// What to run for each job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The program and its arguments, with placeholders.
    pub(crate) command: Vec<String>,
    /// Where it runs; absolute.
    pub(crate) cwd: PathBuf,
    /// What is added to its environment.
    pub(crate) env: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    runner: Section,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    command: Option<Vec<String>>,
    class: Option<String>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the `runner.yaml` in the directory of `config`, an absolute path.
    pub(crate) fn read_beside(config: &Path) -> anyhow::Result<Self> {
        let directory = config.parent().unwrap_or(Path::new("/"));
        let path = directory.join("runner.yaml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => anyhow::bail!(
                "there is no `{}`; it says what to run, such as \
                 `runner: {{command: [\"./program\", \"{{inputs}}\", \"{{outputs}}\"]}}`",
                path.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        Self::parse(&text, directory).with_context(|| format!("in `{}`", path.display()))
    }

    fn parse(text: &str, directory: &Path) -> anyhow::Result<Self> {
        let File { runner: Section { command, class, cwd, env } } = serde_saphyr::from_str(text)?;
        let command = match (command, class) {
            (Some(command), None) => command,
            (Some(_), Some(_)) => anyhow::bail!("`runner` must have a `command` or a `class`, not both"),
            (None, Some(class)) => anyhow::bail!("cannot load the runner class `{class}`: {NO_CLASSES}"),
            (None, None) => anyhow::bail!("`runner` must have a `command`"),
        };
        anyhow::ensure!(
            command.first().is_some_and(|program| !program.is_empty()),
            "`runner.command` must begin with a program"
        );
        anyhow::ensure!(
            command.iter().chain(env.values()).all(|text| !text.contains('\0')),
            "`runner` must not hold NUL characters"
        );
        for name in env.keys() {
            anyhow::ensure!(
                !name.is_empty() && !name.contains(['=', '\0']),
                "`runner.env` has a name that no variable can have: `{}`",
                name.escape_default()
            );
        }
        let cwd = cwd.map_or_else(|| directory.to_path_buf(), |cwd| directory.join(cwd));
        anyhow::ensure!(cwd.is_dir(), "`runner.cwd` is not a directory: `{}`", cwd.display());
        Ok(Self { command, cwd, env })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("/")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_command_runs_beside_its_settings() {
        let settings = parse("runner: {command: [prog, \"{inputs}\", 5]}").unwrap();
        assert_eq!(settings.command, ["prog", "{inputs}", "5"]);
        assert_eq!((settings.cwd.as_path(), settings.env.len()), (Path::new("/"), 0));
        let settings = parse("runner:\n  command: [a]\n  cwd: proc\n  env: {A: 1, B: 0x, C: no}\n").unwrap();
        assert_eq!(settings.cwd, Path::new("/proc"));
        assert_eq!(settings.env.into_values().collect::<Vec<_>>(), ["1", "0x", "no"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wanted) in [
            ("", "line 1"),
            ("{}", "runner"),
            ("runner: {}", "must have a `command`"),
            ("runner: {command: []}", "must begin with a program"),
            ("runner: {command: [\"\"]}", "must begin with a program"),
            ("runner: {class: a.B}", "Python runner classes need a Python runner"),
            ("runner: {class: a.B, command: [c]}", "not both"),
            ("runner: {command: [a], cwd: no-such-directory}", "not a directory"),
            ("runner: {command: [a], env: {\"A=\": 1}}", "no variable"),
            ("runner:\n  command: [a]\n  comand: [b]\n", "line 3"),
            ("runner: {command: {a: b}}", "line 1"),
            ("runner: [", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
