//! One connection through the proxy.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::framing::{Buffer, Cut};
use super::{Fault, Presence, Shared};
use crate::s3::requests::Running;

/// How a connection ends.
enum End {
    /// In order: what was sent arrives.
    Closed,
    Reset,
}

/// What is to happen to the answer that comes next.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Passes,
    Cut(Cut),
    Lost,
}

/// What both directions know.
struct Between<'c> {
    shared: &'c Shared,
    client: AsyncMutex<WriteHalf<'c>>,
    answer: Mutex<Answer>,
    /// The request that is being answered.
    running: Mutex<Option<Running>>,
}

pub(super) async fn run(client: TcpStream, shared: Arc<Shared>, mut wanted: watch::Receiver<Presence>) {
    let mut client = client;
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        reset(&client);
        return;
    };
    // Best effort: they only make it faster.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let between = Between {
            shared: &shared,
            client: AsyncMutex::new(to_client),
            answer: Mutex::new(Answer::Passes),
            running: Mutex::default(),
        };
        tokio::select! {
            end = between.requests(from_client, to_server) => end,
            end = between.answers(from_server) => end,
            _ = wanted.changed() => Ok(End::Reset),
        }
    };
    match end {
        Ok(End::Closed) => {}
        Ok(End::Reset) | Err(_) => {
            reset(&client);
            reset(&server);
        }
    }
}

/// Closing sends RST from now on.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

impl Between<'_> {
    async fn requests(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<End> {
        let mut buffer = Buffer::default();
        loop {
            let Some((bytes, head, length)) = buffer.head(&mut from).await? else {
                // The client has no more to say, and may still listen.
                to.shutdown().await?;
                return std::future::pending().await;
            };
            let running = self.shared.note(&head);
            let fault = self.shared.fault(&head);
            let mut most = u64::MAX;
            let mut answer = Answer::Passes;
            match fault {
                None => {}
                Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
                Some(Fault::Answer(status)) => {
                    buffer.body(length, u64::MAX, &mut from, &mut tokio::io::sink()).await?;
                    self.client.lock().await.write_all(&error(status, head.method == "HEAD")).await?;
                    continue;
                }
                Some(Fault::CutRequest(bytes)) => most = bytes,
                Some(Fault::CutAnswer(bytes)) => answer = Answer::Cut(Cut::after(bytes)),
                Some(Fault::LoseAnswer) => answer = Answer::Lost,
                Some(Fault::Hole) => {
                    // Until the client gives up.
                    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
                    return Ok(End::Closed);
                }
            }
            set(&self.answer, answer);
            set(&self.running, Some(running));
            let sent = async {
                to.write_all(&bytes).await?;
                buffer.body(length, most, &mut from, &mut to).await
            };
            match sent.await {
                Ok(_) if most < u64::MAX => return Ok(End::Reset),
                Ok(_) => {}
                // A server may answer before it has read everything, and close.
                Err(_) => std::future::pending().await,
            }
        }
    }

    async fn answers(&self, mut from: ReadHalf<'_>) -> io::Result<End> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut bytes).await?;
            if read == 0 {
                return Ok(End::Closed);
            }
            let (pass, over) = match &mut *self.answer.lock().unwrap_or_else(PoisonError::into_inner) {
                Answer::Passes => (read, false),
                Answer::Cut(cut) => cut.take(&bytes[..read]),
                Answer::Lost => (0, true),
            };
            self.client.lock().await.write_all(&bytes[..pass]).await?;
            if over {
                return Ok(End::Reset);
            }
        }
    }
}

fn set<T>(place: &Mutex<T>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

/// An answer as S3 servers give it.
fn error(status: u16, is_head: bool) -> Vec<u8> {
    let (reason, code) = match status {
        503 => ("Service Unavailable", "SlowDown"),
        _ => ("Internal Server Error", "InternalError"),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>from the proxy</Message></Error>"
    );
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n",
        if is_head { 0 } else { body.len() }
    );
    let body = if is_head { String::new() } else { body };
    (head + &body).into_bytes()
}
