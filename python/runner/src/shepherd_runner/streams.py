"""Python's standard streams, each line of which is known to be of a job or of none."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any, Dict, List, Optional, Protocol

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    Buffer = Any

#: A line longer than this, in characters, is written in parts.
_MAX_LINE = 8192


class Scope(Protocol):
    """Whatever is at work where something is printed."""

    #: What was printed on a stream without an end of line, by its descriptor.
    partial: Dict[int, str]


class Sink(Protocol):
    """Where the streams write to."""

    def local_scope(self) -> Optional[Scope]:
        """The scope of this thread or task alone, if it has one."""

    def join(self, scope: Scope, fd: int, text: str) -> str:
        """Adds to the beginning of a line, and takes what is complete."""

    def write(self, fd: int, data: bytes, encoding: str) -> None:
        """Writes it all, in the present scope."""


class _Bytes(io.BufferedIOBase):
    """The `buffer` of a stream. It holds nothing back, and so needs no lock but the sink's."""

    def __init__(self, sink: Sink, fd: int, name: str, encoding: str) -> None:
        self._sink = sink
        self._fd = fd
        self.name = name
        self.mode = "wb"
        self._encoding = encoding
        # While the descriptor still is what it was.
        self._tty = os.isatty(fd)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return self._tty

    def write(self, data: Buffer) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        taken = bytes(data)
        self._sink.write(self._fd, taken, self._encoding)
        return len(taken)


class Text(io.TextIOWrapper):
    """Passes on each line at once, and never fails because of a letter.

    Of threads and tasks that print at the same time, each has a line of its own.
    """

    def __init__(self, sink: Sink, fd: int, name: str, encoding: str) -> None:
        self._sink = sink
        self._fd = fd
        super().__init__(
            _Bytes(sink, fd, name, encoding), encoding=encoding, errors="backslashreplace", line_buffering=True
        )

    def write(self, text: str) -> int:
        scope = self._sink.local_scope()
        if scope is None:
            return super().write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        complete = self._sink.join(scope, self._fd, text)
        if complete:
            self._emit(complete)
        return len(text)

    def flush(self) -> None:
        scope = self._sink.local_scope()
        if scope is not None and scope.partial and not self.closed:
            partial = scope.partial.pop(self._fd, "")
            if partial:
                self._emit(partial)
        super().flush()

    def _emit(self, text: str) -> None:
        self.buffer.write(text.encode(self.encoding, self.errors or "strict"))


def split(line: str) -> int:
    """How much of a line that grows is to be written now."""
    complete = line.rfind("\n") + 1
    return len(line) if complete == 0 and len(line) > _MAX_LINE else complete


def install(sink: Sink) -> List[Text]:
    """Puts such streams in the places of the process's own, and returns them: one that nobody holds closes. A stream
    that is none of the process's own, because the program has put another there, stays.
    """
    installed: List[Text] = []
    for fd, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        try:
            if not isinstance(old, io.TextIOWrapper) or isinstance(old, Text) or old.fileno() != fd:
                continue
            old.flush()
        except (OSError, ValueError):
            # Closed, or with nobody who reads it.
            continue
        new = Text(sink, fd, f"<{name}>", old.encoding)
        setattr(sys, name, new)
        _repoint(old, new)
        installed.append(new)
    return installed


def _repoint(old: Any, new: Text) -> None:
    """Has the log handlers that hold the old stream write to the new one."""
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in known:
        if isinstance(logger, logging.Logger):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                    handler.setStream(new)
