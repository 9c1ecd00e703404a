//! Frames: `{"message": {...}}` or `{"messages": [{...}, ...]}`.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Wire, lossy_utf8};
use crate::{Garbage, MAX_BATCH};

/// What goes around and between the messages of a frame.
pub(crate) struct Envelope {
    pub(crate) head: &'static [u8],
    pub(crate) tail: &'static [u8],
}

/// The envelope for `count` messages, which are separated by commas.
pub(crate) fn envelope(count: usize) -> Envelope {
    if count == 1 {
        Envelope { head: br#"{"message":"#, tail: b"}" }
    } else {
        Envelope { head: br#"{"messages":["#, tail: b"]}" }
    }
}

/// A parsed frame whose messages are `R`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Frame<R> {
    message: Option<R>,
    #[serde(default)]
    messages: Messages<R>,
}

impl<R> Frame<R> {
    fn into_iter(self) -> impl Iterator<Item = R> {
        self.message.into_iter().chain(self.messages.0)
    }

    fn is_empty(&self) -> bool {
        self.message.is_none() && self.messages.0.is_empty()
    }
}

/// At most [`MAX_BATCH`] messages: what a peer sends decides nothing about how
/// much memory is taken.
struct Messages<R>(Vec<R>);

impl<R> Default for Messages<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, R: Deserialize<'de>> Deserialize<'de> for Messages<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<R>(PhantomData<R>);
        impl<'de, R: Deserialize<'de>> Visitor<'de> for List<R> {
            type Value = Messages<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = list.next_element()? {
                    if messages.len() == MAX_BATCH as usize {
                        return Err(A::Error::custom(format_args!(
                            "more than {MAX_BATCH} messages in a frame"
                        )));
                    }
                    messages.push(message);
                }
                Ok(Messages(messages))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// Gives every message of a frame to `sink`, in order.
pub(crate) fn decode<M: Wire>(frame: &[u8], mut sink: impl FnMut(Result<M, Garbage>)) {
    match serde_json::from_slice::<Frame<M::Record<'_>>>(frame) {
        Ok(parsed) if parsed.is_empty() => sink(Err(Garbage::new("a frame without a message", frame))),
        Ok(parsed) => {
            for record in parsed.into_iter() {
                sink(M::read(record).map_err(|reason| Garbage::new(reason, frame)));
            }
        }
        Err(_) => decode_apart(&lossy_utf8::text(frame), sink),
    }
}

/// The slow way: each message by itself.
fn decode_apart<M: Wire>(frame: &str, mut sink: impl FnMut(Result<M, Garbage>)) {
    match serde_json::from_str::<Frame<&RawValue>>(frame) {
        Ok(parsed) if parsed.is_empty() => {
            sink(Err(Garbage::new("a frame without a message", frame.as_bytes())));
        }
        Ok(parsed) => {
            for message in parsed.into_iter() {
                let record = serde_json::from_str::<M::Record<'_>>(message.get()).map_err(|e| e.to_string());
                sink(
                    record.and_then(M::read).map_err(|reason| Garbage::new(reason, message.get().as_bytes())),
                );
            }
        }
        Err(error) => sink(Err(Garbage::new(error.to_string(), frame.as_bytes()))),
    }
}
