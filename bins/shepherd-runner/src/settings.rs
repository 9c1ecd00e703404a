//! `runner.yaml`, which lies beside the model's configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use crate::python::Python;

/// What serves a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// This program, by running a command for each job.
    Command(Settings),
    /// The Python runner, which this program becomes.
    Python(Python),
}

/// What to run for each job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The program and its arguments, with placeholders.
    pub(crate) command: Vec<String>,
    /// Where it runs; absolute.
    pub(crate) cwd: PathBuf,
    /// What is added to its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// How many jobs it runs for at a time.
    pub(crate) slots: u32,
    /// Whether what it prints goes to terminals, in place of pipes.
    pub(crate) tty: bool,
}

/// The most slots: each is a process and a thread.
const MAX_SLOTS: u32 = 1024;

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
    python: Option<PathBuf>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    slots: Option<u32>,
    tty: Option<bool>,
}

impl Serves {
    /// Reads the `runner.yaml` in the directory of `config`, an absolute path. Without
    /// one the Python runner serves the model, as it was with the first shepherd.
    pub(crate) fn read_beside(config: &Path) -> anyhow::Result<Self> {
        let directory = config.parent().unwrap_or(Path::new("/"));
        let path = directory.join("runner.yaml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Python(Python::default())),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        Self::parse(&text, directory).with_context(|| format!("in `{}`", path.display()))
    }

    fn parse(text: &str, directory: &Path) -> anyhow::Result<Self> {
        let File { runner } = serde_saphyr::from_str(text)?;
        let Section { command, class, python, cwd, env, slots, tty } = runner;
        for name in env.keys() {
            anyhow::ensure!(
                !name.is_empty() && !name.contains(['=', '\0']),
                "`runner.env` has a name that no variable can have: `{}`",
                name.escape_default()
            );
        }
        let texts = command.iter().flatten().chain(&class).chain(env.values());
        anyhow::ensure!(
            texts.into_iter().all(|text| !text.contains('\0')),
            "`runner` must not hold NUL characters"
        );
        let cwd = cwd.map(|cwd| directory.join(cwd));
        if let Some(cwd) = cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            anyhow::bail!("`runner.cwd` is not a directory: `{}`", cwd.display());
        }
        match (command, class) {
            (Some(_), Some(_)) => anyhow::bail!("`runner` must have a `command` or a `class`, not both"),
            (Some(_), None) if python.is_some() => {
                anyhow::bail!("`runner.python` is for a `class`, not for a `command`")
            }
            (Some(command), None) => {
                anyhow::ensure!(
                    command.first().is_some_and(|program| !program.is_empty()),
                    "`runner.command` must begin with a program"
                );
                let cwd = cwd.unwrap_or_else(|| directory.to_path_buf());
                let slots = slots.unwrap_or(1);
                anyhow::ensure!(
                    (1..=MAX_SLOTS).contains(&slots),
                    "`runner.slots` must be 1 to {MAX_SLOTS}, and is {slots}"
                );
                Ok(Self::Command(Settings { command, cwd, env, slots, tty: tty.unwrap_or(false) }))
            }
            (None, Some(_)) if slots.is_some() || tty.is_some() => {
                anyhow::bail!(
                    "`runner.slots` and `runner.tty` are for a `command`; a class has an attribute `slots`"
                )
            }
            (None, class @ Some(_)) => {
                // A name is looked for on PATH, and a path is one from the model's directory.
                let python = python.map(|python| match python.parent() {
                    Some(parent) if parent != Path::new("") => directory.join(python),
                    Some(_) | None => python,
                });
                Ok(Self::Python(Python { class, interpreter: python, cwd, env }))
            }
            (None, None) => anyhow::bail!("`runner` must have a `command` or a `class`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Serves, String> {
        Serves::parse(text, Path::new("/")).map_err(|error| format!("{error:#}"))
    }

    fn command(text: &str) -> Settings {
        match parse(text).unwrap() {
            Serves::Command(settings) => settings,
            Serves::Python(python) => panic!("{python:?}"),
        }
    }

    fn python(text: &str) -> Python {
        match parse(text).unwrap() {
            Serves::Python(python) => python,
            Serves::Command(settings) => panic!("{settings:?}"),
        }
    }

    #[test]
    fn a_command_runs_beside_its_settings() {
        let settings = command("runner: {command: [prog, \"{inputs}\", 5]}");
        assert_eq!(settings.command, ["prog", "{inputs}", "5"]);
        assert_eq!((settings.cwd.as_path(), settings.env.len()), (Path::new("/"), 0));
        assert_eq!((settings.slots, settings.tty), (1, false));
        let settings = command("runner: {command: [a], slots: 8, tty: true}");
        assert_eq!((settings.slots, settings.tty), (8, true));
        let settings = command("runner:\n  command: [a]\n  cwd: proc\n  env: {A: 1, B: 0x, C: no}\n");
        assert_eq!(settings.cwd, Path::new("/proc"));
        assert_eq!(settings.env.into_values().collect::<Vec<_>>(), ["1", "0x", "no"]);
    }

    #[test]
    fn a_class_is_served_where_the_runner_was_started() {
        let named = python("runner: {class: a.B}");
        assert_eq!(named, Python { class: Some("a.B".to_owned()), ..Python::default() });
        let named = python("runner: {class: a.B, python: python3.11, cwd: proc, env: {A: 1}}");
        assert_eq!(named.interpreter.as_deref(), Some(Path::new("python3.11")));
        assert_eq!((named.cwd.as_deref(), named.env.len()), (Some(Path::new("/proc")), 1));
        let named = python("runner: {class: a.B, python: .venv/bin/python}");
        assert_eq!(named.interpreter.as_deref(), Some(Path::new("/.venv/bin/python")));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wanted) in [
            ("", "line 1"),
            ("{}", "runner"),
            ("runner: {}", "must have a `command` or a `class`"),
            ("runner: {command: []}", "must begin with a program"),
            ("runner: {command: [\"\"]}", "must begin with a program"),
            ("runner: {class: a.B, command: [c]}", "not both"),
            ("runner: {command: [c], python: python3}", "not for a `command`"),
            ("runner: {command: [a], cwd: no-such-directory}", "not a directory"),
            ("runner: {command: [a], env: {\"A=\": 1}}", "no variable"),
            ("runner: {class: a.B, env: {A: \"\\0\"}}", "NUL"),
            ("runner: {command: [a], slots: 0}", "must be 1 to 1024, and is 0"),
            ("runner: {class: a.B, slots: 2}", "are for a `command`"),
            ("runner: {class: a.B, tty: true}", "are for a `command`"),
            ("runner:\n  command: [a]\n  comand: [b]\n", "line 3"),
            ("runner: {command: {a: b}}", "line 1"),
            ("runner: [", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
