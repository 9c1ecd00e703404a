//! Both sides over real sockets: the shepherd's own wire against the nng library.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use nng::options::{Options, RecvTimeout};
use shepherd_job::{Attempt, JobId, JobIdRule};
use shepherd_protocol::{
    Connection, Error, Event, FromRunner, Input, MAX_FRAME, Peer, Ready, RecvError, RunnerReceiver,
    RunnerSender, RunnerSocket, SendError, ToRunner, Token,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

/// Long enough for any machine; no test passes by waiting for it.
const LONG: Duration = Duration::from_secs(30);

fn ipc(dir: &TempDir) -> String {
    format!("ipc://{}/runner.sock", dir.path().display())
}

fn bind(url: &str) -> (String, RunnerSender, RunnerReceiver) {
    RunnerSocket::bind(url).unwrap().split()
}

fn ping(nonce: u64) -> ToRunner {
    ToRunner::Ping { nonce }
}

fn pong(nonce: u64) -> FromRunner {
    FromRunner::Pong { nonce }
}

async fn connected(url: &str) -> Connection {
    let mut connection = Connection::dial(url).unwrap();
    assert_eq!(recv(&mut connection).await, Event::Connected);
    connection
}

async fn recv(connection: &mut Connection) -> Event<FromRunner> {
    tokio::time::timeout(LONG, connection.recv()).await.expect("an event in time")
}

async fn round_trip(url: &str) {
    let (url, sender, mut receiver) = bind(url);
    let mut connection = connected(&url).await;
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));

    let ready = FromRunner::Ready(Ready { ahead: 3, batch: 8, ..Ready::new("test") });
    sender.send(std::slice::from_ref(&ready)).unwrap();
    assert_eq!(recv(&mut connection).await, Event::Message(ready));

    let input = ToRunner::Input(Input {
        job: JobId::parse("job-1", JobIdRule::Bucket).unwrap(),
        attempt: Attempt { epoch: 1, number: 1 },
        io_data_root: "/data".into(),
        deadline: None,
    });
    let messages = [ping(1), input, ping(2)];
    connection.send(&messages).unwrap();
    for message in messages {
        assert_eq!(receiver.recv(LONG), Ok(Event::Message(message)));
    }
    sender.send(&[pong(1), pong(2)]).unwrap();
    assert_eq!(recv(&mut connection).await, Event::Message(pong(1)));
    assert_eq!(connection.try_recv(), Some(Event::Message(pong(2))));
    assert_eq!(connection.try_recv(), None);

    drop(connection);
    assert_eq!(receiver.recv(LONG), Ok(Event::Disconnected));
    assert_eq!(sender.send(&[pong(3)]), Err(SendError::NotConnected));
    sender.close();
    assert_eq!(receiver.recv(LONG), Err(RecvError::Closed));
}

#[tokio::test]
async fn messages_travel_both_ways_over_ipc() {
    let dir = TempDir::new().unwrap();
    round_trip(&ipc(&dir)).await;
}

#[tokio::test]
async fn messages_travel_both_ways_over_tcp() {
    round_trip("tcp://127.0.0.1:0").await;
}

#[tokio::test]
async fn a_runner_may_bind_long_after_it_is_dialled() {
    let dir = TempDir::new().unwrap();
    let mut connection = Connection::dial(&ipc(&dir)).unwrap();
    assert_eq!(connection.send(&[ping(1)]), Err(SendError::NotConnected));
    assert!(tokio::time::timeout(Duration::from_millis(200), connection.recv()).await.is_err());
    let (_, _sender, mut receiver) = bind(&ipc(&dir));
    assert_eq!(recv(&mut connection).await, Event::Connected);
    connection.send(&[ping(2)]).unwrap();
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(2))));
}

#[tokio::test]
async fn everything_a_runner_said_comes_before_its_end() {
    let dir = TempDir::new().unwrap();
    let mut connection = Connection::dial(&ipc(&dir)).unwrap();
    for round in 0..20_u64 {
        let (_, sender, mut receiver) = bind(&ipc(&dir));
        assert_eq!(recv(&mut connection).await, Event::Connected);
        assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
        for nonce in 0..50 {
            sender.send(&[pong(round * 50 + nonce)]).unwrap();
        }
        assert!(sender.flush(LONG));
        sender.close();
        for nonce in 0..50 {
            assert_eq!(recv(&mut connection).await, Event::Message(pong(round * 50 + nonce)));
        }
        assert_eq!(recv(&mut connection).await, Event::Disconnected);
    }
}

