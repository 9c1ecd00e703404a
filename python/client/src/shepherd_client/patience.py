"""When to try again, and when to give up."""

import random
import time
from typing import Optional

from shepherd_client.errors import WaitTimeout

#: Seconds between tries: the first pause, doubled each time, and the longest.
_FIRST = 0.05
_LONGEST = 2.0

#: Seconds that an answer may be silent: at most, and at least, however short the patience is.
_SILENCE = 60.0
_LEAST_SILENCE = 5.0


class Deadline:
    """When a call that waits for a job ends, whatever it is doing then."""

    def __init__(self, job_id: str, timeout: float) -> None:
        self._job_id = job_id
        self._timeout = timeout
        #: By the monotonic clock.
        self.at = time.monotonic() + timeout

    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self.at - time.monotonic())

    def error(self, trouble: Optional[str] = None) -> WaitTimeout:
        return WaitTimeout(self._job_id, self._timeout, trouble)


class Patience:
    """How long an outage is borne, counted from the last sign of life. One that is over is forgotten."""

    def __init__(self, seconds: float, deadline: Optional[Deadline] = None) -> None:
        self._seconds = seconds
        #: It takes the place of `seconds`.
        self.deadline = deadline
        self._since: Optional[float] = None
        self._pause = _FIRST

    def silence(self) -> float:
        """Seconds that the next answer may be silent."""
        left = self._end(time.monotonic()) - time.monotonic()
        return min(_SILENCE, max(left, _LEAST_SILENCE))

    def pause(self, silent: float = 0.0) -> Optional[float]:
        """Seconds until the next try after one that failed, silent for so long; None when there is to be none."""
        now = time.monotonic()
        if self._since is None:
            self._since = now - silent
        end = self._end(now)
        if now >= end:
            return None
        # Those who were cut off together do not come back together.
        pause = min(self._pause * random.uniform(0.5, 1.0), end - now)
        self._pause = min(self._pause * 2, _LONGEST)
        return pause

    def restore(self) -> None:
        """There was an answer."""
        self._since = None
        self._pause = _FIRST

    def _end(self, now: float) -> float:
        if self.deadline is not None:
            return self.deadline.at
        return (now if self._since is None else self._since) + self._seconds
