//! What this program and the process of one of its slots say to each other, over a
//! socket that keeps the borders of messages. Both are the same binary, so the form is
//! nobody else's concern.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The longest message. The system's own limit for one is lower.
const MAX: usize = 1 << 20;

/// A command to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The program and its arguments.
    pub(super) command: Vec<OsString>,
    /// Where it runs; absolute.
    pub(super) cwd: PathBuf,
    /// What is added to its environment.
    pub(super) env: Vec<(OsString, OsString)>,
}

/// What a slot's process is told.
#[derive(Debug)]
pub(super) enum ToSlot {
    /// Run this; its standard output and error are these.
    Run(Request, [OwnedFd; 2]),
    /// End the command ([`receive_stop`]): it has ended already.
    LateStop,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Code(i32),
    Signal(i32),
}

/// What a slot's process answers, once for each [`ToSlot::Run`].
#[derive(Debug)]
pub(super) enum Reply {
    /// The command could not be started.
    NotStarted(io::Error),
    /// The command is over.
    Ended {
        /// None when it could not be killed.
        ending: Option<Ending>,
        /// Whether all that it started is over, too.
        is_all: bool,
    },
}

const RUN: u8 = b'R';
const STOP: u8 = b'S';
const NOT_STARTED: u8 = b'N';
const ENDED: u8 = b'E';

impl Request {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![RUN];
        let mut text = |text: &[u8]| {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_ne_bytes());
            bytes.extend_from_slice(text);
        };
        text(self.cwd.as_os_str().as_bytes());
        // An empty name ends the variables: none has one.
        for (name, value) in &self.env {
            text(name.as_bytes());
            text(value.as_bytes());
        }
        text(b"");
        self.command.iter().for_each(|argument| text(argument.as_bytes()));
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut text = || {
            let (length, rest) = bytes.split_first_chunk()?;
            let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
            let (text, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            Some(OsString::from_vec(text.to_vec()))
        };
        let cwd = text()?.into();
        let mut env = Vec::new();
        loop {
            let name = text()?;
            if name.is_empty() {
                break;
            }
            env.push((name, text()?));
        }
        let command: Vec<OsString> = std::iter::from_fn(text).collect();
        (!command.is_empty()).then_some(Self { command, cwd, env })
    }
}

