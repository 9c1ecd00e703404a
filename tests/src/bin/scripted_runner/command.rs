//! One job as a command: an error is what it prints last, and its exit code.

use std::path::Path;

use anyhow::Context as _;
use shepherd_tests::{Journal, process};

use crate::work;

/// Does the job of `ID --journal FILE INPUTS`. The journal is told of the runner, which
/// started the process of the slot that started this one.
pub(crate) fn run(words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let words: Vec<String> = words.collect();
    let [job, flag, journal, inputs] = words.as_slice() else {
        anyhow::bail!("expected ID --journal FILE INPUTS after --job");
    };
    anyhow::ensure!(flag == "--journal", "expected --journal and not `{flag}`");
    let dir = Path::new(inputs).parent().context("the inputs are in a directory")?;
    let sheep = dir.parent().and_then(Path::file_name).unwrap_or_default();
    let slot = i32::try_from(std::os::unix::process::parent_id())?;
    let runner = process::parent(slot).context("the slot has a parent")?;
    Journal::at(journal.as_ref()).note_run_of(u32::try_from(runner)?, job, "-", &sheep.to_string_lossy())?;
    // SIGTERM ends this process, as it does most commands.
    if let Err(error) = work::work(dir, &|| false) {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
    Ok(())
}
