"""The process's descriptors 1 and 2, read by this process itself.

Each is a pipe. A thread passes on what comes through it, and whoever wants everything that was written so far to have
been passed on calls :meth:`Capture.drain`. What native libraries and child processes write comes this way.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import Callable, ContextManager, Dict, List

#: As much as a pipe holds, so that one read takes what was there.
_PIPE = 64 << 10
_IOLBF = 1


class Capture:
    """Stands between the descriptors and where they led."""

    def __init__(self, lock: ContextManager[object], passed: Callable[[int, bytes], None]) -> None:
        """``passed`` is given what was written to a descriptor, with the ``lock`` held.

        Raises :class:`OSError` when the descriptors are not open, and leaves them then.
        """
        self._lock = lock
        self._passed = passed
        #: What the descriptors led to.
        self.originals: Dict[int, int] = {}
        self._readers: Dict[int, int] = {}
        writers: Dict[int, int] = {}
        try:
            for fd in (1, 2):
                self.originals[fd] = os.dup(fd)
                reader, writers[fd] = os.pipe()
                os.set_blocking(reader, False)
                self._readers[reader] = fd
        except OSError:
            self._close([*self.originals.values(), *self._readers, *writers.values()])
            raise
        #: Passes on what C's `stdout` holds back, such as the beginning of a line.
        self.flush_c = _line_buffer_c()
        for fd, writer in writers.items():
            os.dup2(writer, fd)
        self._close(list(writers.values()))
        # A poll object may be in use once at a time.
        self._now = self._poll()
        threading.Thread(target=self._run, name="shepherd-output", daemon=True).start()

    def _poll(self) -> "select.poll":
        poll = select.poll()
        for reader in self._readers:
            poll.register(reader, select.POLLIN)
        return poll

    @staticmethod
    def _close(fds: List[int]) -> None:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    def drain(self) -> None:
        """Passes on what was written before this was called. The lock is held."""
        for reader, _ in self._now.poll(0):
            try:
                data = os.read(reader, _PIPE)
            except BlockingIOError:
                # An object's end or a signal's handler, which printed in the middle of this, has passed it on.
                continue
            if data:
                self._passed(self._readers[reader], data)
            else:
                # Nobody has the other end any more.
                with contextlib.suppress(KeyError):
                    self._now.unregister(reader)

    def _run(self) -> None:
        poll = self._poll()
        open_ = len(self._readers)
        while open_:
            for reader, event in poll.poll():
                if not event & select.POLLIN:
                    poll.unregister(reader)
                    open_ -= 1
            with self._lock:
                self.drain()

    def restore(self) -> None:
        """Has the descriptors lead where they did. What children still write is passed on. The lock is held."""
        for fd, original in self.originals.items():
            with contextlib.suppress(OSError):
                os.dup2(original, fd)
        self.drain()

    def forget(self) -> None:
        """In a forked child, which writes to its parent's pipes and must not read from them."""
        self._close(list(self._readers))


def _line_buffer_c() -> Callable[[], None]:
    """Has C's `stdout` pass on each line: into a pipe it would wait for some thousand bytes, and be of a later job.
    Returns what has it pass on the rest.
    """
    with contextlib.suppress(Exception):
        import ctypes

        c = ctypes.CDLL(None)
        stdout = ctypes.c_void_p(ctypes.c_void_p.in_dll(c, "stdout").value)
        # Only looks, and so need not let go of the interpreter's lock.
        held = ctypes.PyDLL(None)["__fpending"]
        held.restype = ctypes.c_size_t

        def flush() -> None:
            if held(stdout):
                c.fflush(stdout)

        if stdout.value is not None:
            c.fflush(stdout)
            c.setvbuf(stdout, None, _IOLBF, 0)
            return flush
    return lambda: None
