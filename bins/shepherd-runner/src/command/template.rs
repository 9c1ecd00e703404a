//! The placeholders of a command.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What the placeholders stand for in one job.
pub(super) struct Values<'a> {
    pub(super) inputs: &'a Path,
    pub(super) outputs: &'a Path,
    pub(super) job_id: &'a str,
    pub(super) config: &'a Path,
    pub(super) stream: &'a str,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<&OsStr> {
        match name {
            "inputs" => Some(self.inputs.as_os_str()),
            "outputs" => Some(self.outputs.as_os_str()),
            "job_id" => Some(self.job_id.as_ref()),
            "config" => Some(self.config.as_os_str()),
            "stream" => Some(self.stream.as_ref()),
            _ => None,
        }
    }
}

/// The command with its placeholders replaced, wherever they are in an argument.
/// Other braces stay as they are, and what a placeholder stands for is not looked
/// into again.
pub(super) fn fill(command: &[String], values: &Values<'_>) -> Vec<OsString> {
    command.iter().map(|argument| fill_one(argument, values)).collect()
}

fn fill_one(argument: &str, values: &Values<'_>) -> OsString {
    let mut filled = OsString::new();
    let mut rest = argument;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push(before);
        let value = from[1..].split_once('}').and_then(|(name, after)| Some((values.get(name)?, after)));
        match value {
            Some((value, after)) => {
                filled.push(value);
                rest = after;
            }
            None => {
                filled.push("{");
                rest = &from[1..];
            }
        }
    }
    filled.push(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once_and_other_braces_stay() {
        let values = Values {
            inputs: Path::new("/d/{outputs}/inputs"),
            outputs: Path::new("/d/o"),
            job_id: "job-1",
            config: Path::new("/m/config.yaml"),
            stream: "predict",
        };
        for (given, wanted) in [
            ("plain", "plain"),
            ("{inputs}", "/d/{outputs}/inputs"),
            ("--out={outputs}/x-{job_id}", "--out=/d/o/x-job-1"),
            ("{config}{stream}", "/m/config.yamlpredict"),
            ("{\"a\": {outputs}}", "{\"a\": /d/o}"),
            ("{{job_id}}", "{job-1}"),
            ("{unknown} {", "{unknown} {"),
            ("{in{job_id}", "{injob-1"),
        ] {
            assert_eq!(fill(&[given.to_owned()], &values), [wanted], "{given}");
        }
    }
}
