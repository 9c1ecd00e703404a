//! One job, as the runner sees it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shepherd_job::{Attempt, decode_key};
use shepherd_protocol::{FromRunner, Input, RunnerSender};

use crate::log::{JobLog, LogWriter, Noted};
use crate::output::Output;
use crate::stop::{Stop, StopFlag, Told};
use crate::{Cancelled, RunError};

/// Progress is sent at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A job in work. Clones are the same job, for other threads; what they say after its
/// end is heard by nobody.
#[derive(Clone)]
pub struct Job {
    inner: Arc<Inner>,
}

struct Inner {
    input: Input,
    /// The connection that it came on, which its answer is for.
    connection: u64,
    outlet: Arc<Outlet>,
    inputs: OnceLock<PathBuf>,
    outputs: OnceLock<PathBuf>,
    stop: StopFlag,
    /// The work saw that it should stop.
    noticed: AtomicBool,
    last_progress: Mutex<Option<Instant>>,
    failure: Mutex<Option<RunError>>,
    log: JobLog,
}

/// Where what jobs say goes.
pub(crate) struct Outlet {
    pub(crate) sender: RunnerSender,
    pub(crate) output: Output,
    /// None where the shepherd is not told what jobs print.
    pub(crate) logs: Option<Noted>,
}

impl Job {
    pub(crate) fn new(input: Input, connection: u64, outlet: Arc<Outlet>) -> Self {
        Self {
            inner: Arc::new(Inner {
                input,
                connection,
                outlet,
                inputs: OnceLock::new(),
                outputs: OnceLock::new(),
                stop: StopFlag::default(),
                noticed: AtomicBool::new(false),
                last_progress: Mutex::new(None),
                failure: Mutex::new(None),
                log: JobLog::default(),
            }),
        }
    }

    /// The job's id.
    pub fn id(&self) -> &str {
        self.inner.input.job.as_str()
    }

    /// Which attempt at the job this is.
    pub fn attempt(&self) -> Attempt {
        self.inner.input.attempt
    }

    /// The directory with the inputs; a payload is its file `input`.
    pub fn inputs(&self) -> &Path {
        self.inner.inputs.get_or_init(|| self.directory("inputs"))
    }

