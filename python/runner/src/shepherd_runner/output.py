"""What jobs print.

All of it goes where the runner's own standard output and error go, as without this module, and besides to the log of
the job that printed it (:mod:`.joblog`).

| printed | with one slot | with several |
|---|---|---|
| by Python's ``print``, ``logging``, ... | the job's (or its batch's) | its of whose thread or task it is |
| by threads that a job started, and in pools that it gave work | the job's | the job's |
| by other threads | the job's | nobody's |
| by native libraries and child processes | the job's | nobody's |
| by threads, tasks and child processes that an earlier job has left behind | nobody's | nobody's |

With one slot, whatever else the process writes while a job is in work is the job's: descriptors 1 and 2 are pipes then
(:mod:`.capture`). With several slots they stay what they were. A batch is one thing: each of its jobs gets what it
prints.

What is lost when the process dies at once (a crash in a library, ``os._exit``, ``kill -9``):

- nothing of what Python printed as lines: it is written by the thread that prints, straight to where the process's
  own output goes, and not into the pipe; and nothing of the traceback of ``faulthandler``, which is switched on here
  and writes there, too.
- with one slot, what a native library or a child wrote in the last moment and the pipe still holds, at most 64 KiB of
  each stream. A library that holds the interpreter's lock while it prints its last words and aborts is such a case.
  A runner that is to lose nothing of that sets ``logs = False``: then this module leaves the descriptors alone.
- of the log of a job that was not alone, what was printed in the last twentieth of a second. The runner's own output
  has it; that of a job that was alone the shepherd completes from there.

Somebody who does not read the process's output makes whoever prints wait, as ever, and nobody else: heartbeats are
answered.
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import os
import select
import sys
import threading
import traceback
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Type

from . import streams
from .capture import Capture
from .job import Job
from .joblog import JobLog, Sender
from .outbox import Outbox

#: How long the SDK itself waits for somebody to read what it prints, in seconds.
_PATIENCE = 1.0
#: As much as a pipe takes at once if it takes anything.
_ATOMIC = 4000

_scope: "ContextVar[Optional[JobOutput]]" = ContextVar("shepherd_output", default=None)


class JobOutput:
    """Around the processing of these jobs: what is printed meanwhile is theirs. To be entered once."""

    __slots__ = ("_output", "_jobs", "_logs", "_decoders", "_token", "_closed", "partial")

    def __init__(self, output: "Output", jobs: Sequence[Job]) -> None:
        self._output = output
        self._jobs = jobs
        #: Made when there is something to put into them: most jobs print nothing.
        self._logs: List[JobLog] = []
        self._decoders: Dict[int, codecs.IncrementalDecoder] = {}
        self._token: Optional["Token[Optional[JobOutput]]"] = None
        #: The jobs are over. What threads of theirs still print is in no log, which their answers follow.
        self._closed = False
        self.partial: Dict[int, str] = {}

    def __enter__(self) -> None:
        if self._output._capture is not None:
            self._output._everything = self
        self._token = _scope.set(self)

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], frames: Optional[TracebackType]
    ) -> None:
        flush()
        if self._output.is_forked:
            _leave_child(error)
        self._output._end(self)
        if self._token is not None:
            _scope.reset(self._token)

    def _add(self, source: int, data: bytes, encoding: str) -> None:
        """Something was printed. A source is one stream of bytes, which may break off within a letter."""
        if self._closed:
            return
        decoder = self._decoders.get(source)
        if decoder is None:
            decoder = self._decoders[source] = codecs.getincrementaldecoder(encoding)("replace")
        self._give(decoder.decode(data))

    def _give(self, text: str) -> None:
        if not text:
            return
        output = self._output
        if not self._logs and output._sender is not None:
            self._logs = [JobLog(job, output._sender, output._lock) for job in self._jobs]
        data = text.encode("utf-8", "backslashreplace")
        for log in self._logs:
            log.write(data)

    def _close(self) -> None:
        with self._output._lock:
            for decoder in self._decoders.values():
                self._give(decoder.decode(b"", True))
            self._closed = True
        for log in self._logs:
            log.close()


class Output:
    """The process's output. There is one."""

    def __init__(self) -> None:
        #: An object's end may print in the middle of anything: also where this is held, and where another lock is.
        #: So it may be taken again, and no other is taken under it.
        self._lock = threading.RLock()
        self._streams: Optional[List[streams.Text]] = None
        self._sender: Optional[Sender] = None
        self._capture: Optional[Capture] = None
        #: Where what is for a descriptor is written.
        self._targets = {1: 1, 2: 2}
        #: Whose everything is that the process writes, while it is captured.
        self._everything: Optional[JobOutput] = None
        self._forked = False

    def install(self) -> None:
        """Makes Python's streams known to this module. To be called early: whoever takes hold of `sys.stderr`
        before writes past it.
        """
        if self._streams is not None:
            return
        self._streams = streams.install(self)
        if not faulthandler.is_enabled():
            # No pipe of ours: its reader is dead by then.
            with contextlib.suppress(OSError, ValueError):
                faulthandler.enable(os.dup(2))
        os.register_at_fork(after_in_child=self._in_child)

    @property
    def own(self) -> Sequence[streams.Text]:
        """The streams that were put in the places of the process's own."""
        return self._streams or ()

    def begin(self, outbox: Outbox, alone: bool) -> None:
        """From now on what jobs print is sent to the shepherd. ``alone``: one job or batch is in work at a time."""
        self._sender = Sender(outbox)
        threading.Thread(target=self._sender.run, name="shepherd-logs", daemon=True).start()
        if alone:
            flush()
            with self._lock, contextlib.suppress(OSError):
                self._capture = Capture(self._lock, self._passed)
                self._targets = self._capture.originals
        _inherit_scopes()

    def end(self) -> None:
        """The descriptors lead where they did."""
        flush()
        with self._lock:
            capture, self._capture = self._capture, None
            if capture is not None:
                self._targets = {1: 1, 2: 2}
                capture.restore()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a child that a model forked."""
        return self._forked

    def of(self, jobs: Sequence[Job]) -> JobOutput:
        """What these jobs print."""
        return JobOutput(self, jobs)

    def say(self, text: str) -> None:
        """Prints a line of the SDK's own, which is of no job; unless there is nobody who reads it, for whom nothing
        of the SDK's waits.
        """
        data = text.encode("utf-8", "backslashreplace")[:_ATOMIC] + b"\n"
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            poll = select.poll()
            poll.register(self._targets[2], select.POLLOUT)
            if poll.poll(_PATIENCE * 1000):
                os.write(self._targets[2], data)
        except OSError:
            pass
        finally:
            self._lock.release()

    def leave(self) -> None:
        """Passes on what can be, when the process is about to exit at once."""

        def last() -> None:
            flush()
            with self._lock:
                self._drain()

        thread = threading.Thread(target=last, name="shepherd-last", daemon=True)
        thread.start()
        thread.join(_PATIENCE)

    def _drain(self) -> None:
        if self._capture is not None:
            self._capture.drain()

    def _end(self, scope: JobOutput) -> None:
        capture = self._capture
        try:
            if capture is not None:
                capture.flush_c()
            with self._lock, contextlib.suppress(OSError):
                self._drain()
                if capture is not None:
                    capture.leave_children()
        finally:
            if self._everything is scope:
                self._everything = None
            scope._close()

    def _passed(self, fd: int, data: bytes, is_left: bool) -> None:
        """Something came through a descriptor's pipe, or through one that was left to the children of an earlier job.
        The lock is held.
        """
        # With nobody who reads it, it is still the job's; and whoever writes must not wait for ever.
        with contextlib.suppress(OSError):
            _write_all(self._targets[fd], data)
        if self._everything is not None and not is_left:
            self._everything._add(fd, data, "utf-8")

    # What the streams call.

    def local_scope(self) -> Optional[JobOutput]:
        """The jobs of this thread or task, if it is known to be of any: also of such as are over."""
        if self._forked:
            return None
        scope = _scope.get()
        return scope if scope is not None else getattr(threading.current_thread(), "_shepherd_scope", None)

    def join(self, scope: streams.Scope, fd: int, text: str) -> str:
        """Adds to the beginning of a line, and takes what is complete."""
        with self._lock:
            line = scope.partial.get(fd, "") + text
            at = streams.split(line)
            scope.partial[fd] = line[at:]
            return line[:at]

    def write(self, fd: int, data: bytes, encoding: str) -> None:
        """Writes bytes of a stream, and adds them to the logs of those who print."""
        scope = self.local_scope()
        with self._lock:
            # What a child wrote before comes before.
            self._drain()
            try:
                _write_all(self._targets[fd], data)
            finally:
                scope = scope or self._everything
                if scope is not None:
                    scope._add(-fd, data, encoding)

    def _in_child(self) -> None:
        # Of a forked child, what it writes to the descriptors is its parent's to attribute.
        self._lock = threading.RLock()
        self._forked = True
        self._targets = {1: 1, 2: 2}
        self._everything = None
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.forget()


#: The process's.
OUTPUT = Output()


def flush() -> None:
    """Passes on what was printed without an end of line."""
    # A model may have put others in their places, which hold them or not; and some hold the interpreter's own.
    others = [stream for stream in (sys.stdout, sys.stderr) if not isinstance(stream, streams.Text)]
    for stream in (*others, *OUTPUT.own, sys.__stdout__, sys.__stderr__):
        # Closed, or with nobody who reads it: no fault of the job's.
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]


def _leave_child(error: Optional[BaseException]) -> NoReturn:
    """Ends a child that a model forked and that comes back from the model's code: the rest is its parent's."""
    code = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        code = 1
        with contextlib.suppress(Exception):
            traceback.print_exception(type(error), error, error.__traceback__)
        flush()
    os._exit(code & 0xFF)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            # Somebody who shares it does not want to wait. We do.
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def _inherit_scopes() -> None:
    """Has threads print for the job that started them, and those of a pool for the job that gave them work: contexts
    do not reach them.
    """
    from concurrent.futures import thread as pool

    start, submit = threading.Thread.start, pool.ThreadPoolExecutor.submit

    def start_in_scope(self: threading.Thread) -> None:
        scope = OUTPUT.local_scope()
        if scope is not None and getattr(getattr(self, "_target", None), "__module__", None) != pool.__name__:
            self._shepherd_scope = scope  # type: ignore[attr-defined]
        start(self)

    def submit_in_scope(self: pool.ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        scope = OUTPUT.local_scope()
        if scope is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, _run_in_scope, scope, fn, args, kwargs)

    threading.Thread.start = start_in_scope  # type: ignore[method-assign]
    pool.ThreadPoolExecutor.submit = submit_in_scope  # type: ignore[method-assign,assignment]


def _run_in_scope(scope: JobOutput, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    token = _scope.set(scope)
    try:
        return fn(*args, **kwargs)
    finally:
        _scope.reset(token)
