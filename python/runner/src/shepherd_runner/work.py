"""What is to be done, and what is being done.

An answer belongs to the connection that its job came on. When that ends, the jobs of it that wait are forgotten, and
those in work are told to stop.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Sequence, Tuple

from . import wire
from .job import Job, Stop
from .transport import NONE

#: How many jobs may wait. The shepherd sends what the runner asked for; this bounds what a mistaken one can do.
_MAX_WAITING = 10_000
#: What a runner without a job takes to end properly, when it is given no time; in seconds.
_MIN_GRACE = 0.5
#: A longer grace is as good as none.
_MAX_GRACE = 86_400.0


class Cancelling(enum.Enum):
    """What a cancellation met."""

    #: The job waited and is forgotten: it is to be answered.
    WAITING = enum.auto()
    #: The job is in work and was told to stop: it will answer.
    RUNNING = enum.auto()
    #: It was answered already.
    UNKNOWN = enum.auto()


class Work:
    """The jobs of the present connection. All methods may be called from any thread."""

    def __init__(self, report: Callable[[int, str], None], answer: Callable[[int, str], None]) -> None:
        """``report`` and ``answer`` send a message on a connection, and wait for nothing."""
        self._report = report
        self._answer = answer
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: Deque[wire.Input] = deque()
        self._running: Dict[Tuple[str, str], Job] = {}
        self._connection = NONE
        #: Workers that wait: to wake nobody up costs something, too.
        self._idle = 0
        self._stop_by: Optional[float] = None
        self._ready = False
        self._finished = False
        self._on_change: Optional[Callable[[], None]] = None

    def on_change(self, hook: Callable[[], None]) -> None:
        """Has ``hook`` called when there is something to take or it is time to end."""
        with self._lock:
            self._on_change = hook

    def set_ready(self) -> int:
        """The model is loaded. Returns the connection whose shepherd is to be told, or :data:`NONE`."""
        with self._lock:
            self._ready = True
            return self._connection if self._stop_by is None else NONE

    def connect(self, connection: int) -> bool:
        """The shepherd's connection is this one now, or there is none. Returns whether it is to be told that the
        runner is ready.
        """
        with self._lock:
            self._connection = connection
            self._waiting.clear()
            running = list(self._running.values())
            greets = self._ready and connection != NONE and self._stop_by is None
        for job in running:
            job._tell(Stop.DISCONNECTED)
        return greets

    def push(self, connection: int, inputs: Sequence[wire.Input]) -> List[wire.Input]:
        """Takes inputs of a connection. Returns those for which there was no room. A runner that is to end gives them
        up.
        """
        with self._lock:
            if connection != self._connection:
                return []
            if self._stop_by is not None:
                self._give_up(inputs)
                return []
            room = _MAX_WAITING - len(self._waiting)
            self._waiting.extend(inputs[:room])
            if self._idle:
                self._changed.notify(len(inputs))
            hook = self._on_change
        if hook is not None:
            hook()
        return list(inputs[room:])

    def cancel(self, job_id: str, attempt: str) -> Cancelling:
        """Ends an attempt, wherever it is."""
        with self._lock:
            job = self._running.get((job_id, attempt))
            if job is None:
                for given in self._waiting:
                    if given.job_id == job_id and given.attempt == attempt:
                        self._waiting.remove(given)
                        return Cancelling.WAITING
                return Cancelling.UNKNOWN
        job._tell(Stop.CANCELLED)
        return Cancelling.RUNNING

    def _begin(self) -> Job:
        job = Job(self._waiting.popleft(), self._connection, self._report)
        self._running[(job.id, job.attempt)] = job
        return job

    def take(self) -> Optional[Job]:
        """The next job; waits for one. None when it is time to end."""
        with self._lock:
            while self._stop_by is None:
                if self._waiting:
                    return self._begin()
                self._wait(None)
            return None

    def take_now(self) -> Optional[Job]:
        """The next job if it is here already."""
        with self._lock:
            return self._begin() if self._waiting and self._stop_by is None else None

    def take_batch(self, most: int, wait: float) -> List[Job]:
        """The next jobs: waits for the first, and then until there are enough or ``wait`` seconds are over. Empty
        when it is time to end.
        """
        with self._lock:
            while self._stop_by is None:
                while self._stop_by is None and not self._waiting:
                    self._wait(None)
                by = time.monotonic() + wait
                while self._stop_by is None and 0 < len(self._waiting) < most:
                    left = by - time.monotonic()
                    if left <= 0:
                        break
                    self._wait(left)
                # Another worker may have taken them, or they were cancelled, or forgotten with their connection.
                if self._stop_by is None and self._waiting:
                    return [self._begin() for _ in range(min(most, len(self._waiting)))]
            return []

    def _wait(self, timeout: Optional[float]) -> None:
        self._idle += 1
        try:
            self._changed.wait(timeout)
        finally:
            self._idle -= 1

    def end(self, job: Job) -> None:
        """The job is over."""
        with self._lock:
            self._running.pop((job.id, job.attempt), None)

    def _give_up(self, inputs: Sequence[wire.Input]) -> None:
        # Nobody could tell them from those that were begun otherwise.
        for given in inputs:
            self._answer(self._connection, wire.cancelled(given.job_id, given.attempt))

    def shut_down(self, grace: float) -> bool:
        """Begins no other job, and gives up those that wait, so that other runners get them. Returns whether this is
        news.
        """
        with self._lock:
            if self._stop_by is not None:
                return False
            if not self._ready:
                # Loading a model can be left at any time.
                grace = 0.0
            self._stop_by = time.monotonic() + min(max(grace, _MIN_GRACE), _MAX_GRACE)
            running = list(self._running.values())
            self._give_up(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            hook = self._on_change
        for job in running:
            job._tell(Stop.SHUTDOWN)
        if hook is not None:
            hook()
        return True

    @property
    def is_ending(self) -> bool:
        """Whether no other job is begun."""
        return self._stop_by is not None

    def finish(self) -> None:
        """All work is over."""
        with self._lock:
            self._finished = True
            self._changed.notify_all()

    @property
    def is_finished(self) -> bool:
        """Whether all work is over."""
        return self._finished

    def wait_finished(self) -> bool:
        """Waits until all work is over, or the time to stop is. Returns whether it is over."""
        with self._lock:
            while not self._finished:
                left = None if self._stop_by is None else self._stop_by - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
            return True
