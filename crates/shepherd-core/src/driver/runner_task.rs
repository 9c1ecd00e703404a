//! The task of one launch: it starts a runner, passes on what the runner says and what it is to
//! be told, keeps what it prints with the job that printed it, and ends it.

use std::sync::Arc;
use std::time::Duration;

use shepherd_job::ModelRef;
use shepherd_protocol::{FromRunner, ToRunner};
use shepherd_sheep::Sheep;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::runner::{Heard, Runner};
use super::words::OwnWords;
use super::{Inputs, on_disk};
use crate::engine::{AtWork, EndKind, EndReport, Input, LaunchFailure, LaunchNo, SheepNo};
use crate::live::Live;
use crate::workdir::WorkDirs;

/// How often it is looked what a runner has printed.
const PRINT_PERIOD: Duration = Duration::from_millis(250);

/// What a launch is told.
#[derive(Debug)]
pub(super) enum Command {
    WorksOn(Option<AtWork>),
    Send(Vec<ToRunner>),
    End { grace: Duration, kind: EndKind },
}

/// What a launch needs.
pub(super) struct Launch {
    pub(super) sheep: Arc<dyn Sheep>,
    pub(super) dirs: Arc<WorkDirs>,
    pub(super) model: ModelRef,
    pub(super) start_timeout: Duration,
    pub(super) no: SheepNo,
    pub(super) launch: LaunchNo,
    pub(super) live: Arc<Live>,
    pub(super) inputs: Inputs,
    /// Set when the time to drain is over.
    pub(super) forced: CancellationToken,
    /// When the sender is dropped, so is the runner.
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
}

impl Launch {
    /// Runs the launch until the runner is gone.
    pub(super) async fn run(mut self) {
        let (sheep, launch) = (self.no, self.launch);
        let start =
            start(Arc::clone(&self.sheep), Arc::clone(&self.dirs), self.model.clone(), self.start_timeout);
        let started = tokio::select! {
            started = start => started,
            // It was aborted: dropping the start ends what was started. Nothing is sent before
            // the runner is ready.
            _ = self.commands.recv() => return,
        };
        match started {
            Ok((runner, stamp)) => {
                let facts = runner.facts(stamp);
                self.inputs.send(Input::Launched { sheep, launch, runner: facts }).await;
                let words = OwnWords::default();
                Attended { at_work: None, is_answered: false, words, held: None, runner, launch: self }
                    .attend()
                    .await;
            }
            Err(failure) => self.inputs.send(Input::LaunchFailed { sheep, launch, failure }).await,
        }
    }
}

/// Starts a runner where nothing is left that another model's runners had before it, and gives the
/// state that its model had before.
async fn start(
    sheep: Arc<dyn Sheep>,
    dirs: Arc<WorkDirs>,
    model: ModelRef,
    timeout: Duration,
) -> Result<(Box<Runner>, Option<u64>), LaunchFailure> {
    if dirs.is_isolated() {
        let cleared = on_disk(&dirs, WorkDirs::clear).await;
        cleared.map_err(|e| LaunchFailure::Sheep(format!("the sheep's directory cannot be cleared: {e}")))?;
    }
    let (looks, looked_at) = (Arc::clone(&sheep), model.clone());
    // Before it is read.
    let stamp = on_disk(&dirs, move |_| looks.model_stamp(&looked_at)).await;
    let runner = Runner::start(sheep, model, timeout).await?;
    Ok((runner, stamp))
}

/// A runner that is ready.
struct Attended {
    launch: Launch,
    runner: Box<Runner>,
    /// The job that it works on, and since when.
    at_work: Option<(AtWork, Instant)>,
    /// It has answered that job. What it prints now is of the next one, of which the engine will
    /// tell: the job's log may be in the store's hands by then, and must not begin anew.
    is_answered: bool,
    words: OwnWords,
    /// Messages with an answer, until what its job printed last has come. Nothing else is heard
    /// of the runner meanwhile.
    held: Option<(Instant, Vec<FromRunner>)>,
}

