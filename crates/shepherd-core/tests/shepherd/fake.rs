//! A flock whose runners are threads of the test, each of which follows a script
//! over the real protocol.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use shepherd_core::{Data, JobRecord, Member, Options, RunnerLimits, Shepherd, Submit};
use shepherd_job::{Attempt, JobError, JobId, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, SheepId};
use shepherd_protocol::{
    Event, FromRunner, Input, Ready, RunnerReceiver, RunnerSender, RunnerSocket, ToRunner,
};
use shepherd_queue::MemoryStore;
use shepherd_sheep::{Exit, ExitCause, RunningSheep, Sheep, SheepError};
use shepherd_storage::{LocalStorage, Storage};
use tokio::sync::watch;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a runner does, from its start to its end.
pub(crate) type Script = Arc<dyn Fn(&mut Io) + Send + Sync>;

/// A sheep whose runners are threads.
pub(crate) struct FakeSheep {
    home: PathBuf,
    script: Script,
    is_isolated: bool,
    refusals: Mutex<Vec<SheepError>>,
    lacking: Mutex<HashSet<String>>,
    cause: Arc<Mutex<ExitCause>>,
    unfit: Mutex<Option<&'static str>>,
    pub(crate) launches: AtomicUsize,
    print_delay: Arc<Mutex<Duration>>,
    vacated: Arc<AtomicUsize>,
    edits: AtomicU64,
}

impl FakeSheep {
    /// Its models are changed.
    pub(crate) fn edit_models(&self) {
        self.edits.fetch_add(1, Ordering::SeqCst);
    }

    /// What the next launches fail with, last first.
    pub(crate) fn refuse(&self, error: SheepError) {
        self.refusals.lock().unwrap().push(error);
    }

    /// How runners are said to have ended from now on.
    pub(crate) fn exit_with(&self, cause: ExitCause) {
        *self.cause.lock().unwrap() = cause;
    }

    /// What it says from now on when it is asked whether it could run something.
    pub(crate) fn is_fit(&self, problem: Option<&'static str>) {
        *self.unfit.lock().unwrap() = problem;
    }

    /// Takes the model of this name away.
    pub(crate) fn lose(&self, model: &str) {
        self.lacking.lock().unwrap().insert(model.to_owned());
    }

    /// Brings it back.
    pub(crate) fn gain(&self, model: &str) {
        self.lacking.lock().unwrap().remove(model);
    }

    pub(crate) fn launches(&self) -> usize {
        self.launches.load(Ordering::SeqCst)
    }

    /// What runners print from now on may come so much later.
    pub(crate) fn delay_prints(&self, by: Duration) {
        *self.print_delay.lock().unwrap() = by;
    }

    /// How many runners have made room for others.
    pub(crate) fn vacated(&self) -> usize {
        self.vacated.load(Ordering::SeqCst)
    }
}

/// A runner's side of the conversation.
pub(crate) struct Io {
    pub(crate) model: ModelRef,
    sender: RunnerSender,
    receiver: RunnerReceiver,
    pub(crate) ready: Ready,
    /// Printed once it has said that it is ready.
    pub(crate) last_of_loading: &'static str,
    printed: Arc<Mutex<String>>,
}

impl Io {
    /// Writes to the runner's standard output.
    pub(crate) fn print(&self, text: &str) {
        self.printed.lock().unwrap().push_str(text);
    }

    /// Says that the job has printed this.
    pub(crate) fn log(&self, input: &Input, text: &str) {
        let (job, attempt) = (input.job.to_string(), Some(input.attempt));
        self.say(FromRunner::Log { job, attempt, text: text.to_owned() });
    }

    /// The next job; `None` when the runner should end. Answers pings.
    pub(crate) fn next(&mut self) -> Option<Input> {
        loop {
            match self.hear()? {
                ToRunner::Input(input) => return Some(input),
                ToRunner::Shutdown { .. } => return None,
                ToRunner::Ping { nonce } => self.say(FromRunner::Pong { nonce }),
                ToRunner::Cancel { .. } => {}
            }
        }
    }

    /// The next message; `None` when the shepherd is gone or kills the runner.
    pub(crate) fn hear(&mut self) -> Option<ToRunner> {
        loop {
            match self.receiver.recv(PATIENCE) {
                Ok(Event::Message(message)) => return Some(message),
                Ok(Event::Connected) => {
                    self.say(FromRunner::Ready(self.ready.clone()));
                    self.print(self.last_of_loading);
                }
                Ok(Event::Garbage(garbage)) => panic!("the shepherd sent garbage: {garbage}"),
                Ok(Event::Disconnected) | Err(_) => return None,
            }
        }
    }

    pub(crate) fn say(&self, message: FromRunner) {
        // The shepherd may have hung up; the next thing heard will say so.
        let _ = self.sender.send_wait(&[message]);
    }

    pub(crate) fn done(&self, input: &Input) {
        self.say(FromRunner::Done { job: input.job.to_string(), attempt: Some(input.attempt) });
    }

