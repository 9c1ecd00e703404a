//! One picture's way through the shepherd: the four steps of the tutorial.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::http::Client;
use super::json::Value;
use super::pictures::{Picture, Reading};
use crate::Result;

/// Where the way leads.
pub(super) struct Walk {
    pub(super) client: Client,
    /// The directory of the storage.
    pub(super) storage: PathBuf,
}

/// What one job came to.
pub(super) struct Walked {
    /// What was read, or why there is nothing.
    pub(super) outcome: std::result::Result<Reading, String>,
    /// From the request that starts the job to the answer that it is done, as its client sees it. The outputs are
    /// in storage by then.
    pub(super) took: Duration,
}

impl Walk {
    /// Reads a picture with one version of the model.
    ///
    /// # Errors
    /// The daemon does not answer as it should. A job that fails is none.
    pub(super) fn go(&self, picture: &Picture, version: &str, job: &str) -> Result<Walked> {
        // 1. The input goes into storage as an ordinary file.
        let inputs = self.storage.join(job).join("inputs");
        fs::create_dir_all(&inputs)?;
        fs::copy(&picture.path, inputs.join("input")).map_err(|error| {
            format!("cannot copy {} to {}: {error}", picture.path.display(), inputs.display())
        })?;

        // 2. The job is started.
        let begun = Instant::now();
        let body = format!(r#"{{"job_id": "{job}", "model": {{"name": "ocr", "version": "{version}"}}}}"#);
        let answer = self.client.post_json("/start-job", &body)?;
        if answer.status != 200 {
            return Err(format!("start-job of {job} was answered with {answer}").into());
        }

        // 3. Its end is waited for.
        let answer = self.client.get(&format!("/jobs/{job}/wait_ready?timeout={}", PATIENCE.as_secs()))?;
        let took = begun.elapsed();
        if answer.status != 200 {
            return Err(format!("waiting for {job} was answered with {answer}").into());
        }
        let status = answer.json()?;
        let ready = self.client.get(&format!("/jobs/{job}/ready"))?;
        if ready.json()?.get("ready").and_then(Value::as_bool) != Some(true) {
            return Err(format!("{job} was waited for but is not ready: {ready}").into());
        }

        // 4. The output is taken from storage.
        let outcome = match status.get("status").and_then(Value::as_str) {
            Some("done") => Ok(self.read_output(job)?),
            _ => Err(message(&status)),
        };
        Ok(Walked { outcome, took })
    }

    /// The output as a file of the storage, which must be what the API serves too.
    fn read_output(&self, job: &str) -> Result<Reading> {
        let path = self.storage.join(job).join("outputs/output");
        let output = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let served = self.client.get(&format!("/jobs/{job}/result"))?;
        if served.status != 200 || served.body != output {
            return Err(format!("the API's result of {job} is not the file in storage").into());
        }
        Reading::parse(&output)
    }
}

fn message(status: &Value) -> String {
    let message = status.get("error_details").and_then(|details| details.get("message"));
    message.and_then(Value::as_str).unwrap_or("the job ended without a result or a message").to_owned()
}
