//! One job, as the runner sees it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shepherd_job::Attempt;
use shepherd_protocol::{FromRunner, Input, RunnerSender};

use crate::stop::{Stop, StopFlag};

/// Progress is sent at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A job in work.
pub struct Job {
    input: Input,
    inputs: PathBuf,
    outputs: PathBuf,
    stop: Arc<StopFlag>,
    sender: RunnerSender,
    last_progress: Mutex<Option<Instant>>,
}

impl Job {
    pub(crate) fn new(input: Input, stop: Arc<StopFlag>, sender: RunnerSender) -> Self {
        let root = Path::new(&*input.io_data_root).join(input.job.as_str());
        Self {
            inputs: root.join("inputs"),
            outputs: root.join("outputs"),
            input,
            stop,
            sender,
            last_progress: Mutex::new(None),
        }
    }

    /// The job's id.
    pub fn id(&self) -> &str {
        self.input.job.as_str()
    }

    /// Which attempt at the job this is.
    pub fn attempt(&self) -> Attempt {
        self.input.attempt
    }

    /// The directory with the inputs; a payload is its file `input`.
    pub fn inputs(&self) -> &Path {
        &self.inputs
    }

    /// The directory that the outputs belong into; the main one is its file
    /// `output`. What is in it when the job is done becomes the job's result.
    pub fn outputs(&self) -> &Path {
        &self.outputs
    }

    /// After this time nobody wants the result.
    pub fn deadline(&self) -> Option<SystemTime> {
        let micros = u64::try_from(self.input.deadline?.as_micros()).ok()?;
        Some(UNIX_EPOCH + Duration::from_micros(micros))
    }

    /// Reports how far the job is, from 0 to 1, and what it is doing (may be
    /// empty). Costs next to nothing: reports that come thick and fast are
    /// dropped.
    pub fn progress(&self, fraction: f64, message: &str) {
        let now = Instant::now();
        let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) {
            return;
        }
        *last = Some(now);
        let report = FromRunner::Progress {
            job: self.id().to_owned(),
            attempt: Some(self.attempt()),
            fraction: Some(fraction),
            message: (!message.is_empty()).then(|| message.to_owned()),
        };
        // A report that cannot be sent is as good as a late one: dropped.
        let _ = self.sender.send(&[report]);
    }

    /// Whether the job is in vain and should end soon, with
    /// [`RunError::interrupted`](crate::RunError::interrupted): it was cancelled,
    /// the shepherd is gone, or the runner is to exit.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// Why the job should end, if it should.
    pub fn stop_reason(&self) -> Option<Stop> {
        self.stop.get()
    }

    /// Has `hook` called when the job should end, or now if it should already;
    /// on another thread, which must not be held up. It replaces an earlier hook.
    pub fn on_stop(&self, hook: impl FnOnce(Stop) + Send + 'static) {
        self.stop.hook(Box::new(hook));
    }
}
