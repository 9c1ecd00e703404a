//! Bytes that were read and not understood yet.

/// How much is read at once, at least.
pub(super) const CHUNK: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Buffer {
    buffer: Vec<u8>,
    /// The bytes of the buffer that hold something.
    start: usize,
    end: usize,
}

impl Buffer {
    /// Where to read to; never empty. What begins is read to its end: the buffer
    /// grows to hold the `announced` bytes, and shrinks again. Followed by
    /// [`filled`](Self::filled).
    pub(super) fn space(&mut self, announced: usize) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = (announced + 1).max(CHUNK);
        if self.buffer.len() < wanted || (self.end == 0 && self.buffer.len() > wanted) {
            self.buffer.resize(wanted, 0);
            self.buffer.shrink_to(wanted);
        }
        &mut self.buffer[self.end..]
    }

    pub(super) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes the first `count` bytes, if there are as many.
    pub(super) fn take(&mut self, count: usize) -> Option<&[u8]> {
        if self.end - self.start < count {
            return None;
        }
        let from = self.start;
        self.start += count;
        Some(&self.buffer[from..self.start])
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}