    pub(crate) fn fail(&self, input: &Input, message: &str) {
        let (job, attempt) = (input.job.to_string(), Some(input.attempt));
        self.say(FromRunner::Error { job, attempt, error: JobError::new(message) });
    }

    pub(crate) fn done_as(&self, job: &str, attempt: Attempt) {
        self.say(FromRunner::Done { job: job.to_owned(), attempt: Some(attempt) });
    }
}

/// The path of a file of the job.
pub(crate) fn file(input: &Input, path: &str) -> PathBuf {
    Path::new(&*input.io_data_root).join(input.job.as_str()).join(path)
}

/// Copies `inputs/input` to `outputs/output`.
pub(crate) fn echo(input: &Input) {
    std::fs::copy(file(input, "inputs/input"), file(input, "outputs/output")).unwrap();
}

/// A runner that echoes until it is told to end.
pub(crate) fn echoing() -> Script {
    Arc::new(|io| {
        while let Some(input) = io.next() {
            echo(&input);
            io.done(&input);
        }
    })
}

#[async_trait]
impl Sheep for FakeSheep {
    async fn settled(&self) {}

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    fn lacks(&self, model: &ModelRef) -> Option<String> {
        self.lacking.lock().unwrap().contains(model.name()).then(|| format!("does not have `{model}`"))
    }

    async fn check(&self) -> Result<(), SheepError> {
        let unfit = *self.unfit.lock().unwrap();
        unfit.map_or(Ok(()), |problem| Err(SheepError::Unavailable(problem.to_owned())))
    }

    fn model_stamp(&self, _model: &ModelRef) -> Option<u64> {
        Some(self.edits.load(Ordering::SeqCst))
    }

    async fn sweep(&self) -> Result<(), SheepError> {
        Ok(())
    }

    async fn launch(&self, model: &ModelRef) -> Result<Box<dyn RunningSheep>, SheepError> {
        self.launches.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.refusals.lock().unwrap().pop() {
            return Err(error);
        }
        if self.lacks(model).is_some() {
            return Err(SheepError::Model(format!("Cannot load model `{model}`.")));
        }
        let socket = RunnerSocket::bind("tcp://127.0.0.1:0").unwrap();
        let (endpoint, sender, receiver) = socket.split();
        let (ended, has_ended) = watch::channel(false);
        let (script, model, speaker) = (Arc::clone(&self.script), model.clone(), sender.clone());
        let printed = Arc::<Mutex<String>>::default();
        let prints = Arc::clone(&printed);
        std::thread::spawn(move || {
            let ready = Ready::new("fake");
            let sender = speaker.clone();
            script(&mut Io { model, sender, receiver, ready, last_of_loading: "", printed: prints });
            speaker.flush(Duration::from_secs(1));
            speaker.close();
            let _ = ended.send(true);
        });
        let (print_delay, vacated) = (Arc::clone(&self.print_delay), Arc::clone(&self.vacated));
        let (home, cause) = (self.home.clone(), Arc::clone(&self.cause));
        Ok(Box::new(FakeRunner { endpoint, home, sender, has_ended, cause, printed, print_delay, vacated }))
    }
}

struct FakeRunner {
    endpoint: String,
    home: PathBuf,
    sender: RunnerSender,
    has_ended: watch::Receiver<bool>,
    cause: Arc<Mutex<ExitCause>>,
    printed: Arc<Mutex<String>>,
    print_delay: Arc<Mutex<Duration>>,
    vacated: Arc<AtomicUsize>,
}

#[async_trait]
impl RunningSheep for FakeRunner {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn io_data_root(&self) -> &Path {
        &self.home
    }

    async fn exited(&mut self) -> Exit {
        let _ = self.has_ended.wait_for(|ended| *ended).await;
        let cause = *self.cause.lock().unwrap();
        Exit { cause, log_tail: "last words".to_owned() }
    }

    fn printed(&mut self) -> String {
        std::mem::take(&mut self.printed.lock().unwrap())
    }

    fn print_delay(&self) -> Duration {
        *self.print_delay.lock().unwrap()
    }

    async fn vacate(&mut self, grace: Duration) {
        self.stop(grace).await;
        self.vacated.fetch_add(1, Ordering::SeqCst);
    }

    async fn stop(&mut self, grace: Duration) -> Exit {
        match tokio::time::timeout(grace, self.exited()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.kill();
                self.exited().await
            }
        }
    }

    fn kill(&mut self) {
        self.sender.close();
    }
}

impl Drop for FakeRunner {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A shepherd over a queue in memory and a storage in a directory of the test.
pub(crate) struct Harness {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) shepherd: Shepherd,
    pub(crate) storage: Arc<LocalStorage>,
    pub(crate) flock: Vec<Arc<FakeSheep>>,
}

impl Harness {
    pub(crate) async fn with(script: Script) -> Self {
        Self::limits(script, RunnerLimits::default()).await
    }

