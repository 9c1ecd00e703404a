"""One job, as the model sees it."""

from __future__ import annotations

import enum
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

from . import keys, wire
from .errors import Cancelled

#: Progress is sent at most this often, in seconds.
_PROGRESS_EVERY = 0.1


class Stop(enum.Enum):
    """Why a job is told to stop."""

    #: Its client or the shepherd does not want it any more.
    CANCELLED = "cancelled"
    #: The shepherd is gone, and nobody takes the answer.
    DISCONNECTED = "disconnected"
    #: The runner is to exit, and will when its grace is over.
    SHUTDOWN = "shutdown"


class Job:
    """A job in work. Its methods may be called from any thread."""

    __slots__ = ("_input", "_connection", "_report", "_lock", "_stop", "_noticed", "_hooks", "_last", "_failure")

    def __init__(self, given: wire.Input, connection: int, report: Callable[[int, str], None]) -> None:
        self._input = given
        self._connection = connection
        self._report = report
        self._lock = threading.Lock()
        self._stop: Optional[Stop] = None
        self._noticed = False
        self._hooks: List[Callable[[Stop], None]] = []
        self._last: Optional[float] = None
        self._failure: Optional[BaseException] = None

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    @property
    def id(self) -> str:
        """The job's id."""
        return self._input.job_id

    @property
    def attempt(self) -> str:
        """Which attempt at the job this is."""
        return self._input.attempt

    @property
    def inputs(self) -> Path:
        """The directory with the inputs; a payload is its file ``input``."""
        return Path(self._input.io_data_root, self._input.job_id, "inputs")

    @property
    def input_keys(self) -> Dict[str, Path]:
        """The files of :attr:`inputs` by the keys that the client gave them, below the job's ``inputs/``. A key that
        cannot be the name of a file, such as ``a//b`` or one below the key of another file, is the key of a file with
        another name.
        """
        return keys.files(self.inputs)

    @property
    def outputs(self) -> Path:
        """The directory that the outputs belong into; the main one is its file ``output``. What is in it when the
        job is done becomes the job's result.
        """
        return Path(self._input.io_data_root, self._input.job_id, "outputs")

    @property
    def deadline(self) -> Optional[float]:
        """When the sheep's ``run_timeout`` ends the job, in seconds since the epoch; None without one. Of a job that
        waited in this runner for earlier ones it may be later than that.
        """
        return self._input.deadline

    def progress(self, fraction: Optional[float] = None, message: Optional[str] = None) -> None:
        """Reports how far the job is, from 0 to 1, and what it is doing. Costs next to nothing: reports that come
        thick and fast are dropped.
        """
        if fraction is not None:
            fraction = float(fraction)
            # NaN is no number of the wire's.
            fraction = None if fraction != fraction else min(max(fraction, 0.0), 1.0)
        now = time.monotonic()
        with self._lock:
            if self._last is not None and now - self._last < _PROGRESS_EVERY:
                return
            self._last = now
        text = None if message is None else str(message)
        self._report(self._connection, wire.progress(self.id, self.attempt, fraction, text))

    @property
    def cancelled(self) -> bool:
        """Whether the job is in vain and should end soon: it was cancelled, the shepherd is gone, or the runner is
        to exit. Once this was True, the job counts as given up, however it ends.
        """
        if self._stop is None:
            return False
        self._noticed = True
        return True

    @property
    def stop_reason(self) -> Optional[Stop]:
        """Why the job should end, if it should. Unlike :attr:`cancelled`, to ask gives nothing up."""
        return self._stop

    def raise_if_cancelled(self) -> None:
        """Raises :class:`Cancelled` when the job should end."""
        if self.cancelled:
            raise Cancelled("the job was told to stop")

    def on_cancel(self, hook: Callable[[Stop], None]) -> None:
        """Has ``hook`` called when the job should end, or now if it should already; on another thread, which must
        not be held up.
        """
        with self._lock:
            if self._stop is None:
                self._hooks.append(hook)
                return
        hook(self._stop)

    def fail(self, error: BaseException) -> None:
        """The job has failed with this exception, and nothing else of its batch: for ``process_batch``."""
        self._failure = error

    # The rest is the SDK's own.

    def _tell(self, stop: Stop) -> None:
        """The first reason is the one that counts."""
        with self._lock:
            if self._stop is not None:
                return
            self._stop = stop
            hooks, self._hooks = self._hooks, []
        for hook in hooks:
            try:
                hook(stop)
            except BaseException:
                # All of them: `sys.exit()` would end the thread that reads what the shepherd says.
                import traceback

                traceback.print_exc()

    def _give_up(self) -> Cancelled:
        """What ends a job that was told to stop before it began."""
        self._noticed = True
        return Cancelled("the job was told to stop")
