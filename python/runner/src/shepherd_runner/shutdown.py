"""The end: asked for by the shepherd or by a signal, and certain to come."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Optional

from .output import OUTPUT
from .work import Work

#: The exit code of a runner whose job did not end in time.
ABANDONED = 1

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: How long the interpreter may take to end, with the model's threads and functions that run at its end; in seconds.
LINGER = 10.0


def begin(work: Work, grace: float) -> None:
    """Has the runner end, within ``grace`` seconds if a job is in work."""
    if work.shut_down(grace):
        threading.Thread(target=_watch, args=(work,), name="shepherd-shutdown", daemon=True).start()


def _watch(work: Work) -> None:
    # The model's code cannot be interrupted, only left.
    if not work.wait_finished():
        _exit("the job in work did not end in time and is abandoned", ABANDONED)


def linger() -> None:
    """Has the process end soon, also when a thread of the model that is no daemon goes on: the interpreter waits for
    it, while signals do nothing any more.
    """
    threading.Thread(target=_linger, name="shepherd-linger", daemon=True).start()


def _linger() -> None:
    time.sleep(LINGER)
    _exit("what the model has left running does not end and is abandoned", ABANDONED)


def _exit(message: str, code: int) -> None:
    try:
        OUTPUT.leave()
        OUTPUT.say(f"shepherd-runner: {message}")
    finally:
        os._exit(code)


class Signals:
    """Begins the end at the first signal and exits at the second.

    The interpreter runs handlers on the main thread, between two steps of Python code, and a model may be in a
    library's function for minutes. So a handler does nothing, as a rule: the signal's number, which the interpreter
    writes to a pipe at once, wakes a thread.

    The signals are never given back: once all work is over they do nothing, so that one that comes late does not turn
    an orderly end into a death.
    """

    def __init__(self, work: Work, grace: float) -> None:
        """Takes the signals; on the main thread only, others cannot."""
        self._work = work
        self._grace = grace
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._heard)
        self._masks = threading.local()
        os.register_at_fork(before=self._before_fork, after_in_parent=self._in_parent, after_in_child=self._in_child)
        threading.Thread(target=self._run, name="shepherd-signals", daemon=True).start()

    def _heard(self, number: int, frame: Optional[FrameType]) -> None:
        # An event loop with signal handlers of its own, such as asyncio's, has the numbers written to itself, and to
        # nobody when it ends. Then this is the only way.
        with contextlib.suppress(OSError, ValueError):
            other = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            if other != self._write:
                os.write(self._write, bytes([number]))
                if other != -1:
                    signal.set_wakeup_fd(other, warn_on_full_buffer=False)

    def _run(self) -> None:
        asked = False
        while True:
            for number in os.read(self._read, 64):
                if number not in _SIGNALS or self._work.is_finished:
                    continue
                if asked:
                    _exit(f"told twice to end, by signal {number}", 128 + number)
                asked = True
                begin(self._work, self._grace)

    # A child that a model forks must not be deaf to signals, nor write them to its parent's pipe. Until it has
    # handlers of its own they wait.

    def _before_fork(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def _in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _in_child(self) -> None:
        # A child's only thread is its main thread, whichever forked it.
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            if signal.getsignal(number) == self._heard:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)
