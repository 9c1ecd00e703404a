//! What is the same for all ways to serve: the socket, the threads around the work,
//! and the end of both.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use shepherd_protocol::{FromRunner, Ready, RunnerReceiver, RunnerSocket};
use signal_hook::iterator::Handle;

use super::answers::Answers;
use super::work::Work;
use super::{reader, shutdown};
use crate::job::Outlet;
use crate::log::Noted;
use crate::output::Output;
use crate::{Options, ServeError, panic};

/// How long the last answers may take to leave.
const FLUSH: Duration = Duration::from_secs(1);

/// A runner that can be reached. Dropping it breaks off, and whoever is connected sees
/// that the runner is gone; [`end`](Self::end) ends orderly.
pub(super) struct Service {
    pub(super) work: Arc<Work>,
    pub(super) answers: Arc<Answers>,
    outlet: Arc<Outlet>,
    signals: Option<Handle>,
    threads: Vec<JoinHandle<()>>,
    ended: bool,
}

impl Service {
    /// Listens, and answers heartbeats; takes inputs once it is
    /// [ready](Work::set_ready). `slots` is how many jobs can be in work.
    pub(super) fn start(options: Options, slots: u32) -> Result<Self, ServeError> {
        panic::watch();
        let (_, sender, receiver) =
            RunnerSocket::bind_with(&options.listen, options.token).map_err(ServeError::Listen)?.split();
        let (logs, frame) = (options.logs || options.capture_output, options.batch.max(1));
        let output = if options.capture_output { Output::captured() } else { Ok(Output::default()) };
        let output = output.map_err(ServeError::Start)?;
        let ready = Ready { slots, ahead: options.ahead, batch: frame, logs, ..Ready::new(options.name) };
        let outlet = Arc::new(Outlet { sender: sender.clone(), output, logs: logs.then(Noted::default) });
        let answers = Arc::new(Answers::new(sender, frame as usize));
        let mut service = Self {
            work: Arc::new(Work::new(Arc::clone(&outlet), Arc::clone(&answers), FromRunner::Ready(ready))),
            answers,
            outlet,
            signals: None,
            threads: Vec::new(),
            ended: false,
        };
        service.start_threads(receiver, options.grace).map_err(ServeError::Start)?;
        Ok(service)
    }

    fn start_threads(&mut self, receiver: RunnerReceiver, grace: Duration) -> io::Result<()> {
        self.signals = Some(shutdown::on_signals(&self.work, grace)?);
        let (work, answers) = (Arc::clone(&self.work), Arc::clone(&self.answers));
        self.spawn("reader", move || reader::run(receiver, &work, &answers, grace))?;
        let answers = Arc::clone(&self.answers);
        self.spawn("answers", move || answers.run())?;
        if self.outlet.logs.is_some() {
            let (outlet, answers) = (Arc::clone(&self.outlet), Arc::clone(&self.answers));
            self.spawn("logs", move || pass_logs_on(&outlet, &answers))?;
        }
        Ok(())
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// What the process prints.
    pub(super) fn output(&self) -> &Output {
        &self.outlet.output
    }

    /// All work is over. What was answered leaves before the connection ends.
    pub(super) fn end(mut self) {
        self.ended = true;
        // Until here a shepherd that reads nothing cannot keep a runner from ending.
        self.answers.close();
        self.outlet.sender.flush(FLUSH);
        self.close();
        for thread in self.threads.drain(..) {
            // None of them panics, and there is nobody left to tell if one did.
            let _ = thread.join();
        }
    }

    fn close(&self) {
        self.work.finish();
        self.answers.abandon();
        if let Some(logs) = &self.outlet.logs {
            logs.close();
        }
        self.outlet.sender.close();
        if let Some(signals) = &self.signals {
            signals.close();
        }
        self.outlet.output.restore();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.ended {
            self.close();
        }
    }
}

/// The thread that sends what jobs in work have printed.
fn pass_logs_on(outlet: &Outlet, answers: &Answers) {
    let Some(logs) = &outlet.logs else { return };
    while let Some(jobs) = logs.next() {
        for job in jobs {
            job.pass_log_on(|messages| answers.append(job.connection(), messages));
        }
        // Waits while the shepherd does not read. Meanwhile the logs leave out what is
        // too much.
        answers.send();
    }
}