/// Tells a slot's process to run a command, and gives it the streams' ends.
pub(super) fn send_run(socket: impl AsFd, request: &Request, ends: &[OwnedFd; 2]) -> io::Result<()> {
    let fds = [ends[0].as_fd(), ends[1].as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    retry(|| sendmsg(&socket, &[IoSlice::new(&request.encode())], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Tells a slot's process to end its command.
pub(super) fn send_stop(socket: impl AsFd, grace: Duration) -> io::Result<()> {
    let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let mut bytes = vec![STOP];
    bytes.extend_from_slice(&millis.to_ne_bytes());
    send(socket, &bytes)
}

/// The next thing that a slot's process is told; waits for it.
/// [`io::ErrorKind::UnexpectedEof`] when nobody is there any more.
pub(super) fn receive(socket: impl AsFd) -> io::Result<ToSlot> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MAX];
    let received =
        retry(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC));
    let count = received?.bytes;
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let message = match &bytes[..count] {
        [] => return Err(io::ErrorKind::UnexpectedEof.into()),
        [RUN, rest @ ..] => match (Request::decode(rest), fds.next(), fds.next()) {
            (Some(request), Some(out), Some(err)) => Some(ToSlot::Run(request, [out, err])),
            _ => None,
        },
        [STOP, ..] => Some(ToSlot::LateStop),
        _ => None,
    };
    message.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Within which time the command in work is to end, if that was said. An error when
/// nobody is there any more.
pub(super) fn receive_stop(socket: impl AsFd) -> io::Result<Option<Duration>> {
    let mut bytes = [0; 16];
    match retry(|| rustix::net::recv(&socket, &mut bytes[..], RecvFlags::DONTWAIT)) {
        Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok((_, count)) => {
            read_stop(&bytes[..count]).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_stop(bytes: &[u8]) -> Option<Duration> {
    let millis = bytes.strip_prefix(&[STOP])?.try_into().ok()?;
    Some(Duration::from_millis(u64::from_ne_bytes(millis)))
}

/// Answers.
pub(super) fn send_reply(socket: impl AsFd, reply: &Reply) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(7);
    match reply {
        Reply::NotStarted(error) => {
            let code = error.raw_os_error().unwrap_or_else(|| Errno::INVAL.raw_os_error());
            bytes.push(NOT_STARTED);
            bytes.extend_from_slice(&code.to_ne_bytes());
        }
        Reply::Ended { ending, is_all } => {
            let (kind, value) = match ending {
                None => (0, 0),
                Some(Ending::Code(code)) => (1, *code),
                Some(Ending::Signal(signal)) => (2, *signal),
            };
            bytes.extend_from_slice(&[ENDED, kind, u8::from(*is_all)]);
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
    }
    send(socket, &bytes)
}

/// The answer if it is there. An error when none will come.
pub(super) fn receive_reply(socket: impl AsFd) -> io::Result<Option<Reply>> {
    let mut bytes = [0; 16];
    let count = match retry(|| rustix::net::recv(&socket, &mut bytes[..], RecvFlags::DONTWAIT)) {
        Ok((_, count)) => count,
        Err(Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value = |bytes: &[u8]| bytes.try_into().ok().map(i32::from_ne_bytes);
    let reply = match &bytes[..count] {
        [NOT_STARTED, code @ ..] => {
            value(code).map(|code| Reply::NotStarted(io::Error::from_raw_os_error(code)))
        }
        [ENDED, kind, is_all, rest @ ..] => value(rest).map(|value| {
            let ending = match kind {
                1 => Some(Ending::Code(value)),
                2 => Some(Ending::Signal(value)),
                _ => None,
            };
            Reply::Ended { ending, is_all: *is_all == 1 }
        }),
        _ => None,
    };
    reply.map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    retry(|| rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL))?;
    Ok(())
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn what_is_said_arrives_as_it_was_and_an_end_is_seen() {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.unwrap();
        let request = Request {
            command: ["program", "", "{\"a\": 1}", "žluť"].map(OsString::from).into(),
            cwd: "/a b".into(),
            env: vec![("A".into(), "".into()), ("B".into(), OsString::from_vec(vec![0xff]))],
        };
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let second = rustix::io::dup(&writer).unwrap();
        send_run(&ours, &request, &[writer, second]).unwrap();
        send_stop(&ours, Duration::from_millis(1500)).unwrap();
        let ToSlot::Run(received, ends) = receive(&theirs).unwrap() else { panic!() };
        assert_eq!(received, request);
        for end in ends {
            File::from(end).write_all(b"x").unwrap();
        }
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "xx");
        assert_eq!(receive_stop(&theirs).unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(receive_stop(&theirs).unwrap(), None);
        send_stop(&ours, Duration::ZERO).unwrap();
        assert!(matches!(receive(&theirs).unwrap(), ToSlot::LateStop));

        assert!(receive_reply(&ours).unwrap().is_none());
        send_reply(&theirs, &Reply::NotStarted(Errno::NOENT.into())).unwrap();
        assert!(
            matches!(receive_reply(&ours), Ok(Some(Reply::NotStarted(e))) if e.kind() == io::ErrorKind::NotFound)
        );
        for sent in [None, Some(Ending::Code(3)), Some(Ending::Signal(9))] {
            send_reply(&theirs, &Reply::Ended { ending: sent, is_all: sent.is_some() }).unwrap();
            let Ok(Some(Reply::Ended { ending, is_all })) = receive_reply(&ours) else { panic!() };
            assert_eq!((ending, is_all), (sent, sent.is_some()));
        }
        drop(theirs);
        assert!(receive_reply(&ours).is_err() && send_stop(&ours, Duration::ZERO).is_err());
    }
}
