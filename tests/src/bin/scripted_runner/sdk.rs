//! Service on the runner SDK.

use shepherd_runner::{Job, Options, RunError, Runner};
use shepherd_tests::Journal;

use crate::work;

struct Scripted {
    journal: Option<Journal>,
}

impl Runner for Scripted {
    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        // SHEEP/JOB/inputs
        let dir = job.inputs().parent().unwrap_or(job.inputs());
        let sheep = dir.parent().and_then(|sheep| sheep.file_name()).unwrap_or_default();
        if let Some(journal) = &self.journal {
            journal.note_run(job.id(), &job.attempt().to_string(), &sheep.to_string_lossy())?;
        }
        let voice = work::Says(|fraction, message: &str| job.progress(fraction, message));
        work::work_aloud(dir, &|| job.is_stopped(), &voice).map_err(|e| {
            if job.is_stopped() { RunError::interrupted() } else { RunError::new(format!("{e:#}")) }
        })
    }
}

/// Serves until the shepherd says that it is enough.
pub(crate) fn serve(url: &str, journal: Option<Journal>) -> anyhow::Result<()> {
    Ok(shepherd_runner::serve(Scripted { journal }, Options::new(url))?)
}
