//! `transport` and `port`: how a sheep's runner is spoken to.

use super::{Flock, Port, PortHolder};
use crate::read::Section;

/// How a runner is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A socket in the sheep's directory.
    Ipc,
    /// A port of this machine.
    Tcp {
        /// The port.
        port: u16,
    },
    /// As the first shepherd spoke to its runners, at a port of this machine.
    Zmq {
        /// The port.
        port: u16,
    },
}

/// The word that names a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Ipc,
    Tcp,
    Zmq,
}

/// The transport and the configured port, which may be there and not be used.
/// `leads` says what the port is for where it is missing.
pub(super) fn read(
    section: &Section<'_>,
    default: Word,
    holder: PortHolder,
    leads: fn(&str) -> String,
    flock: &mut Flock,
) -> Option<(Transport, Option<u16>)> {
    let words = [("ipc", Word::Ipc), ("tcp", Word::Tcp), ("zmq", Word::Zmq)];
    let word = section.value_or("transport", default, |value| value.choice(&words));
    // The original always asked for a port, so one that is not used is welcome.
    let unused = || section.optional("port", |value| value.number(1..=u16::MAX));
    match word {
        None => {
            unused();
            None
        }
        Some(Word::Ipc) => Some((Transport::Ipc, unused()?)),
        Some(Word::Tcp) => {
            let port = read_port(section, holder, &leads("tcp"), flock)?;
            Some((Transport::Tcp { port }, Some(port)))
        }
        Some(Word::Zmq) => {
            let port = read_port(section, holder, &leads("zmq"), flock)?;
            Some((Transport::Zmq { port }, Some(port)))
        }
    }
}

/// A port that is listened on for the sheep.
fn read_port(section: &Section<'_>, holder: PortHolder, expected: &str, flock: &mut Flock) -> Option<u16> {
    let value = section.require("port", expected)?;
    let number = value.number(1..=u16::MAX)?;
    flock.ports.push(Port { number, key: value.key.clone(), place: value.place().clone(), holder });
    Some(number)
}
