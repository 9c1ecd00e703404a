//! N clients on one thread, each with a connection of its own, each sending its
//! next request as soon as the last was answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::connection::{Answer, Connection};
use crate::percentile::Times;
use crate::poll::Poll;

/// What one client does.
pub(crate) trait Client {
    /// Writes the next request into `request`, which is empty. `answer` is that to
    /// the last one; there is none at first. Without a request the client is done.
    ///
    /// # Errors
    /// The answer is not what it should be: the measurement is worthless.
    fn next(&mut self, answer: Option<Answer<'_>>, request: &mut Vec<u8>) -> anyhow::Result<Step>;
}

/// Where a client is.
pub(crate) enum Step {
    /// In the middle of what is measured.
    Middle,
    /// It has just completed what is measured, and begins anew.
    Completed,
    /// It has just completed what is measured, and has nothing more to do.
    Last,
    /// It has nothing to do.
    Done,
}

/// When to measure, from the start on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) length: Duration,
}

/// What was measured.
pub(crate) struct Measured<U> {
    /// The times of all that was completed within the window.
    pub(crate) times: Times,
    /// What `read` gave at the window's beginning and end.
    pub(crate) readings: (U, U),
    /// How long the window really was.
    pub(crate) length: Duration,
}

impl<U> Measured<U> {
    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.length.as_secs_f64()
    }
}

/// Runs clients until the window is over or all are done. `read` is called at its
/// beginning and at its end.
pub(crate) fn run<C: Client, U>(
    address: SocketAddr,
    clients: Vec<C>,
    window: Window,
    mut read: impl FnMut() -> U,
) -> anyhow::Result<Measured<U>> {
    let mut poll = Poll::new()?;
    let mut seats = Vec::with_capacity(clients.len());
    for (key, client) in clients.into_iter().enumerate() {
        let connection = Connection::open(address).context("connecting")?;
        poll.add(connection.stream(), key)?;
        seats.push(Seat { connection, client, since: Instant::now() });
    }
    let mut request = Vec::new();
    let mut busy = seats.len();
    let start = Instant::now();
    for seat in &mut seats {
        if !seat.begin(&mut request)? {
            busy -= 1;
        }
    }
    let mut times = Times::default();
    let mut ready = Vec::new();
    let (begin, end) = (start + window.from, start + window.from + window.length);
    let mut first = if window.from.is_zero() { Some((Instant::now(), read())) } else { None };
    loop {
        let next = if first.is_none() { begin } else { end };
        if busy == 0 || Instant::now() >= next {
            match first {
                None if busy > 0 => first = Some((Instant::now(), read())),
                None => anyhow::bail!("the clients were done before it was measured"),
                Some((since, reading)) => {
                    let length = since.elapsed();
                    return Ok(Measured { times, readings: (reading, read()), length });
                }
            }
        }
        poll.wait(if first.is_none() { begin } else { end }, &mut ready)?;
        for key in &ready {
            match seats[*key].go_on(&mut request)? {
                Turn::Waits => {}
                Turn::Completed(time) if first.is_some() => times.push(time),
                Turn::Completed(_) => {}
                Turn::Ended(time) => {
                    if first.is_some() {
                        times.extend(time);
                    }
                    busy -= 1;
                }
            }
        }
    }
}

struct Seat<C> {
    connection: Connection,
    client: C,
    since: Instant,
}

enum Turn {
    Waits,
    Completed(Duration),
    Ended(Option<Duration>),
}

impl<C: Client> Seat<C> {
    /// Sends the first request; whether there is one.
    fn begin(&mut self, request: &mut Vec<u8>) -> anyhow::Result<bool> {
        request.clear();
        match self.client.next(None, request)? {
            Step::Middle | Step::Completed => {}
            Step::Last | Step::Done => return Ok(false),
        }
        self.since = Instant::now();
        self.connection.send(request)?;
        Ok(true)
    }

    /// Takes what has arrived, and sends the next request after a whole answer.
    fn go_on(&mut self, request: &mut Vec<u8>) -> anyhow::Result<Turn> {
        request.clear();
        let client = &mut self.client;
        let Some(step) = self.connection.receive(|answer| client.next(Some(answer), request))? else {
            return Ok(Turn::Waits);
        };
        let turn = match step? {
            Step::Middle => Turn::Waits,
            Step::Completed => {
                let now = Instant::now();
                Turn::Completed(now - std::mem::replace(&mut self.since, now))
            }
            Step::Last => return Ok(Turn::Ended(Some(self.since.elapsed()))),
            Step::Done => return Ok(Turn::Ended(None)),
        };
        self.connection.send(request)?;
        Ok(turn)
    }
}
