//! The wire by hand: nng and JSON, without a line of the shepherd's own protocol
//! crate, so that a mistake there is not repeated here.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nng::options::{Options as _, RecvMaxSize, SendTimeout};
use nng::{PipeEvent, Protocol, Socket};
use nng_c_sys as _;
use serde_json::{Value, json};
use shepherd_tests::{Journal, Script};

use crate::work;

/// Inputs taken beyond the one in work: what was sent ahead can go lost with us.
const AHEAD: u32 = 3;

/// A job as the shepherd sent it.
struct Input {
    job: String,
    attempt: String,
    root: String,
}

/// Attempts that were cancelled.
#[derive(Clone, Default)]
struct Cancelled(Arc<Mutex<HashSet<String>>>);

impl Cancelled {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the shepherd says that it is enough.
pub(crate) fn serve(url: &str, journal: Option<Journal>) -> anyhow::Result<()> {
    let socket = open()?;
    let (connected, connections) = channel();
    socket.pipe_notify(move |_, event| {
        if event == PipeEvent::AddPost {
            let _ = connected.send(());
        }
    })?;
    socket.listen(url)?;
    std::thread::spawn({
        let socket = socket.clone();
        move || {
            // A connection is told once that we are ready.
            for () in connections {
                let ready = json!({
                    "message_type": "ReadyMessage", "protocol": 1, "name": "raw", "slots": 1, "ahead": AHEAD,
                    "logs": true, "a key from the future": {},
                });
                say(&socket, &ready);
            }
        }
    });
    let (inputs, queue) = channel();
    let cancelled = Cancelled::default();
    std::thread::spawn({
        let (socket, cancelled) = (socket.clone(), cancelled.clone());
        move || work_off(&socket, &queue, &cancelled, journal.as_ref())
    });
    listen(&socket, &inputs, &cancelled)
}

/// Says things that are no messages to whoever connects.
pub(crate) fn babble(url: &str) -> anyhow::Result<()> {
    let socket = open()?;
    socket.listen(url)?;
    loop {
        for frame in GARBAGE {
            let _ = socket.send(*frame);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn open() -> anyhow::Result<Socket> {
    let socket = Socket::new(Protocol::Pair1)?;
    socket.set_opt::<RecvMaxSize>(16 << 20)?;
    socket.set_opt::<SendTimeout>(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

/// Hears what the shepherd says; the work is another thread's, so that a ping is
/// answered at once.
fn listen(socket: &Socket, inputs: &Sender<Input>, cancelled: &Cancelled) -> anyhow::Result<()> {
    loop {
        let frame = socket.recv()?;
        let frame: Value = serde_json::from_slice(&frame)?;
        let messages = match (&frame["message"], &frame["messages"]) {
            (_, Value::Array(messages)) => messages.as_slice(),
            (message, _) => std::slice::from_ref(message),
        };
        for message in messages {
            let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
            match message["message_type"].as_str() {
                Some("InputMessage") => {
                    inputs.send(Input {
                        job: text("job_id"),
                        attempt: text("attempt"),
                        root: text("io_data_root"),
                    })?;
                }
                Some("PingMessage") => {
                    say(socket, &json!({"message_type": "PongMessage", "nonce": message["nonce"]}));
                }
                Some("CancelMessage") => {
                    cancelled.lock().insert(text("attempt") + &text("job_id"));
                }
                Some("ShutdownMessage") => std::process::exit(0),
                _ => eprintln!("unknown message {message}"),
            }
        }
    }
}

fn work_off(socket: &Socket, queue: &Receiver<Input>, cancelled: &Cancelled, journal: Option<&Journal>) {
    for input in queue {
        let key = input.attempt.clone() + &input.job;
        let is_cancelled = || cancelled.lock().contains(&key);
        if is_cancelled() {
            say(socket, &failed(&input, "cancelled", "Cancelled"));
            continue;
        }
        let dir = Path::new(&input.root).join(&input.job);
        let sheep = Path::new(&input.root).file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(journal) = journal
            && let Err(e) = journal.note_run(&input.job, &input.attempt, &sheep)
        {
            eprintln!("cannot write the journal: {e}");
        }
        if let Some(script) = work::script(&dir)
            && misbehave(socket, &input, &dir, &script)
        {
            continue;
        }
        let voice = OnTheWire { socket, input: &input };
        let answer = match work::work_aloud(&dir, &is_cancelled, &voice) {
            Ok(()) => done(&input.job, &input.attempt),
            Err(_) if is_cancelled() => failed(&input, "cancelled", "Cancelled"),
            Err(e) => failed(&input, &format!("{e:#}"), ""),
        };
        say(socket, &answer);
    }
}

/// Carries out a script that is about the wire; whether it was one.
fn misbehave(socket: &Socket, input: &Input, dir: &Path, script: &Script) -> bool {
    match script {
        Script::Garbage => {
            for frame in GARBAGE {
                let _ = socket.send(*frame);
            }
            let _ = work::write(&dir.join("outputs/output"), "after the garbage");
            say(socket, &done(&input.job, &input.attempt));
        }
        Script::AnswerFor { job } => {
            say(socket, &done(job, &input.attempt));
            say(socket, &json!({"message_type": "DoneMessage", "job_id": job}));
            say(socket, &failed(input, "lied", ""));
        }
        Script::AnswerTwice => {
            let _ = work::write(&dir.join("outputs/output"), "answered");
            say(socket, &done(&input.job, &input.attempt));
            say(socket, &failed(input, "answered again", ""));
            say(socket, &done(&input.job, &input.attempt));
        }
        Script::StaleAnswer { marker } => {
            if work::is_first(marker).unwrap_or(false) {
                let _ = std::fs::write(marker, &input.attempt);
                std::process::exit(1);
            }
            let first = std::fs::read_to_string(marker).unwrap_or_default();
            let _ = work::write(&dir.join("outputs/output"), "stale");
            say(socket, &done(&input.job, &first));
            say(socket, &failed(input, "fresh", ""));
        }
        Script::Say(_)
        | Script::Gate(_)
        | Script::Env(_)
        | Script::Files(_)
        | Script::Copy
        | Script::Many(_)
        | Script::Big(_)
        | Script::Sparse(_)
        | Script::Noise
        | Script::Steps(_)
        | Script::Nothing
        | Script::Link(_)
        | Script::Fail(_)
        | Script::Exit(_)
        | Script::ExitOnce { .. }
        | Script::Hang { .. } => return false,
    }
    true
}

/// Tells the shepherd what a job prints and how far it is.
struct OnTheWire<'a> {
    socket: &'a Socket,
    input: &'a Input,
}

impl work::Voice for OnTheWire<'_> {
    fn print(&self, text: &str) -> anyhow::Result<()> {
        let Input { job, attempt, .. } = self.input;
        let log = json!({"message_type": "LogMessage", "job_id": job, "attempt": attempt, "text": text});
        say(self.socket, &log);
        Ok(())
    }

    fn progress(&self, fraction: f64, message: &str) {
        let Input { job, attempt, .. } = self.input;
        let report = json!({
            "message_type": "ProgressMessage", "job_id": job, "attempt": attempt, "fraction": fraction,
            "message": message,
        });
        say(self.socket, &report);
    }
}

fn done(job: &str, attempt: &str) -> Value {
    json!({"message_type": "DoneMessage", "identity": "", "job_id": job, "attempt": attempt})
}

fn failed(input: &Input, message: &str, kind: &str) -> Value {
    json!({
        "message_type": "ErrorMessage", "identity": "", "job_id": input.job, "attempt": input.attempt,
        "message": message, "exception_type": kind, "exception_traceback": "",
    })
}

/// Sends a message. Nobody is there to be told when that fails: the shepherd is gone.
fn say(socket: &Socket, message: &Value) {
    let frame = json!({ "message": message }).to_string();
    if let Err((_, e)) = socket.send(frame.as_bytes()) {
        eprintln!("cannot send {frame}: {e}");
    }
}

/// Frames that are no messages.
const GARBAGE: &[&[u8]] = &[
    b"",
    b"\0",
    b"\xff\xfe\xfd",
    b"{",
    b"null",
    b"[]",
    b"42",
    b"{}",
    b"{\"message\": null}",
    b"{\"message\": {}}",
    b"{\"messages\": [1, null, {}]}",
    b"{\"message\": {\"message_type\": \"NonsenseMessage\"}}",
    b"{\"message\": {\"message_type\": \"DoneMessage\"}}",
    b"{\"message\": {\"message_type\": \"DoneMessage\", \"job_id\": 7, \"attempt\": []}}",
    b"{\"message\": {\"message_type\": \"DoneMessage\", \"job_id\": \"../../etc/passwd\", \"attempt\": \"1-1\"}}",
    b"{\"message\": {\"message_type\": \"PongMessage\", \"nonce\": 18446744073709551615}}",
    b"{\"message\": {\"message_type\": \"ErrorMessage\", \"job_id\": \"x\", \"attempt\": \"-\"}}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];