    pub(crate) async fn limits(script: Script, limits: RunnerLimits) -> Self {
        Self::flock(vec![script], limits).await
    }

    /// A sheep for each script: `sheep-0`, `sheep-1`...
    pub(crate) async fn flock(scripts: Vec<Script>, limits: RunnerLimits) -> Self {
        Self::over(scripts, limits, |storage| Arc::clone(storage) as _).await
    }

    /// The same over what `storage` makes of the test's storage.
    pub(crate) async fn over(
        scripts: Vec<Script>,
        limits: RunnerLimits,
        wrap: impl FnOnce(&Arc<LocalStorage>) -> Arc<dyn Storage>,
    ) -> Self {
        Self::build(scripts, limits, false, wrap, Arc::default(), |_| ()).await
    }

    /// The same with one sheep, whose runners are strangers.
    pub(crate) async fn isolated(
        script: Script,
        wrap: impl FnOnce(&Arc<LocalStorage>) -> Arc<dyn Storage>,
    ) -> Self {
        Self::build(vec![script], RunnerLimits::default(), true, wrap, Arc::default(), |_| ()).await
    }

    /// A sheep for each script, over this queue, in a shepherd whose options are changed.
    pub(crate) async fn configured(
        scripts: Vec<Script>,
        queue: Arc<MemoryStore>,
        configure: impl FnOnce(&mut Options),
    ) -> Self {
        let wrap = |storage: &Arc<LocalStorage>| Arc::clone(storage) as _;
        Self::build(scripts, RunnerLimits::default(), false, wrap, queue, configure).await
    }

    async fn build(
        scripts: Vec<Script>,
        limits: RunnerLimits,
        is_isolated: bool,
        wrap: impl FnOnce(&Arc<LocalStorage>) -> Arc<dyn Storage>,
        queue: Arc<MemoryStore>,
        configure: impl FnOnce(&mut Options),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data_root, state) = (dir.path().join("data"), dir.path().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let mut options = Options::new(&data_root, &state);
        let mut flock = Vec::new();
        for (number, script) in scripts.into_iter().enumerate() {
            let id = SheepId::parse(&format!("sheep-{number}")).unwrap();
            let home = data_root.join(id.as_str());
            let sheep = Arc::new(FakeSheep {
                home,
                script,
                is_isolated,
                refusals: Mutex::default(),
                lacking: Mutex::default(),
                unfit: Mutex::default(),
                cause: Arc::new(Mutex::new(ExitCause::Code(3))),
                launches: AtomicUsize::new(0),
                print_delay: Arc::default(),
                vacated: Arc::default(),
                edits: AtomicU64::new(0),
            });
            flock.push(Arc::clone(&sheep));
            options.flock.push(Member { id, sheep, limits: limits.clone() });
        }
        let storage = Arc::new(LocalStorage::open(&dir.path().join("storage")).unwrap());
        options.status_document = Some(|record| format!("{:?}", record.state.phase()).into());
        configure(&mut options);
        let shepherd = Shepherd::start(options, queue, wrap(&storage)).await.unwrap();
        Self { dir, shepherd, storage, flock }
    }

    pub(crate) async fn submit(&self, name: &str, model: &str, payload: &str) -> JobId {
        let spec = spec(name, model);
        let id = spec.id.clone();
        let data = Data::Payload(payload.to_owned().into());
        self.shepherd.submit(Submit { spec, data }).await.unwrap();
        id
    }

    pub(crate) async fn finished(&self, id: &JobId) -> Arc<JobRecord> {
        tokio::time::timeout(PATIENCE, self.shepherd.finished(id)).await.expect("the job ends").unwrap()
    }

    /// The error's message of a job that fails.
    pub(crate) async fn failure(&self, id: &JobId) -> JobError {
        match &self.finished(id).await.state {
            JobState::Failed { error, .. } => error.clone(),
            other => panic!("the job did not fail: {other:?}"),
        }
    }

    pub(crate) async fn is_done(&self, id: &JobId) {
        let record = self.finished(id).await;
        assert!(matches!(record.state, JobState::Done { .. }), "{:?}", record.state);
    }

    pub(crate) async fn read(&self, id: &JobId, path: &str) -> Vec<u8> {
        let path = ObjectPath::parse(path).unwrap();
        let object = self.shepherd.open(id, &path, None).await.unwrap();
        let pieces: Vec<bytes::Bytes> = object.body.try_collect().await.unwrap();
        pieces.concat()
    }

    pub(crate) async fn shutdown(self) {
        tokio::time::timeout(PATIENCE, self.shepherd.shutdown(Duration::from_secs(5))).await.unwrap();
    }
}

pub(crate) fn spec(name: &str, model: &str) -> JobSpec {
    JobSpec {
        id: JobId::parse(name, JobIdRule::Bucket).unwrap(),
        model: ModelRef::parse(model, "1").unwrap(),
        sheep: None,
        priority: 0,
    }
}
