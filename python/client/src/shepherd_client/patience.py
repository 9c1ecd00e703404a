"""When to try again."""

import random
import time
from typing import Optional

#: Seconds between tries: the first pause, doubled each time, and the longest.
_FIRST = 0.05
_LONGEST = 2.0


class Patience:
    """How long an outage is borne. One that is over is forgotten."""

    def __init__(self, seconds: float, deadline: Optional[float] = None) -> None:
        self._seconds = seconds
        #: By the monotonic clock; it takes the place of `seconds`.
        self._deadline = deadline
        self._since: Optional[float] = None
        self._pause = _FIRST

    def pause(self) -> Optional[float]:
        """Seconds until the next try after one that failed; None when there is to be none."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        end = self._since + self._seconds if self._deadline is None else self._deadline
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
