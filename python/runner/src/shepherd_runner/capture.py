"""The process's descriptors 1 and 2, read by this process itself.

Each is a pipe. A thread passes on what comes through it, and whoever wants everything that was written so far to have
been passed on calls :meth:`Capture.drain`. What native libraries and child processes write comes this way.

A child process that a job has left behind goes on writing to the pipes that it was born with. So a job that may have
left one leaves the pipes, too: the next has others.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import threading
from typing import Callable, ContextManager, Dict, List, Tuple

#: As much as a pipe holds, so that one read takes what was there.
_PIPE = 64 << 10
_IOLBF = 1


class _Pipes:
    """A pipe in the place of each descriptor."""

    def __init__(self) -> None:
        """Puts them there. Raises :class:`OSError` when there is no room for them, and changes nothing then."""
        #: Which descriptor each is read for.
        self.readers: Dict[int, int] = {}
        #: Others have taken their place: only children still write to them.
        self.is_left = False
        writers: Dict[int, int] = {}
        try:
            for fd in (1, 2):
                reader, writers[fd] = os.pipe()
                self.readers[reader] = fd
                os.set_blocking(reader, False)
        except OSError:
            _close([*self.readers, *writers.values()])
            raise
        for fd, writer in writers.items():
            os.dup2(writer, fd)
        _close(list(writers.values()))
        # A poll object may be in use once at a time.
        self.now = self.poll()

    def poll(self) -> "select.poll":
        poll = select.poll()
        for reader in self.readers:
            poll.register(reader, select.POLLIN)
        return poll


class Capture:
    """Stands between the descriptors and where they led."""

    def __init__(self, lock: ContextManager[object], passed: Callable[[int, bytes, bool], None]) -> None:
        """``passed`` is given what was written to a descriptor, and whether that was left by an earlier job, with the
        ``lock`` held.

        Raises :class:`OSError` when the descriptors are not open, and leaves them then.
        """
        self._lock = lock
        self._passed = passed
        #: What the descriptors led to.
        self.originals: Dict[int, int] = {}
        try:
            for fd in (1, 2):
                self.originals[fd] = os.dup(fd)
            #: Passes on what C's `stdout` holds back, such as the beginning of a line.
            self.flush_c = _line_buffer_c()
            self._pipes = self._begin()
        except OSError:
            _close(list(self.originals.values()))
            raise
        self._children = _reaped_children()

    def _begin(self) -> _Pipes:
        pipes = _Pipes()
        threading.Thread(target=self._run, args=(pipes,), name="shepherd-output", daemon=True).start()
        return pipes

    def drain(self) -> None:
        """Passes on what was written before this was called. The lock is held."""
        self._drain(self._pipes)

    def _drain(self, pipes: _Pipes) -> None:
        for reader, _ in pipes.now.poll(0):
            try:
                data = os.read(reader, _PIPE)
            except BlockingIOError:
                # An object's end or a signal's handler, which printed in the middle of this, has passed it on.
                continue
            if data:
                self._passed(pipes.readers[reader], data, pipes.is_left)
            else:
                # Nobody has the other end any more.
                with contextlib.suppress(KeyError):
                    pipes.now.unregister(reader)

    def _run(self, pipes: _Pipes) -> None:
        poll = pipes.poll()
        open_ = set(pipes.readers)
        while open_:
            for reader, event in poll.poll():
                if not event & select.POLLIN:
                    poll.unregister(reader)
                    open_.discard(reader)
            with self._lock:
                self._drain(pipes)
        with self._lock:
            if pipes.is_left:
                _close(list(pipes.readers))
                pipes.readers.clear()

    def leave_children(self) -> None:
        """A job is over, and its output was drained: what a child process of its still writes is of no other job. The
        lock is held.

        Raises :class:`OSError` when there is no room for other pipes.
        """
        reaped = _reaped_children()
        if reaped != self._children or _has_children():
            self._children = reaped
            pipes, self._pipes = self._pipes, self._begin()
            pipes.is_left = True

    def restore(self) -> None:
        """Has the descriptors lead where they did. What children still write is passed on. The lock is held."""
        for fd, original in self.originals.items():
            with contextlib.suppress(OSError):
                os.dup2(original, fd)
        self.drain()

    def forget(self) -> None:
        """In a forked child, which writes to its parent's pipes and must not read from them."""
        _close(list(self._pipes.readers))


def _close(fds: List[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _has_children() -> bool:
    """Whether there are child processes, alive or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reaped_children() -> Tuple[int, float, float]:
    """Changes when a child process has been waited for, who may have left children of its own."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_minflt, usage.ru_utime, usage.ru_stime


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
