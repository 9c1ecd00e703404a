"""What one job printed, on its way to the shepherd.

Text waits here and leaves in pieces: every :data:`PAUSE` while the job runs, and all of it before the job's answer.
Where a job prints faster than that, or the shepherd does not read, the end is kept, and the text says how many bytes
were left out. So a job that prints without end costs neither memory nor the heartbeats' way.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import ContextManager, Deque, List, Set

from . import wire
from .job import Job
from .outbox import Outbox

#: How long text waits for more while its job runs, in seconds.
PAUSE = 0.05
#: The most bytes of a job that wait.
MAX_WAITING = 128 << 10
#: The most bytes of a message, which is less than the wire takes: this module cuts, and not the wire.
_PIECE = wire.MAX_LOG - 16


class Sender:
    """The thread that sends what jobs in work have printed."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._waiting: "queue.SimpleQueue[JobLog]" = queue.SimpleQueue()

    def note(self, log: "JobLog") -> None:
        """There is something to send of this job. Takes no lock."""
        self._waiting.put(log)

    def run(self) -> None:
        """The thread, which goes on to the process's end."""
        while True:
            logs: Set[JobLog] = {self._waiting.get()}
            # The end of a job does not wait for this.
            time.sleep(PAUSE)
            while not self._waiting.empty():
                logs.add(self._waiting.get())
            for log in logs:
                log.pass_on()
            # Waits while the shepherd does not read. Meanwhile the logs leave out what is too much.
            self.outbox.flush()


class JobLog:
    """The text of one job."""

    def __init__(self, job: Job, sender: Sender, lock: ContextManager[object]) -> None:
        """``lock`` is held by whoever prints, also in the middle of anything that holds another lock; so no other
        is taken under it.
        """
        self._job = job
        self._sender = sender
        self._lock = lock
        #: Held from taking text until it is on its way, so that the order is kept. Taken before `_lock`.
        self._order = threading.Lock()
        self._texts: Deque[bytes] = deque()
        self._size = 0
        self._left_out = 0
        self._noted = False
        self._closed = False
        self._ends_line = True

    def write(self, text: bytes) -> None:
        """Adds text in UTF-8. What comes after the job's end is no concern of its log. The lock is held."""
        if self._closed or not text:
            return
        self._texts.append(text)
        self._size += len(text)
        if self._size > MAX_WAITING:
            self._leave_out(self._size - MAX_WAITING)
        if not self._noted:
            self._noted = True
            self._sender.note(self)

    def _leave_out(self, excess: int) -> None:
        # An object's end may print in the middle of this, and find that there is less.
        while excess > 0 and self._texts:
            text = self._texts.popleft()
            cut = len(text)
            if cut > excess:
                cut = excess
                # Not within a letter.
                while cut < len(text) and text[cut] & 0xC0 == 0x80:
                    cut += 1
                if cut < len(text):
                    self._texts.appendleft(text[cut:])
            excess -= cut
            self._size -= cut
            self._left_out += cut

    def pass_on(self) -> None:
        """Gives what waits to the outbox, which its caller has to flush."""
        with self._order:
            with self._lock:
                self._noted = False
                text = self._take()
            self._give(text)

    def close(self) -> None:
        """The job is over: what waits goes ahead of its answer. Without the lock."""
        with self._order:
            with self._lock:
                self._closed = True
                text = self._take()
            self._give(text)

    def _take(self) -> bytes:
        texts, self._texts = self._texts, deque()
        left_out, self._size, self._left_out = self._left_out, 0, 0
        waiting = b"".join(texts)
        if left_out:
            note = f"[{left_out} bytes were left out here]\n"
            waiting = (b"" if self._ends_line else b"\n") + note.encode() + waiting
        if waiting:
            self._ends_line = waiting.endswith(b"\n")
        return waiting

    def _give(self, text: bytes) -> None:
        at = 0
        while at < len(text):
            end = at + _PIECE
            while end < len(text) and text[end] & 0xC0 == 0x80:
                end -= 1
            message = wire.log(self._job.id, self._job.attempt, text[at:end].decode("utf-8", "replace"))
            self._sender.outbox.append(self._job._connection, message)
            at = end