#[tokio::test]
async fn nothing_reaches_a_later_runner() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("runner.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let first = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"\0SP\0\0\x11\0\0").unwrap();
        let mut greeting = [0; 8];
        peer.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"\0SP\0\0\x11\0\0");
        peer
    });
    let mut connection = connected(&ipc(&dir)).await;
    let first = tokio::task::spawn_blocking(move || first.join().unwrap()).await.unwrap();
    // More than the kernel's buffers hold, so that some of it waits on this side.
    for nonce in 0..20_000 {
        connection.send(&[ping(nonce)]).unwrap();
    }
    drop(first);
    assert_eq!(recv(&mut connection).await, Event::Disconnected);
    assert_eq!(connection.send(&[ping(1)]), Err(SendError::NotConnected));

    let (_, _second, mut receiver) = bind(&ipc(&dir));
    assert_eq!(recv(&mut connection).await, Event::Connected);
    connection.send(&[ping(77)]).unwrap();
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(77))));
}

#[tokio::test]
async fn a_runner_that_does_not_read_costs_bounded_memory() {
    let dir = TempDir::new().unwrap();
    let (_, _sender, mut receiver) = bind(&ipc(&dir));
    let mut connection = connected(&ipc(&dir)).await;
    let many: Vec<_> = (0..1000).map(ping).collect();
    let mut taken = 0;
    let refused = loop {
        match connection.send(&many) {
            Ok(()) => taken += many.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SendError::Full);
    // What was taken arrives, once it is read.
    let read = tokio::task::spawn_blocking(move || {
        assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
        for index in 0..taken {
            assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(index as u64 % 1000))));
        }
        receiver
    });
    let mut receiver = tokio::select! {
        event = connection.recv() => panic!("{event:?}"),
        receiver = read => receiver.unwrap(),
    };
    connection.send(&[ping(7)]).unwrap();
    assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(7))));
    assert_eq!(connection.try_recv(), None);
}

#[tokio::test]
async fn a_shepherd_that_does_not_read_holds_the_runner_up_and_loses_nothing() {
    const MANY: u64 = 100_000;
    let dir = TempDir::new().unwrap();
    let (_, sender, mut receiver) = bind(&ipc(&dir));
    let mut connection = connected(&ipc(&dir)).await;
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    let answers = std::thread::spawn(move || {
        for nonce in 0..MANY {
            sender.send_wait(&[pong(nonce)]).unwrap();
        }
        sender
    });
    for nonce in 0..MANY {
        assert_eq!(recv(&mut connection).await, Event::Message(pong(nonce)));
    }
    answers.join().unwrap();
}

#[tokio::test]
async fn a_second_shepherd_is_turned_away() {
    let dir = TempDir::new().unwrap();
    let (_, sender, mut receiver) = bind(&ipc(&dir));
    let mut first = connected(&ipc(&dir)).await;
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    let mut second = Connection::dial(&ipc(&dir)).unwrap();
    // nng cannot refuse a peer before it believes to be connected.
    for _ in 0..3 {
        assert_eq!(recv(&mut second).await, Event::Connected);
        assert_eq!(recv(&mut second).await, Event::Disconnected);
    }
    first.send(&[ping(5)]).unwrap();
    assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(5))));
    sender.send(&[pong(5)]).unwrap();
    assert_eq!(recv(&mut first).await, Event::Message(pong(5)));

    // It takes over when the first is gone.
    drop(first);
    assert_eq!(receiver.recv(LONG), Ok(Event::Disconnected));
    let taken_over = tokio::task::spawn_blocking(move || {
        assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
        sender.send(&[pong(6)]).unwrap();
        (sender, receiver)
    });
    loop {
        match recv(&mut second).await {
            Event::Connected | Event::Disconnected => {}
            event => break assert_eq!(event, Event::Message(pong(6))),
        }
    }
    taken_over.await.unwrap();
}

