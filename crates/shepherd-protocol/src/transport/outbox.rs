//! Messages that wait for the peer to read the ones before them.

use std::collections::VecDeque;

use crate::codec::envelope;

/// How many bytes may wait.
const LIMIT: usize = 4 << 20;
/// Messages are put together up to this many bytes a frame.
const FRAME: usize = 256 << 10;

/// A bounded queue of encoded messages.
#[derive(Default)]
pub(super) struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    /// Takes all of the messages or none.
    pub(super) fn push(&mut self, messages: Vec<Vec<u8>>) -> Result<(), Vec<Vec<u8>>> {
        let bytes: usize = messages.iter().map(Vec::len).sum();
        if self.bytes + bytes > LIMIT {
            return Err(messages);
        }
        self.bytes += bytes;
        self.messages.extend(messages);
        Ok(())
    }

    /// Takes from the beginning of the messages what may wait now: leaves room for those
    /// that nobody waits for, and takes one at least where nothing waits.
    pub(super) fn push_some(&mut self, messages: &mut VecDeque<Vec<u8>>) {
        while let Some(message) =
            messages.pop_front_if(|next| self.bytes == 0 || self.bytes + next.len() <= LIMIT / 2)
        {
            self.bytes += message.len();
            self.messages.push_back(message);
        }
    }

    /// The next frame, of at most `batch` messages.
    pub(super) fn frame(&mut self, batch: usize) -> Option<nng::Message> {
        let mut count = 0;
        let mut bytes = 0;
        for message in self.messages.iter().take(batch.max(1)) {
            if count > 0 && bytes + message.len() > FRAME {
                break;
            }
            count += 1;
            bytes += message.len() + 1;
        }
        if count == 0 {
            return None;
        }
        let envelope = envelope(count);
        let mut frame = nng::Message::with_capacity(envelope.head.len() + bytes + envelope.tail.len());
        frame.push_back(envelope.head);
        for (index, message) in self.messages.drain(..count).enumerate() {
            if index > 0 {
                frame.push_back(b",");
            }
            self.bytes -= message.len();
            frame.push_back(&message);
        }
        frame.push_back(envelope.tail);
        Some(frame)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outbox: &mut Outbox, batch: usize) -> Option<String> {
        outbox.frame(batch).map(|frame| String::from_utf8(frame.to_vec()).unwrap())
    }

    #[test]
    fn messages_are_put_together_up_to_the_batch() {
        let mut outbox = Outbox::default();
        outbox.push(vec![b"{1}".to_vec(), b"{2}".to_vec(), b"{3}".to_vec()]).unwrap();
        assert_eq!(text(&mut outbox, 2).as_deref(), Some(r#"{"messages":[{1},{2}]}"#));
        assert_eq!(text(&mut outbox, 2).as_deref(), Some(r#"{"message":{3}}"#));
        assert_eq!(text(&mut outbox, 2), None);
        assert!(outbox.is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn a_frame_stays_small_and_a_large_message_goes_alone() {
        let mut outbox = Outbox::default();
        outbox.push(vec![vec![b' '; FRAME], b"{}".to_vec(), b"{}".to_vec()]).unwrap();
        assert!(text(&mut outbox, 9).unwrap().starts_with("{\"message\": "));
        assert_eq!(text(&mut outbox, 9).as_deref(), Some(r#"{"messages":[{},{}]}"#));
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut outbox = Outbox::default();
        outbox.push(vec![vec![0; LIMIT - 1]]).unwrap();
        assert!(outbox.push(vec![vec![0], vec![0]]).is_err());
        assert!(outbox.push(vec![vec![0]]).is_ok());
        outbox.clear();
        assert!(outbox.push(vec![vec![0; LIMIT]]).is_ok());
    }
}
