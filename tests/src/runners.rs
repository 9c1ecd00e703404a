//! The kinds of runners there are, each with a runner that carries out a
//! [`Script`](crate::Script), so that one test can be run with all of them.

mod runner_harness;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use runner_harness::{After, Failure, NEIGHBOUR, RunnerHarness, result_path};

use crate::ids::SCRIPTED;
use crate::{Harness, Model, built, free_port, python, script};

/// Names the Pythons that have the SDK and what it needs, the oldest first, in the
/// manner of a `PATH`; `cargo xtask test` sets it.
const PYTHONS: &str = "SHEPHERD_TEST_RUNNER_PYTHONS";

/// A model of every kind whose runner ends before it is ready.
pub const BROKEN: Model = Model { name: "broken", version: "latest" };

/// What a runner is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The Rust SDK.
    Rust,
    /// libnng and JSON, with nothing of ours: it can say anything.
    Raw,
    /// The Python SDK on the oldest Python here.
    PythonOldest,
    /// The Python SDK on the newest Python here.
    PythonNewest,
    /// `shepherd-runner`, with a command for each job.
    Command,
    /// A ZeroMQ ROUTER, as the first shepherd's runners had one.
    Legacy,
}

impl Kind {
    /// Sets up the models [`SCRIPTED`] and [`BROKEN`] with runners of this kind. Returns
    /// what the configuration of their sheep is to say, or nothing when this machine
    /// lacks a part of it; the test is then [skipped](crate::skip).
    ///
    /// # Panics
    /// When files cannot be written, or as `skip` does.
    pub fn set_up(self, harness: &Harness) -> Option<Value> {
        let journal = harness.journal().path().to_owned();
        match self {
            Self::Rust | Self::Raw => {
                let manner = if self == Self::Rust { "\"sdk\"" } else { "\"raw\"" };
                write_models(harness, [manner, r#"{"exit": 3}"#], None);
                Some(json!({}))
            }
            Self::PythonOldest | Self::PythonNewest => {
                let runner = json!({
                    "class": "scripted_runner.Scripted",
                    "python": self.interpreter()?,
                    "env": {"PYTHONPATH": script(""), "SHEPHERD_TEST_JOURNAL": journal},
                });
                write_models(harness, ["{}", r#"{"exit": 3}"#], Some([&runner, &runner]));
                Some(json!({"runner_command": null}))
            }
            Self::Command => {
                let program = built("scripted_runner");
                let runner =
                    json!({"command": [program, "--job", "{job_id}", "--journal", journal, "{inputs}"]});
                write_models(harness, ["", ""], Some([&runner, &json!({})]));
                Some(json!({"runner_command": null}))
            }
            Self::Legacy => {
                let runner = [python()?, script("legacy_runner.py"), "--journal".into(), journal];
                write_models(harness, ["{}", r#"{"exit": 3}"#], None);
                Some(json!({"transport": "zmq", "port": free_port(), "runner_command": runner}))
            }
        }
    }

    fn interpreter(self) -> Option<PathBuf> {
        let Some(pythons) = std::env::var_os(PYTHONS) else {
            crate::skip(&format!("{PYTHONS} names no Python with the packages of python/runner"));
            return None;
        };
        let mut pythons = std::env::split_paths(&pythons);
        let oldest = pythons.next();
        let interpreter = match self {
            Self::PythonNewest => pythons.last(),
            Self::Rust | Self::Raw | Self::PythonOldest | Self::Command | Self::Legacy => oldest,
        };
        if interpreter.is_none() {
            // Not a part that lacks: the tests with the oldest are those with the newest.
            println!("skipped: there is one Python only");
        }
        interpreter
    }
}

/// Writes the `config.yaml` of the good and of the broken model, and their `runner.yaml`.
fn write_models(harness: &Harness, configs: [&str; 2], runners: Option<[&Value; 2]>) {
    for (index, model) in [SCRIPTED, BROKEN].into_iter().enumerate() {
        let dir = harness.model_dir(model);
        write(&dir.join("config.yaml"), configs[index]);
        if let Some(runners) = runners {
            // JSON is YAML.
            write(&dir.join("runner.yaml"), &json!({"runner": runners[index]}).to_string());
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a model can be written");
}
