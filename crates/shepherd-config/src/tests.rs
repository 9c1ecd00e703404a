//! Every test is a text, perhaps an environment, and what must come of it.

use std::path::Path;

use crate::{Config, ConfigError, Environment};

mod docker;
mod engine;
mod environment;
mod places;
mod problems;
mod robustness;
mod storage;
mod values;

/// Two lines that are valid; a test adds its own from line 3.
const VALID: &str = "data_root: /data\nsheep: {a: {type: bare, working_directory: /models}}\n";

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: Environment = variables.iter().copied().collect();
    Config::parse(text, "c.yml", &environment, Path::new("/srv/app"))
}

/// The one check: the report for `text`, line by line; empty for a valid one.
#[track_caller]
fn check(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    let report = parse(text, variables).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(report, expected.join("\n"), "\n--- the report of\n{text}");
}

/// As [`check`], with `lines` after the valid ones.
#[track_caller]
fn check_more(lines: &str, expected: &[&str]) {
    check(&format!("{VALID}{lines}"), &[], expected);
}

/// The configuration of `lines` after the valid ones.
#[track_caller]
fn valid(lines: &str) -> Config {
    valid_with(lines, &[])
}

#[track_caller]
fn valid_with(lines: &str, variables: &[(&str, &str)]) -> Config {
    parse(&format!("{VALID}{lines}"), variables).unwrap_or_else(|error| panic!("{lines}\n{error}"))
}
