//! What a job tells the scripted runner to do.
//!
//! A job's `inputs/input` holds a [`Script`] as JSON. Any other input is copied to
//! `outputs/output`; a job without `inputs/input` writes a listing of its inputs
//! there, a line `NAME SIZE` each. What a runner does before it has a job is its
//! [`Manner`], written in its model's `config.yaml`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What one job does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Script {
    /// Writes the text to `outputs/output`.
    Say(String),
    /// Waits until the file exists, then writes `through` to `outputs/output`.
    Gate(PathBuf),
    /// Writes the value of an environment variable to `outputs/output`.
    Env(String),
    /// Writes these files below `outputs`: a name, which may hold `/`, and a text.
    Files(Vec<(String, String)>),
    /// Copies every input to an output of the same name.
    Copy,
    /// Writes this many files below `outputs`, named `out-00000` and so on.
    Many(usize),
    /// Writes a file of this many bytes to `outputs/output`, see [`big_byte`].
    Big(u64),
    /// Makes `outputs/output` a file of this many bytes that takes next to no room on
    /// disk, see [`sparse_piece`].
    Sparse(u64),
    /// Prints what is no text on standard output and error, then as `Say` of `said`.
    Noise,
    /// These one after the other, then as `Say` of `stepped`.
    Steps(Vec<Step>),
    /// Ends well and writes nothing.
    Nothing,
    /// Makes `outputs/output` a symbolic link to this path.
    Link(PathBuf),
    /// Fails with this message.
    Fail(String),
    /// The process exits with this code.
    Exit(i32),
    /// The process exits while `marker` does not exist, and makes it; else as `Say`
    /// of `survived`.
    ExitOnce {
        /// The file that remembers.
        marker: PathBuf,
    },
    /// Starts a child that outlives any patience, writes its process id to the file,
    /// and then never ends; heartbeats are answered.
    Hang {
        /// Gets the child's process id.
        child: PathBuf,
    },
    /// Raw runners only: frames that are no messages, then a good answer.
    Garbage,
    /// Raw runners only: says that another job is done, then fails its own.
    AnswerFor {
        /// The other job.
        job: String,
    },
    /// Raw runners only: says done, and then that the same job failed.
    AnswerTwice,
    /// Raw runners only: the first attempt dies. The second says first that the first
    /// is done, and then that it failed itself with the message `fresh`.
    StaleAnswer {
        /// Remembers the first attempt.
        marker: PathBuf,
    },
}

/// Something that a job does on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Prints the text: raw runners say it on the wire, others on standard output.
    Print(String),
    /// Says how far it is, and what it is doing.
    Progress(f64, String),
    /// Waits until the file exists.
    Gate(PathBuf),
    /// Fails with this message.
    Fail(String),
    /// The process exits with this code.
    Exit(i32),
}

/// The byte of a [`Script::Big`] output at an offset: its pieces differ.
pub fn big_byte(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 16)) as u8
}

/// The bytes of a [`Script::Sparse`] output come in pieces of this many.
pub const SPARSE_PIECE: u64 = 64 << 20;

/// What a piece of a [`Script::Sparse`] output begins with; the rest of it is zero.
pub fn sparse_piece(offset: u64) -> [u8; 8] {
    (offset + 1).to_le_bytes()
}

impl Script {
    /// Reads a job's input; `None` when it is none of ours.
    pub fn parse(input: &[u8]) -> Option<Self> {
        serde_json::from_slice(input).ok()
    }

    /// As a job's payload.
    ///
    /// # Panics
    /// Never: a script is always JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a script is JSON")
    }
}

/// What a runner does before it has a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Manner {
    /// Serves, on the SDK.
    #[default]
    Sdk,
    /// Serves, with its own hands on the wire.
    Raw,
    /// Exits at once with this code.
    Exit(i32),
    /// Never listens.
    Deaf,
    /// Listens, and sends what is no message in place of its ready message.
    Babble,
}

impl Manner {
    /// Reads a model's `config.yaml`.
    ///
    /// # Errors
    /// When it cannot be read or says something else.
    pub fn read(config: &Path) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(config)?)?)
    }

    /// As the text of a model's `config.yaml` (JSON is YAML).
    ///
    /// # Panics
    /// Never: a manner is always JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a manner is JSON")
    }
}
