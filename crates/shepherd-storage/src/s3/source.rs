//! Bodies on their way out, cut into parts.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use super::payload::{Payload, Section};
use crate::{Body, Result, StorageError};

/// Where parts come from.
pub(super) enum Source {
    /// What somebody sends us. It is held in memory, so that it can be sent again.
    Body(Stream),
    /// What is left of a runner's file.
    File(Section),
}

/// A body, of which something may have been looked at.
pub(super) struct Stream {
    body: Body,
    held: VecDeque<Bytes>,
    len: usize,
    ended: bool,
}

impl Stream {
    pub(super) fn new(body: Body) -> Self {
        Self { body, held: VecDeque::new(), len: 0, ended: false }
    }

    /// Reads on until `len` bytes are held or the body ends, and tells whether it
    /// ended with no more than these.
    pub(super) async fn hold(&mut self, len: usize) -> Result<bool> {
        while self.len <= len && !self.ended {
            match self.body.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.len += piece.len();
                    self.held.push_back(piece);
                }
                Some(Err(error)) => {
                    return Err(StorageError::Invalid(format!("the body broke off: {error}")));
                }
                None => self.ended = true,
            }
        }
        Ok(self.ended && self.len <= len)
    }

    /// Takes up to `len` of the bytes that are held.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        let len = len.min(self.len);
        self.len -= len;
        match self.held.front_mut() {
            // What came in one piece is not copied.
            Some(first) if first.len() > len => return first.split_to(len),
            Some(first) if first.len() == len => return self.held.pop_front().unwrap_or_default(),
            Some(_) | None => {}
        }
        let mut taken = BytesMut::with_capacity(len);
        while taken.len() < len
            && let Some(first) = self.held.front_mut()
        {
            let wanted = len - taken.len();
            if first.len() > wanted {
                taken.extend_from_slice(&first.split_to(wanted));
            } else {
                taken.extend_from_slice(first);
                self.held.pop_front();
            }
        }
        taken.freeze()
    }
}

impl Source {
    /// The next part of up to `len` bytes; none at the end.
    pub(super) async fn part(&mut self, len: u64) -> Result<Option<Payload>> {
        let part = match self {
            Self::Body(stream) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                stream.hold(len).await?;
                Payload::Bytes(stream.take(len))
            }
            Self::File(rest) => {
                let part = Section { len: len.min(rest.len), ..rest.clone() };
                (rest.at, rest.len) = (rest.at + part.len, rest.len - part.len);
                Payload::File(part)
            }
        };
        Ok(Some(part).filter(|part| part.len() > 0))
    }

    /// How long all of it is, where that is known.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Body(_) => None,
            Self::File(rest) => Some(rest.len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parts(pieces: &[usize], len: usize) -> Vec<usize> {
        let total: usize = pieces.iter().sum();
        let all: Bytes = (0..total).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>().into();
        let mut at = 0;
        let pieces: Vec<_> = pieces
            .iter()
            .map(|len| {
                at += len;
                Ok(all.slice(at - len..at))
            })
            .collect();
        let mut source = Source::Body(Stream::new(futures::stream::iter(pieces).boxed()));
        let (mut parts, mut read) = (Vec::new(), Vec::new());
        while let Some(part) = source.part(len as u64).await.unwrap() {
            let Payload::Bytes(part) = part else { panic!("a body is in memory") };
            parts.push(part.len());
            read.extend_from_slice(&part);
        }
        assert!(read == all);
        parts
    }

    #[tokio::test]
    async fn parts_do_not_depend_on_pieces() {
        assert_eq!(parts(&[], 10).await, [0; 0]);
        assert_eq!(parts(&[0, 10, 0], 10).await, [10]);
        assert_eq!(parts(&[25], 10).await, [10, 10, 5]);
        assert_eq!(parts(&[1; 25], 10).await, [10, 10, 5]);
        assert_eq!(parts(&[7, 7, 7], 10).await, [10, 10, 1]);
        assert_eq!(parts(&[3, 40, 3], 10).await, [10, 10, 10, 10, 6]);
    }

    #[tokio::test]
    async fn a_body_is_held_only_as_far_as_needed() {
        let mut asked = 0;
        let endless = futures::stream::repeat_with(move || {
            asked += 1;
            assert!(asked <= 3, "too much was read");
            Ok(Bytes::from_static(b"0123456789"))
        });
        let mut stream = Stream::new(endless.boxed());
        assert!(!stream.hold(25).await.unwrap());
        assert!(!stream.hold(29).await.unwrap());
        assert_eq!(stream.take(25).len(), 25);
    }
}
