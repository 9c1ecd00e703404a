//! Bodies of requests: what is sent, whether it gets on, and its hash.
//!
//! A body can be sent again, whole, for every try. A runner's file is read each
//! time, twice with its hash, and never held.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::fault::{Fault, Kind};
use super::sign::hex;

/// How much is handed to the connection at once.
const SLICE: usize = 256 << 10;

/// From how many bytes on hashing is left to another thread.
const HASH_ASIDE: usize = 128 << 10;

/// A body.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Bytes(Bytes),
    File(Section),
}

/// A part of a file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) len: u64,
    /// What it is called, for messages.
    pub(super) name: Arc<str>,
}

/// How far a body was sent.
pub(super) struct Progress(Mutex<Sent>);

#[derive(Clone)]
pub(super) struct Sent {
    /// When the connection took something last.
    pub(super) last: Instant,
    /// Whether it took all.
    pub(super) all: bool,
    /// Why there is no more to take.
    pub(super) broken: Option<Fault>,
}

impl Payload {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(section) => section.len,
        }
    }

    /// Its hash, as signatures need it.
    pub(super) async fn hash(&self) -> Result<String, Fault> {
        let of = self.clone();
        match self {
            Self::Bytes(bytes) if bytes.len() < HASH_ASIDE => of.hash_here(),
            Self::Bytes(_) | Self::File(_) => match tokio::task::spawn_blocking(move || of.hash_here()).await
            {
                Ok(hash) => hash,
                Err(_) => Err(Fault::new(Kind::Broken, "the program is shutting down")),
            },
        }
    }

    fn hash_here(&self) -> Result<String, Fault> {
        match self {
            Self::Bytes(bytes) => Ok(hex(&Sha256::digest(bytes))),
            Self::File(section) => {
                let (mut hash, mut section) = (Sha256::new(), section.clone());
                let mut buffer = vec![0; SLICE];
                while section.len > 0 {
                    let read = section.read(&mut buffer)?;
                    hash.update(&buffer[..read]);
                }
                Ok(hex(&hash.finalize()))
            }
        }
    }

    /// The body, to be sent once. It is taken slice by slice, as the network takes
    /// it; its length must be said in a header.
    pub(super) fn body(&self) -> (reqwest::Body, Arc<Progress>) {
        let all = self.len() == 0;
        let progress = Arc::new(Progress(Mutex::new(Sent { last: Instant::now(), all, broken: None })));
        let noted = Arc::clone(&progress);
        let slices = stream::unfold((self.clone(), noted), |(mut left, noted)| async move {
            if left.len() == 0 {
                return None;
            }
            let slice = match left.slice().await {
                Ok(slice) => {
                    noted.note(left.len() == 0);
                    Ok(slice)
                }
                Err(fault) => {
                    let error = io::Error::other(fault.to_string());
                    noted.0.lock().unwrap_or_else(PoisonError::into_inner).broken = Some(fault);
                    Err(error)
                }
            };
            Some((slice, (left, noted)))
        });
        (reqwest::Body::wrap_stream(slices), progress)
    }

    /// Takes the next slice off its front.
    async fn slice(&mut self) -> Result<Bytes, Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.split_to(SLICE.min(bytes.len()))),
            Self::File(section) => {
                let mut rest = section.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let mut buffer = vec![0; SLICE];
                    let read = rest.read(&mut buffer)?;
                    buffer.truncate(read);
                    Ok((Bytes::from(buffer), rest))
                });
                match read.await {
                    Ok(Ok((slice, rest))) => {
                        *section = rest;
                        Ok(slice)
                    }
                    Ok(Err(fault)) => Err(fault),
                    Err(_) => Err(Fault::new(Kind::Broken, "the program is shutting down")),
                }
            }
        }
    }
}

impl Section {
    /// Reads on, and takes what was read off the section.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX).min(buffer.len());
        match self.file.read_exact_at(&mut buffer[..len], self.at) {
            Ok(()) => {
                self.at += len as u64;
                self.len -= len as u64;
                Ok(len)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let message = format!("the output {:?} became shorter while it was stored", self.name);
                Err(Fault::new(Kind::Refused, message))
            }
            Err(error) => Err(Fault::new(Kind::Broken, format!("read the output {:?}: {error}", self.name))),
        }
    }
}

impl Progress {
    pub(super) fn now(&self) -> Sent {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, all: bool) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (sent.last, sent.all) = (Instant::now(), all);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn section(bytes: &[u8], at: u64, len: u64) -> Payload {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Payload::File(Section { file: Arc::new(file), at, len, name: "x".into() })
    }

    #[tokio::test]
    async fn files_and_memory_are_the_same_on_the_wire() {
        let bytes: Vec<u8> = (0..700_001_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for (from, len) in [(0, 0), (0, 5), (3, 262_144), (7, 262_145), (1, 700_000), (0, 700_001)] {
            let wanted = Bytes::copy_from_slice(&bytes[from..from + len]);
            let file = section(&bytes, from as u64, len as u64);
            let memory = Payload::Bytes(wanted.clone());
            assert_eq!(file.hash().await.unwrap(), memory.hash().await.unwrap());
            for mut payload in [file, memory] {
                let mut sent = Vec::new();
                while payload.len() > 0 {
                    sent.extend_from_slice(&payload.slice().await.unwrap());
                }
                assert!(sent == wanted);
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_refused() {
        let mut short = section(b"0123456789", 0, 11);
        assert_eq!(short.hash().await.unwrap_err().kind, Kind::Refused);
        assert_eq!(short.slice().await.unwrap_err().kind, Kind::Refused);
    }
}