    /// The files of [`inputs`](Self::inputs) by the keys that the client gave them, below
    /// the job's `inputs/`. A key that cannot be the name of a file, such as `a//b` or one
    /// below the key of another file, is the key of a file with another name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn input_keys(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![String::new()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(self.inputs().join(&dir))? {
                let entry = entry?;
                // What no key is called so was not staged.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_file() {
                    let key = decode_key(&path).map_or(path, |key| key.as_str().to_owned());
                    found.insert(key, entry.path());
                }
            }
        }
        Ok(found)
    }

    /// The directory that the outputs belong into; the main one is its file
    /// `output`. What is in it when the job is done becomes the job's result.
    pub fn outputs(&self) -> &Path {
        self.inner.outputs.get_or_init(|| self.directory("outputs"))
    }

    fn directory(&self, name: &str) -> PathBuf {
        let (root, id) = (&*self.inner.input.io_data_root, self.id());
        let mut path = PathBuf::with_capacity(root.len() + id.len() + name.len() + 2);
        path.push(root);
        path.push(id);
        path.push(name);
        path
    }

    /// When the sheep's `run_timeout` ends the job; none without one. Of a job that waited
    /// in this runner for earlier ones it may be later than that.
    pub fn deadline(&self) -> Option<SystemTime> {
        let micros = u64::try_from(self.inner.input.deadline?.as_micros()).ok()?;
        Some(UNIX_EPOCH + Duration::from_micros(micros))
    }

    /// Reports how far the job is, from 0 to 1, and what it is doing (may be
    /// empty). Costs next to nothing: reports that come thick and fast are
    /// dropped.
    pub fn progress(&self, fraction: f64, message: &str) {
        let fraction = (!fraction.is_nan()).then(|| fraction.clamp(0.0, 1.0));
        self.report(fraction, message);
    }

    /// As [`progress`](Self::progress), where nobody knows how far it is.
    pub fn progress_message(&self, message: &str) {
        self.report(None, message);
    }

    fn report(&self, fraction: Option<f64>, message: &str) {
        let now = Instant::now();
        let mut last = lock(&self.inner.last_progress);
        if last.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) {
            return;
        }
        *last = Some(now);
        drop(last);
        let report = FromRunner::Progress {
            job: self.id().to_owned(),
            attempt: Some(self.attempt()),
            fraction,
            message: (!message.is_empty()).then(|| message.to_owned()),
        };
        // A report that cannot be sent is as good as a late one: dropped.
        let _ = self.inner.outlet.sender.send_to(self.inner.connection, &[report]);
    }

    /// Prints a line to the job's log and to the process's own standard error. Without
    /// [`Options::logs`](crate::Options::logs) to the latter alone, of which the shepherd
    /// takes what comes while the only job is in work.
    ///
    /// When a job prints faster than can be sent, the end is kept.
    pub fn log(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        // As one write: others print, too.
        let line = if text.ends_with('\n') { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}\n")) };
        self.echo(line.as_bytes());
        self.print(&line);
    }

    /// The job's log as something to write to, such as for a logger or for what a
    /// child process prints.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter::new(self.clone())
    }

    /// Whether the job is in vain and should end soon, best with
    /// [`RunError::interrupted`]: it was cancelled, the shepherd is gone, or the runner
    /// is to exit. Once this was true, the job counts as given up, however it ends.
    pub fn cancelled(&self) -> bool {
        let stopped = self.is_stopped();
        if stopped {
            self.notice();
        }
        stopped
    }

    /// For `?` where a job may end early.
    ///
    /// # Errors
    /// The job should end, and counts as given up, as with [`cancelled`](Self::cancelled).
    pub fn checkpoint(&self) -> Result<(), Cancelled> {
        if self.cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Ends when the job should. Then the job counts as given up, as with
    /// [`cancelled`](Self::cancelled). It may be dropped and asked again.
    pub async fn until_cancelled(&self) -> Stop {
        let mut told = Told::of(&self.inner.stop);
        let stop = std::future::poll_fn(|context| told.poll(context)).await;
        self.notice();
        stop
    }

    /// What `work` results in, unless the job should end before: then `work` is dropped
    /// where it waits.
    ///
    /// # Errors
    /// It was, and the job counts as given up, as with [`cancelled`](Self::cancelled).
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Cancelled> {
        let mut work = pin!(work);
        let mut told = Told::of(&self.inner.stop);
        let ended = std::future::poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => told.poll(context).map(|_| None),
        });
        match ended.await {
            Some(result) => Ok(result),
            None => {
                self.notice();
                Err(Cancelled)
            }
        }
    }

    /// As [`cancelled`](Self::cancelled), but to ask gives nothing up.
    pub fn is_stopped(&self) -> bool {
        self.inner.stop.is_set()
    }

    /// Why the job should end, if it should. To ask gives nothing up.
    pub fn stop_reason(&self) -> Option<Stop> {
        self.inner.stop.get()
    }

    /// Has `hook` called when the job should end, or now if it should already;
    /// on another thread, which must not be held up. It replaces an earlier hook.
    pub fn on_stop(&self, hook: impl FnOnce(Stop) + Send + 'static) {
        self.inner.stop.hook(Box::new(hook));
    }

    /// The job has failed, whatever its processing returns; for one job of a batch.
    pub fn fail(&self, error: impl Into<RunError>) {
        *lock(&self.inner.failure) = Some(error.into());
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Job").field("id", &self.id()).field("attempt", &self.attempt()).finish()
    }
}

/// The SDK's own.
impl Job {
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn input(&self) -> &Input {
        &self.inner.input
    }

    pub(crate) fn connection(&self) -> u64 {
        self.inner.connection
    }

    pub(crate) fn stop(&self, stop: Stop) {
        self.inner.stop.set(stop);
    }

    fn notice(&self) {
        self.inner.noticed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_noticed(&self) -> bool {
        self.inner.noticed.load(Ordering::Relaxed)
    }

    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.inner.failure).is_some()
    }

    pub(crate) fn take_failure(&self) -> Option<RunError> {
        lock(&self.inner.failure).take()
    }

    /// Whether the shepherd is told what it prints.
    pub(crate) fn has_log(&self) -> bool {
        self.inner.outlet.logs.is_some()
    }

    /// Adds to the log alone.
    pub(crate) fn print(&self, text: &str) {
        if let Some(noted) = &self.inner.outlet.logs
            && self.inner.log.push(text)
        {
            noted.note(self);
        }
    }

    /// Prints to the process's own standard error alone.
    pub(crate) fn echo(&self, bytes: &[u8]) {
        self.inner.outlet.output.print(bytes);
    }

    /// Gives what it printed to `give`.
    pub(crate) fn pass_log_on(&self, give: impl FnOnce(Vec<FromRunner>)) {
        self.inner.log.pass_on(|pieces| give(self.log_messages(pieces)));
    }

    /// It is over. What is left of its log, to be sent before its answer.
    pub(crate) fn close(&self) -> Vec<FromRunner> {
        // It may hold a clone of this job, which would hold it for ever.
        self.inner.stop.forget_hook();
        if self.has_log() { self.log_messages(self.inner.log.close()) } else { Vec::new() }
    }

    fn log_messages(&self, pieces: Vec<String>) -> Vec<FromRunner> {
        let message =
            |text| FromRunner::Log { job: self.id().to_owned(), attempt: Some(self.attempt()), text };
        pieces.into_iter().map(message).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