impl Attended {
    async fn attend(mut self) {
        let (sheep, launch) = (self.launch.no, self.launch.launch);
        let (mut is_fading, mut is_dead) = (false, false);
        let mut printing = tokio::time::interval(PRINT_PERIOD);
        printing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let held_until = self.held.as_ref().map(|(until, _)| *until);
            // Cancel-safe: what a branch would lose stays in its channel, or in the runner.
            tokio::select! {
                biased;
                command = self.launch.commands.recv() => match command {
                    None => return,
                    Some(Command::WorksOn(job)) => self.works_on(job),
                    Some(Command::Send(messages)) => {
                        if let Err(reason) = self.runner.send(&messages) {
                            self.tell(Input::Unreliable { sheep, launch, reason }).await;
                        }
                    }
                    Some(Command::End { grace, kind }) => return self.end(grace, kind).await,
                },
                () = until(held_until), if held_until.is_some() => self.let_through().await,
                heard = self.runner.hear(), if held_until.is_none() && !is_dead => {
                    self.take(heard, &mut is_dead).await;
                    if !self.runner.is_there() && !std::mem::replace(&mut is_fading, true) {
                        self.tell(Input::Fading { sheep, launch }).await;
                    }
                }
                _ = printing.tick() => self.take_printed(),
            }
        }
    }

    async fn tell(&mut self, input: Input) {
        self.launch.inputs.send(input).await;
    }

    async fn take(&mut self, heard: Heard, is_dead: &mut bool) {
        let (sheep, launch) = (self.launch.no, self.launch.launch);
        match heard {
            Heard::Messages(messages) if messages.is_empty() => {}
            Heard::Messages(messages) => {
                let is_answer = messages.iter().any(FromRunner::is_answer);
                if is_answer {
                    self.take_printed();
                }
                match self.last_words().filter(|_| is_answer) {
                    Some(delay) => self.held = Some((Instant::now() + delay, messages)),
                    None => {
                        self.note_answers(&messages);
                        self.tell(Input::Heard { sheep, launch, messages }).await;
                    }
                }
            }
            Heard::Garbage(reason) => {
                let reason = format!("the runner sent a message that cannot be understood: {reason}");
                self.tell(Input::Unreliable { sheep, launch, reason }).await;
            }
            Heard::Died(death) => {
                *is_dead = true;
                self.take_printed();
                self.tell(Input::Lost { sheep, launch, death }).await;
            }
        }
    }

    /// How long what the job printed last may be on its way when it is answered; none where
    /// waiting for it costs the runner more than a little.
    fn last_words(&self) -> Option<Duration> {
        let delay = Some(self.runner.print_delay())
            .filter(|delay| !delay.is_zero() && self.runner.prints_for_jobs())?;
        let (job, since) = self.at_work.as_ref()?;
        let is_little = job.is_only || since.elapsed() >= 10 * delay;
        is_little.then_some(delay)
    }

    /// Passes on the messages that waited for what their jobs printed last.
    async fn let_through(&mut self) {
        let (sheep, launch) = (self.launch.no, self.launch.launch);
        if let Some((_, messages)) = self.held.take() {
            self.take_printed();
            self.note_answers(&messages);
            self.tell(Input::Heard { sheep, launch, messages }).await;
        }
    }

    fn note_answers(&mut self, messages: &[FromRunner]) {
        let Some((at_work, _)) = &self.at_work else { return };
        let is_its_answer = |message: &FromRunner| match message {
            FromRunner::Done { job, attempt } | FromRunner::Error { job, attempt, .. } => {
                job == at_work.job.as_str() && attempt.is_none_or(|token| token.number == at_work.number)
            }
            FromRunner::Progress { .. }
            | FromRunner::Log { .. }
            | FromRunner::Ready(_)
            | FromRunner::Pong { .. } => false,
        };
        self.is_answered |= messages.iter().any(is_its_answer);
    }

    /// What the runner prints from now on is of this job.
    fn works_on(&mut self, job: Option<AtWork>) {
        self.take_printed();
        self.is_answered = false;
        let before = self.at_work.take();
        let is_same = |new: &AtWork| before.as_ref().is_some_and(|(old, _)| old.attempt == new.attempt);
        let since = match &before {
            Some((_, since)) if job.as_ref().is_some_and(is_same) => *since,
            Some(_) | None => {
                self.runner.works_on(job.as_ref().map(|job| &job.job));
                Instant::now()
            }
        };
        self.at_work = job.map(|job| (job, since));
    }

    /// Takes what the runner has printed. It is noted as the words of the job that the runner
    /// works on alone; of a runner that does not say itself what jobs print, it is the job's log.
    /// Where one job follows another at once, lines between them may go to the wrong one.
    fn take_printed(&mut self) {
        if self.is_answered {
            return;
        }
        let text = self.runner.printed();
        let job = self.at_work.as_ref().map(|(job, _)| job);
        let prints_for_jobs = self.runner.prints_for_jobs();
        note_printed(&text, job, &mut self.words, &self.launch.live, prints_for_jobs);
    }

    async fn end(mut self, grace: Duration, kind: EndKind) {
        let (sheep, launch) = (self.launch.no, self.launch.launch);
        // What it answered it has answered.
        self.let_through().await;
        let forced = self.launch.forced.clone();
        let (inputs, report) = match kind {
            EndKind::Leave => {
                let Self { launch, runner, .. } = self;
                runner.leave(grace, forced).await;
                (launch.inputs, EndReport::default())
            }
            EndKind::Stop => {
                self.take_printed();
                let Self { launch, runner, at_work, is_answered, mut words, .. } = self;
                let prints_for_jobs = runner.prints_for_jobs();
                let ended = runner.stop(grace, forced).await;
                let job = at_work.as_ref().filter(|_| !is_answered).map(|(job, _)| job);
                note_printed(&ended.printed, job, &mut words, &launch.live, prints_for_jobs);
                let own = words.own().map(|(job, text)| (job, text.to_owned()));
                (launch.inputs, EndReport { how: ended.how, own })
            }
        };
        inputs.send(Input::Ended { sheep, launch, report }).await;
    }
}

fn note_printed(text: &str, job: Option<&AtWork>, words: &mut OwnWords, live: &Live, prints_for_jobs: bool) {
    if text.is_empty() {
        return;
    }
    words.add(job.filter(|job| job.is_alone).map(|job| job.attempt), text);
    if prints_for_jobs && let Some(job) = job {
        live.print(&job.job, job.number, text);
    }
}

/// Never, where there is no time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
