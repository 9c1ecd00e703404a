//! One run of a runner, shared by the thread that minds it and the handle that
//! the shepherd holds.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use shepherd_job::JobId;
use tokio::sync::watch;

use super::output::Output;
use super::process::Tree;
use super::sockets::{self, Socket};
use super::{BareOptions, Transport};
use crate::lines::AtWork;
use crate::token::Token;
use crate::{Astray, Exit, RunningSheep};

/// How long a runner whose connection is gone may take to be seen dead.
const DEATH_TIMEOUT: Duration = Duration::from_millis(500);

/// What both sides know of a run.
#[derive(Default)]
pub(super) struct Run {
    token: Token,
    tree: Mutex<Option<Tree>>,
    target: Mutex<Target>,
    exit: watch::Sender<Option<Exit>>,
    /// From the runner's start on.
    output: Mutex<Option<Output>>,
    at_work: AtWork,
}

#[derive(Default)]
struct Target {
    /// The leader of the runner's group, from after its fork until before it is
    /// reaped: a signal sent under the lock never meets another process.
    leader: Option<Pid>,
    /// Whether it is to die as soon as it can.
    doomed: bool,
}

impl Run {
    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor forked the runner.
    pub(super) fn born(&self, leader: Pid, output: Output) {
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        let mut target = self.target();
        target.leader = Some(leader);
        if target.doomed {
            signal(leader, Signal::KILL);
        }
    }

    /// The secret of the launch.
    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    /// The run's processes are these.
    pub(super) fn is_led(&self, tree: Tree) {
        *self.tree.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree);
    }

    /// Does something with what the runner writes, once there is a runner.
    pub(super) fn with_output<T>(&self, work: impl FnOnce(&mut Output) -> T) -> Option<T> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    pub(super) fn at_work(&self) -> &AtWork {
        &self.at_work
    }

    /// The monitor is about to reap the runner.
    pub(super) fn dead(&self) {
        self.target().leader = None;
    }

    /// Nothing of the run is left.
    pub(super) fn end(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    pub(super) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await;
        // The sender is a field of `self`: it is not dropped meanwhile.
        exit.map_or_else(|_| Exit::unknown(), |exit| exit.clone().unwrap_or_else(Exit::unknown))
    }

    pub(super) fn kill(&self) {
        let mut target = self.target();
        target.doomed = true;
        if let Some(leader) = target.leader {
            signal(leader, Signal::KILL);
        }
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.target().doomed
    }

    fn ask_to_end(&self) {
        if let Some(leader) = self.target().leader {
            signal(leader, Signal::TERM);
            // A stopped process acts on the first signal only once it continues.
            signal(leader, Signal::CONT);
        }
    }
}

fn signal(leader: Pid, signal: Signal) {
    // The unreaped leader keeps its group in being; only a runner that changed its
    // user can refuse, and the monitor then finds it alive and says so.
    let _ = rustix::process::kill_process_group(leader, signal);
}

/// The shepherd's side of a run.
pub(super) struct Handle {
    run: Arc<Run>,
    pub(super) endpoint: String,
    options: Arc<BareOptions>,
}

impl Handle {
    pub(super) fn new(run: Arc<Run>, options: Arc<BareOptions>) -> Self {
        Self { run, endpoint: String::new(), options }
    }

    /// Looks at the sockets of the run's processes.
    async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&[Socket], &HashSet<u64>) -> T + Send + 'static,
    ) -> Result<T, String> {
        let tree = self.run.tree.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inspect = move || {
            let processes = tree.map_or(Ok(Vec::new()), |tree| tree.living())?;
            Ok::<_, io::Error>(look(&Socket::all()?, &sockets::open_in(&processes)))
        };
        match tokio::task::spawn_blocking(inspect).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(format!("cannot read /proc: {error}")),
            Err(error) => Err(format!("cannot look at the runner's sockets: {error}")),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.run.kill();
    }
}

#[async_trait]
impl RunningSheep for Handle {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn io_data_root(&self) -> &Path {
        &self.options.data_root
    }

    fn token(&self) -> Option<&str> {
        Some(self.run.token.as_str())
    }

    async fn verify_peer(&mut self, ours: SocketAddr, theirs: SocketAddr) -> Result<(), String> {
        let find = move |sockets: &[Socket], open: &HashSet<u64>| {
            let peer = sockets.iter().find(|socket| socket.local == theirs && socket.remote == ours);
            peer.map(|peer| (peer.is_in(open), peer.user))
        };
        match self.inspect(find).await? {
            Some((true, _)) => Ok(()),
            Some((false, user)) => Err(format!(
                "a process of user {user} that is not the runner's listens at {theirs}, and does not know the \
                 runner's token"
            )),
            // It is gone, or in another network namespace.
            None if tokio::time::timeout(DEATH_TIMEOUT, self.run.ended()).await.is_ok() => Ok(()),
            None => Err(format!("it cannot be found out whose process listens at {theirs}")),
        }
    }

    async fn astray(&mut self) -> Option<Astray> {
        let listening = self.inspect(|sockets, open| {
            let listening = sockets.iter().filter(|socket| socket.is_listener() && socket.is_in(open));
            listening.map(|socket| socket.local.port()).collect::<Vec<_>>()
        });
        // Where it cannot be seen, there is nothing to say.
        let listening = listening.await.ok()?;
        let port = self.options.port;
        // Clients are told what follows, and no path of this machine.
        match self.options.transport {
            Transport::Ipc
                if self.endpoint.strip_prefix("ipc://").is_some_and(|path| Path::new(path).exists()) =>
            {
                None
            }
            Transport::Ipc if listening.contains(&port) => Some(Astray {
                message: format!(
                    "it listens at port {port}, and not at its socket: it does not know SHEPHERD_LISTEN, as those \
                     that were made for the first shepherd; give the sheep `transport: tcp` and a `port`"
                ),
                is_for_good: true,
            }),
            Transport::Tcp if listening.contains(&port) => None,
            Transport::Ipc => listening.first().map(|other| Astray {
                message: format!("it listens at port {other}, and not at its socket"),
                is_for_good: false,
            }),
            Transport::Tcp => listening.first().map(|other| Astray {
                message: format!("it listens at port {other}, and not at port {port}"),
                is_for_good: false,
            }),
        }
    }

    async fn exited(&mut self) -> Exit {
        self.run.ended().await
    }

    fn printed(&mut self) -> String {
        self.run.with_output(Output::printed).unwrap_or_default()
    }

    fn works_on(&self, job: Option<&JobId>) {
        self.run.at_work.set(job.cloned());
    }

    async fn stop(&mut self, grace: Duration) -> Exit {
        self.run.ask_to_end();
        if let Ok(exit) = tokio::time::timeout(grace, self.run.ended()).await {
            return exit;
        }
        self.run.kill();
        self.run.ended().await
    }

    fn kill(&mut self) {
        self.run.kill();
    }
}
