//! A proxy that breaks what goes through it.
//!
//! It reads as much HTTP/1.1 as it must to tell one request from the next, passes
//! the bytes as they are, and does to chosen requests what networks and servers do:
//! delays, errors, resets in the middle of a body, silence. It can also be away, as
//! a server is that does not run: connections are refused, and those that were open
//! are reset.

mod connection;
mod framing;

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::requests::{Request, Requests};
use super::thread::Thread;

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on after this time.
    Delay(Duration),
    /// It is answered with this status and the error that S3 has for it; the server
    /// never sees it.
    Answer(u16),
    /// The connection is reset when this many bytes of its body were passed on.
    /// Those of a shorter body all are.
    CutRequest(u64),
    /// The connection is reset when this many bytes of the answer's body were passed
    /// on, as they are sent. A shorter answer is passed whole.
    CutAnswer(u64),
    /// The server gets all of it and answers; the connection is reset then.
    LoseAnswer,
    /// It is taken and never answered.
    Hole,
}

/// The beginning of a request, by which it may be chosen.
#[derive(Clone, Debug)]
pub struct Head {
    /// `GET` and so on.
    pub method: String,
    /// The path and query, as they were sent.
    pub target: String,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _thread: Thread,
}

#[derive(Debug)]
pub(super) struct Shared {
    upstream: SocketAddr,
    requests: Requests,
    rules: Mutex<Vec<Rule>>,
    wanted: watch::Sender<Presence>,
    reached: watch::Sender<Presence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Unknown,
    There,
    Away,
}

type Chooses = Box<dyn Fn(&Head) -> bool + Send>;

struct Rule {
    fault: Fault,
    left: u64,
    hits: watch::Sender<u64>,
    chooses: Chooses,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("fault", &self.fault).field("left", &self.left).finish_non_exhaustive()
    }
}

/// A fault that was injected. It stays when this is dropped.
#[derive(Debug)]
pub struct Injected {
    shared: Arc<Shared>,
    hits: watch::Receiver<u64>,
}

impl Proxy {
    /// Starts one in front of a server, through which everything goes unharmed.
    pub async fn start(upstream: SocketAddr) -> Self {
        // It takes the same port again when it comes back, so nobody else may have it meanwhile.
        let address = SocketAddr::from(([127, 0, 0, 1], crate::free_port()));
        let shared = Arc::new(Shared {
            upstream,
            requests: Requests::default(),
            rules: Mutex::default(),
            wanted: watch::Sender::new(Presence::There),
            reached: watch::Sender::new(Presence::Unknown),
        });
        let running = Arc::clone(&shared);
        let thread = Thread::run(move || run(address, running));
        let proxy = Self { address, shared, _thread: thread };
        proxy.be(Presence::There).await;
        proxy
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came to it.
    pub fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    /// Does `fault` to the next `times` requests that `chooses` is true of; to all of
    /// them with `u64::MAX`. Of several that fit, the one that was injected first acts.
    pub fn inject(
        &self,
        fault: Fault,
        times: u64,
        chooses: impl Fn(&Head) -> bool + Send + 'static,
    ) -> Injected {
        let (sender, hits) = watch::channel(0);
        let rule = Rule { fault, left: times, hits: sender, chooses: Box::new(chooses) };
        self.shared.lock().push(rule);
        Injected { shared: Arc::clone(&self.shared), hits }
    }

    /// Lifts every fault; being away is none.
    pub fn clear(&self) {
        self.shared.lock().clear();
    }

    /// Resets every connection and refuses new ones, from when this returns.
    pub async fn away(&self) {
        self.be(Presence::Away).await;
    }

    /// Accepts connections again.
    pub async fn back(&self) {
        self.be(Presence::There).await;
    }

    async fn be(&self, presence: Presence) {
        let mut reached = self.shared.reached.subscribe();
        self.shared.wanted.send_if_modified(|wanted| std::mem::replace(wanted, presence) != presence);
        let reached = reached.wait_for(|reached| *reached == presence);
        let reached = tokio::time::timeout(crate::PATIENCE, reached).await;
        assert!(matches!(reached, Ok(Ok(_))), "the proxy did not become {presence:?}");
    }
}

impl Injected {
    /// How many requests it was done to.
    pub fn hits(&self) -> u64 {
        *self.hits.borrow()
    }

    /// Waits until it was done to this many requests.
    ///
    /// # Panics
    /// When it was not.
    pub async fn hit(&self, times: u64) {
        let mut hits = self.hits.clone();
        let hit = tokio::time::timeout(crate::PATIENCE, hits.wait_for(|hits| *hits >= times)).await;
        let hit = hit.is_ok_and(|hit| hit.is_ok());
        assert!(hit, "the fault was to hit {times} requests and hit {}", self.hits());
    }

    /// Does it to no more requests.
    pub fn lift(&self) {
        self.shared.lock().retain(|rule| !rule.hits.subscribe().same_channel(&self.hits));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done to a request; what it returns is used up.
    fn fault(&self, head: &Head) -> Option<Fault> {
        let mut rules = self.lock();
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && (rule.chooses)(head))?;
        rule.left -= 1;
        rule.hits.send_modify(|hits| *hits += 1);
        Some(rule.fault)
    }

    fn note(&self, head: &Head) -> super::requests::Running {
        self.requests.begin(Request::new(&head.method, &head.target))
    }
}

async fn run(address: SocketAddr, shared: Arc<Shared>) {
    let mut wanted = shared.wanted.subscribe();
    loop {
        let presence = *wanted.borrow_and_update();
        // A port that is bound and not listened at refuses connections.
        let socket = bind(address);
        if presence == Presence::There {
            let listener = socket.listen(1024).expect("a bound socket can listen");
            shared.reached.send_replace(presence);
            accept(&listener, &shared, &mut wanted).await;
            deafen(listener);
        } else {
            shared.reached.send_replace(presence);
            // The sender is in what we hold.
            let _ = wanted.changed().await;
        }
    }
}

/// Ends listening for good. Closing alone does not: a process that another test is
/// just starting holds a copy of the socket until it is its own program, and the port
/// could not be taken again for as long.
fn deafen(listener: TcpListener) {
    let listener = listener.into_std().expect("a listener can leave the runtime");
    let shut = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
    shut.expect("a listener can be shut");
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("a socket can be told");
    socket.bind(address).unwrap_or_else(|e| panic!("{address} was free a moment ago: {e}"));
    socket
}

/// Serves until something else is wanted, and resets what is open then.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, wanted: &mut watch::Receiver<Presence>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let changed = shared.wanted.subscribe();
                connections.spawn(connection::run(stream, Arc::clone(shared), changed));
            }
            Some(_) = connections.join_next() => {}
            _ = wanted.changed() => break,
        }
    }
    // Each sees the change by itself, and resets what it holds.
    while connections.join_next().await.is_some() {}
}
