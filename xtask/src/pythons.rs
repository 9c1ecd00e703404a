//! The Pythons that this machine has.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;

/// The minor versions of Python 3 that the packages below `python/` are for.
const MINORS: RangeInclusive<u32> = 8..=13;

/// A Python that can make virtual environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Python {
    /// Its version is 3 and this.
    pub(crate) minor: u32,
    /// Its program: a name on `PATH`, or a path.
    pub(crate) program: String,
}

/// One of each version that is found on `PATH` or below pyenv's directory, the oldest first.
pub(crate) fn find() -> Vec<Python> {
    let named = MINORS.map(|minor| format!("python3.{minor}"));
    one_of_each(named.chain(of_pyenv()).chain(["python3".to_owned()]), minor_of)
}

fn one_of_each(
    programs: impl Iterator<Item = String>,
    minor_of: impl Fn(&str) -> Option<u32>,
) -> Vec<Python> {
    let mut found = BTreeMap::new();
    for program in programs {
        if let Some(minor) = minor_of(&program).filter(|minor| MINORS.contains(minor)) {
            found.entry(minor).or_insert(program);
        }
    }
    found.into_iter().map(|(minor, program)| Python { minor, program }).collect()
}

/// The minor version of a Python 3 that has what an environment needs. A name that is there may still not work:
/// pyenv has one for every version that it ever saw.
fn minor_of(program: &str) -> Option<u32> {
    let ask = "import sys, venv, ensurepip; print(sys.version_info[0] == 3 and sys.version_info[1])";
    let output = Command::new(program).args(["-c", ask]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn of_pyenv() -> impl Iterator<Item = String> {
    let root = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut programs: Vec<String> = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| version.path().join("bin/python3").to_str().map(str::to_owned))
        .collect();
    programs.sort_unstable();
    programs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_version_the_first_is_taken_and_others_are_left() {
        let programs = ["a", "b 13", "c 9", "d 13", "e 7", "f 14"].map(str::to_owned);
        let minor = |program: &str| program.split_once(' ')?.1.parse().ok();
        let found = one_of_each(programs.into_iter(), minor);
        let wanted = [(9, "c 9"), (13, "b 13")];
        assert_eq!(found, wanted.map(|(minor, program)| Python { minor, program: program.to_owned() }));
    }
}