#[tokio::test]
async fn a_connection_can_be_dropped_in_the_middle_of_anything() {
    let dir = TempDir::new().unwrap();
    let (_, sender, mut receiver) = bind(&ipc(&dir));
    let flood = std::thread::spawn(move || {
        let mut connections = 0;
        while connections < 20 {
            if receiver.recv(LONG) == Ok(Event::Connected) {
                connections += 1;
                while sender.send_wait(&[pong(1), pong(2)]).is_ok() {}
            }
        }
    });
    for round in 0..20 {
        let mut connection = Connection::dial(&ipc(&dir)).unwrap();
        let mut answers = 0;
        while answers <= round {
            answers += usize::from(matches!(recv(&mut connection).await, Event::Message(_)));
        }
    }
    tokio::task::spawn_blocking(move || flood.join().unwrap()).await.unwrap();
}

/// A peer that sends and sees raw frames.
fn raw_runner(url: &str) -> nng::Socket {
    let socket = nng::Socket::new(nng::Protocol::Pair1).unwrap();
    socket.set_opt::<RecvTimeout>(Some(LONG)).unwrap();
    socket.listen(url).unwrap();
    socket
}

#[tokio::test]
async fn garbage_is_reported_and_the_connection_goes_on() {
    let dir = TempDir::new().unwrap();
    let raw = raw_runner(&ipc(&dir));
    let mut connection = connected(&ipc(&dir)).await;
    for garbage in [&b"\xff\x00\xfe"[..], b"", b"{}", br#"{"message": {"message_type": "NewMessage"}}"#] {
        raw.send(garbage).unwrap();
        assert!(matches!(recv(&mut connection).await, Event::Garbage(_)));
    }
    raw.send(&br#"{"message": {"nonce": 4, "message_type": "PongMessage"}}"#[..]).unwrap();
    assert_eq!(recv(&mut connection).await, Event::Message(pong(4)));

    // What is larger than a frame may be ends the connection, and it comes again.
    raw.send(&vec![b' '; MAX_FRAME + 1]).unwrap();
    assert!(matches!(recv(&mut connection).await, Event::Garbage(_)));
    assert_eq!(recv(&mut connection).await, Event::Disconnected);
    assert_eq!(recv(&mut connection).await, Event::Connected);
}

#[tokio::test]
async fn frames_hold_as_many_messages_as_the_runner_declared() {
    let dir = TempDir::new().unwrap();
    let raw = raw_runner(&ipc(&dir));
    let mut connection = connected(&ipc(&dir)).await;
    let messages: Vec<_> = (0..5).map(ping).collect();
    let sizes = |frames: &[usize]| {
        for size in frames {
            let frame = raw.recv().unwrap();
            let text = String::from_utf8(frame.to_vec()).unwrap();
            assert_eq!(text.matches("PingMessage").count(), *size, "{text}");
            assert_eq!(text.starts_with(r#"{"messages":["#), *size > 1, "{text}");
        }
    };
    connection.send(&messages).unwrap();
    sizes(&[1, 1, 1, 1, 1]);
    raw.send(&br#"{"message": {"protocol": 1, "batch": 3, "message_type": "ReadyMessage"}}"#[..]).unwrap();
    let ready = Ready { name: String::new(), batch: 3, ..Ready::new("") };
    assert_eq!(recv(&mut connection).await, Event::Message(FromRunner::Ready(ready)));
    connection.send(&messages).unwrap();
    sizes(&[3, 2]);
}

#[tokio::test]
async fn what_cannot_be_used_is_said_at_once() {
    let dir = TempDir::new().unwrap();
    let (url, _sender, _receiver) = bind("tcp://127.0.0.1:0");
    assert!(matches!(RunnerSocket::bind(&url), Err(Error::InUse { .. })));
    let long = format!("ipc://{}/{}", dir.path().display(), "x".repeat(100));
    assert!(matches!(RunnerSocket::bind(&long), Err(Error::Url { .. })));
    assert!(matches!(Connection::dial(&long), Err(Error::Url { .. })));
    let missing = format!("ipc://{}/missing/a.sock", dir.path().display());
    assert!(matches!(RunnerSocket::bind(&missing), Err(Error::Url { .. })));
}

#[tokio::test]
async fn a_socket_file_left_behind_is_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("runner.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (_, _sender, _receiver) = bind(&ipc(&dir));
    connected(&ipc(&dir)).await;
}

#[tokio::test]
async fn a_zeromq_peer_that_asks_and_does_not_read_is_left() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut connection = Connection::dial(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    let peer = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 64];
        greeting[0] = 0xff;
        greeting[9..16].copy_from_slice(b"\x7f\x03\x01NULL");
        peer.write_all(&greeting).await.unwrap();
        peer.write_all(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER").await.unwrap();
        let pings = b"\x04\x17\x04PING\0\x00sixteen bytes of".repeat(4096);
        // Ends when it is left.
        while peer.write_all(&pings).await.is_ok() {}
    });
    assert_eq!(recv(&mut connection).await, Event::Connected);
    assert!(matches!(recv(&mut connection).await, Event::Message(FromRunner::Ready(_))));
    let Event::Garbage(garbage) = recv(&mut connection).await else { panic!("it goes on") };
    assert!(garbage.reason().contains("does not read"), "{garbage}");
    assert_eq!(recv(&mut connection).await, Event::Disconnected);
    drop(connection);
    peer.await.unwrap();
}

#[tokio::test]
async fn what_is_for_one_connection_reaches_no_later_one() {
    let dir = TempDir::new().unwrap();
    let (url, sender, mut receiver) = bind(&ipc(&dir));
    let first = connected(&url).await;
    assert_eq!(receiver.recv(Duration::MAX), Ok(Event::Connected));
    let old = receiver.connection();
    drop(first);
    assert_eq!(receiver.recv(LONG), Ok(Event::Disconnected));
    assert_eq!(sender.send_to(old, &[pong(1)]), Err(SendError::NotConnected));
    let mut second = connected(&url).await;
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    assert!(receiver.connection() > old);
    assert_eq!(sender.send_to(old, &[pong(1)]), Err(SendError::NotConnected));
    assert_eq!(sender.send_wait_to(old, &[pong(2)]), Err(SendError::NotConnected));
    sender.send_wait_to(receiver.connection(), &[pong(3)]).unwrap();
    assert_eq!(recv(&mut second).await, Event::Message(pong(3)));
}

#[tokio::test]
async fn more_than_may_wait_arrives_when_the_sender_waits() {
    let dir = TempDir::new().unwrap();
    let (url, sender, mut receiver) = bind(&ipc(&dir));
    let mut connection = connected(&url).await;
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    let log =
        |number: u64| FromRunner::Log { job: number.to_string(), attempt: None, text: "x".repeat(32 << 10) };
    let all = 200;
    let sending = std::thread::spawn(move || {
        let messages: Vec<_> = (0..all).map(log).collect();
        sender.send_wait(&messages)
    });
    for number in 0..all {
        assert_eq!(recv(&mut connection).await, Event::Message(log(number)));
    }
    assert_eq!(sending.join().unwrap(), Ok(()));
}

/// A wire by hand, on which a runner can say anything as fast as it likes.
#[derive(Clone, Copy, Debug)]
enum Wire {
    NngIpc,
    NngTcp,
    ZmqTcp,
}

const WIRES: [Wire; 3] = [Wire::NngIpc, Wire::NngTcp, Wire::ZmqTcp];

impl Wire {
    fn greeting(self) -> Vec<u8> {
        match self {
            Self::NngIpc | Self::NngTcp => b"\0SP\0\0\x11\0\0".to_vec(),
            Self::ZmqTcp => {
                let mut greeting = vec![0; 64];
                greeting[0] = 0xff;
                greeting[9..16].copy_from_slice(b"\x7f\x03\x01NULL");
                greeting.extend(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER");
                greeting
            }
        }
    }

    fn frame(self, body: &[u8]) -> Vec<u8> {
        let length = body.len() as u64;
        match self {
            Self::NngIpc => [&[1][..], &(length + 4).to_be_bytes(), &[0, 0, 0, 1], body].concat(),
            Self::NngTcp => [&(length + 4).to_be_bytes()[..], &[0, 0, 0, 1], body].concat(),
            Self::ZmqTcp => [&[2][..], &length.to_be_bytes(), body].concat(),
        }
    }

    /// A runner that sends `frames` over and over until it is left. Returns its URL, and how
    /// many bytes the system has taken from it.
    fn flooding(self, dir: &TempDir, frames: &[u8]) -> (String, Arc<AtomicU64>, std::thread::JoinHandle<()>) {
        let (greeting, frames) = (self.greeting(), frames.to_vec());
        let taken = Arc::<AtomicU64>::default();
        let count = Arc::clone(&taken);
        let flood = move |mut peer: Box<dyn Write>| {
            peer.write_all(&greeting).unwrap();
            while let Ok(bytes) = peer.write(&frames) {
                // The rest of a frame that was taken in part.
                if bytes < frames.len() && peer.write_all(&frames[bytes..]).is_err() {
                    break;
                }
                count.fetch_add(frames.len() as u64, Ordering::SeqCst);
            }
        };
        match self {
            Self::NngIpc => {
                let listener = UnixListener::bind(dir.path().join("runner.sock")).unwrap();
                let flooding = std::thread::spawn(move || flood(Box::new(listener.accept().unwrap().0)));
                (ipc(dir), taken, flooding)
            }
            Self::NngTcp | Self::ZmqTcp => {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let url = format!("tcp://{}", listener.local_addr().unwrap());
                let flooding = std::thread::spawn(move || flood(Box::new(listener.accept().unwrap().0)));
                (url, taken, flooding)
            }
        }
    }
}

/// What one turn of the connection gives its owner.
async fn turn(connection: &mut Connection) -> Vec<Event<FromRunner>> {
    let mut events = vec![recv(connection).await];
    events.extend(std::iter::from_fn(|| connection.try_recv()));
    events
}

/// As large as the largest frame of a runner that says one thing over and over.
const MANY: usize = 1024;

#[tokio::test]
async fn a_runner_that_floods_is_heard_in_bounded_turns_between_which_others_have_theirs() {
    let log = format!(r#"{{"message_type":"LogMessage","job_id":"j","text":"{}"}}"#, "x".repeat(1000));
    let small = r#"{"message":{"message_type":"PongMessage","nonce":1}}"#;
    let nothing = "x";
    for wire in WIRES {
        let large = format!(r#"{{"messages":[{}]}}"#, vec![log.as_str(); MANY].join(","));
        for body in [large.as_str(), small, nothing] {
            let frames = wire.frame(body.as_bytes()).repeat((1 << 20) / body.len() + 1);
            let dir = TempDir::new().unwrap();
            let (url, _, flooding) = wire.flooding(&dir, &frames);
            let mut connection = Connection::dial(&url).unwrap();
            let others = Arc::<AtomicU64>::default();
            let turns = Arc::clone(&others);
            let other = tokio::spawn(async move {
                loop {
                    turns.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            });
            let mut full = 0;
            for _ in 0..100 {
                let events = turn(&mut connection).await.len();
                assert!(events <= 2 * MANY + 2, "{wire:?}: {events} events at once");
                full += u64::from(events >= MANY);
                let had = others.load(Ordering::SeqCst);
                assert!(had + 1 >= full, "{wire:?}: others had {had} turns beside {full}");
            }
            assert!(full > 0, "{wire:?}: it does not flood");
            other.abort();
            drop(connection);
            flooding.join().unwrap();
        }
    }
}

#[tokio::test]
async fn a_runner_that_floods_is_held_up_while_nobody_hears_it() {
    let log = format!(
        r#"{{"message":{{"message_type":"LogMessage","job_id":"j","text":"{}"}}}}"#,
        "x".repeat(10_000)
    );
    for wire in WIRES {
        let dir = TempDir::new().unwrap();
        let (url, taken, flooding) = wire.flooding(&dir, &wire.frame(log.as_bytes()));
        let mut connection = Connection::dial(&url).unwrap();
        turn(&mut connection).await;
        // Until the kernel's buffers are full; what they hold is the system's measure.
        let mut before = u64::MAX;
        while before != taken.load(Ordering::SeqCst) {
            before = taken.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < 64 << 20, "{wire:?}: {before} bytes were taken");
        drop(connection);
        flooding.join().unwrap();
    }
}

#[tokio::test]
async fn of_the_progress_that_comes_together_the_latest_of_each_attempt_is_heard() {
    let dir = TempDir::new().unwrap();
    let (url, sender, mut receiver) = bind(&ipc(&dir));
    let mut connection = connected(&url).await;
    assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
    connection.send(&[ping(0)]).unwrap();
    assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(0))));
    let progress = |job: &str, number: u32, percent: i32| FromRunner::Progress {
        job: job.to_owned(),
        attempt: Some(Attempt { epoch: 1, number }),
        fraction: Some(f64::from(percent) / 100.0),
        message: None,
    };
    let log = |text: &str| FromRunner::Log { job: "a".to_owned(), attempt: None, text: text.to_owned() };
    let said = [
        progress("a", 1, 1),
        progress("b", 1, 2),
        progress("a", 2, 3),
        progress("a", 1, 4),
        log("x"),
        progress("a", 1, 5),
        log("y"),
    ];
    sender.send(&said).unwrap();
    let wanted = [
        progress("a", 1, 4),
        progress("b", 1, 2),
        progress("a", 2, 3),
        log("x"),
        progress("a", 1, 5),
        log("y"),
    ];
    assert_eq!(turn(&mut connection).await, wanted.map(Event::Message));
}

fn token() -> Token {
    Token::new("the launch's secret")
}

fn bind_guarded(url: &str) -> (String, RunnerSender, RunnerReceiver) {
    RunnerSocket::bind_with(url, Some(token())).unwrap().split()
}

#[tokio::test]
async fn both_sides_that_know_the_token_hear_each_other() {
    let dir = TempDir::new().unwrap();
    for url in [ipc(&dir), "tcp://127.0.0.1:0".to_owned()] {
        let (url, sender, mut receiver) = bind_guarded(&url);
        let runner = std::thread::spawn(move || {
            assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
            sender.send(&[pong(1)]).unwrap();
            let connection = receiver.connection();
            sender.send_to(connection, &[pong(2)]).unwrap();
            assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(3))));
            assert_eq!(receiver.recv(LONG), Ok(Event::Disconnected));
        });
        let mut connection = Connection::dial(&url).unwrap().with_token(token());
        assert_eq!(recv(&mut connection).await, Event::Connected);
        assert_eq!(connection.peer(), Peer::Unknown);
        assert_eq!(recv(&mut connection).await, Event::Message(pong(1)));
        assert_eq!(connection.peer(), Peer::Proven);
        assert_eq!(recv(&mut connection).await, Event::Message(pong(2)));
        connection.send(&[ping(3)]).unwrap();
        drop(connection);
        tokio::task::spawn_blocking(move || runner.join().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_runner_hears_and_tells_nobody_who_does_not_know_its_token() {
    let (url, sender, mut receiver) = bind_guarded("tcp://127.0.0.1:0");
    let runner = std::thread::spawn(move || {
        // Until the shepherd comes: nothing of those who came before.
        assert_eq!(receiver.recv(LONG), Ok(Event::Connected));
        assert_eq!(receiver.recv(LONG), Ok(Event::Message(ping(7))));
        receiver
    });
    for token in [None, Some(Token::new("a guess"))] {
        let mut stranger = Connection::dial(&url).unwrap();
        if let Some(token) = token {
            stranger = stranger.with_token(token);
        }
        assert_eq!(recv(&mut stranger).await, Event::Connected);
        // It says nothing by itself, and is let go by and by; or it says what it should not.
        let _ = stranger.send(&[ping(1)]);
        assert_eq!(sender.send(&[pong(1)]), Err(SendError::NotConnected));
        loop {
            match recv(&mut stranger).await {
                Event::Disconnected => break,
                Event::Garbage(garbage) => {
                    assert!(garbage.reason().contains("ChallengeMessage"), "{garbage}");
                }
                event @ (Event::Message(_) | Event::Connected) => panic!("{event:?}"),
            }
        }
    }
    let mut connection = Connection::dial(&url).unwrap().with_token(token());
    while connection.peer() != Peer::Proven {
        let event = tokio::time::timeout(Duration::from_millis(20), connection.recv()).await;
        assert!(!matches!(event, Ok(Event::Message(_) | Event::Garbage(_))), "{event:?}");
    }
    connection.send(&[ping(7)]).unwrap();
    let mut heard = std::pin::pin!(tokio::task::spawn_blocking(move || runner.join().unwrap()));
    tokio::select! {
        event = connection.recv() => panic!("{event:?}"),
        receiver = &mut heard => drop(receiver.unwrap()),
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_makes_room_for_the_shepherd() {
    let (url, _sender, mut receiver) = bind_guarded("tcp://127.0.0.1:0");
    let runner = std::thread::spawn(move || receiver.recv(LONG));
    let mut silent = std::net::TcpStream::connect(url.strip_prefix("tcp://").unwrap()).unwrap();
    silent.write_all(b"\0SP\0\0\x11\0\0").unwrap();
    let mut connection = Connection::dial(&url).unwrap().with_token(token());
    while connection.peer() != Peer::Proven {
        let _ = tokio::time::timeout(Duration::from_millis(20), connection.recv()).await;
    }
    assert_eq!(runner.join().unwrap(), Ok(Event::Connected));
}

#[tokio::test]
async fn an_impostor_is_found_out_before_it_is_told_anything() {
    let (url, sender, mut receiver) =
        RunnerSocket::bind_with("tcp://127.0.0.1:0", Some(Token::new("a guess"))).unwrap().split();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    // It takes part for as long as it is asked to, however slow the machine is.
    let runner = std::thread::spawn(move || {
        loop {
            let heard = receiver.recv(Duration::from_millis(100));
            if heard != Err(RecvError::Timeout) || stopped.try_recv() != Err(TryRecvError::Empty) {
                return heard;
            }
        }
    });
    let mut connection = Connection::dial(&url).unwrap().with_token(token());
    assert_eq!(recv(&mut connection).await, Event::Connected);
    // One that refuses our proof, which is good, again and again.
    let garbage = loop {
        match recv(&mut connection).await {
            Event::Garbage(garbage) => break garbage,
            event => assert!(matches!(event, Event::Connected | Event::Disconnected), "{event:?}"),
        }
    };
    assert!(garbage.reason().contains("does not know the token"), "{garbage}");
    assert_eq!(connection.peer(), Peer::Impostor);
    // It heard nothing.
    drop(stop);
    let heard = tokio::task::spawn_blocking(move || runner.join().unwrap()).await.unwrap();
    assert_eq!(heard, Err(RecvError::Timeout));

    // One that goes on regardless.
    drop((connection, sender));

    let dir = TempDir::new().unwrap();
    let raw = raw_runner(&ipc(&dir));
    let mut connection = Connection::dial(&ipc(&dir)).unwrap().with_token(token());
    assert_eq!(recv(&mut connection).await, Event::Connected);
    raw.send(&br#"{"message":{"challenge":"abc","message_type":"ChallengeMessage"}}"#[..]).unwrap();
    raw.send(&br#"{"message":{"proof":"00","message_type":"ProofMessage"}}"#[..]).unwrap();
    let Event::Garbage(garbage) = recv(&mut connection).await else { panic!("it is believed") };
    assert!(garbage.reason().contains("does not know the token"), "{garbage}");
    assert_eq!(connection.peer(), Peer::Impostor);
    assert_eq!(recv(&mut connection).await, Event::Disconnected);
}

#[tokio::test]
async fn a_runner_that_knows_no_tokens_is_heard_and_unproven() {
    let dir = TempDir::new().unwrap();
    let raw = raw_runner(&ipc(&dir));
    let mut connection = Connection::dial(&ipc(&dir)).unwrap().with_token(token());
    assert_eq!(recv(&mut connection).await, Event::Connected);
    raw.send(&br#"{"message": {"protocol": 1, "message_type": "ReadyMessage"}}"#[..]).unwrap();
    assert!(matches!(recv(&mut connection).await, Event::Message(FromRunner::Ready(_))));
    assert_eq!(connection.peer(), Peer::Unproven);
}
