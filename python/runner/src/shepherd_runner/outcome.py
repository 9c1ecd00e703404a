"""What the shepherd is told at the end of a job.

| the job | was not told to stop | cancelled | the runner exits | the shepherd is gone |
|---|---|---|---|---|
| returned, and never saw that it should stop | done | done | done | nothing |
| returned, and saw it | | cancelled | nothing | nothing |
| raised ``Cancelled``, or anything after it saw it | error | cancelled | nothing | nothing |
| raised something else | error | error | error | nothing |

Where nothing is said because the runner exits, the shepherd gives the job to another runner. So it does with a job
that the runner had not begun by then, which is answered as cancelled (:meth:`.work.Work.shut_down`).
"""

from __future__ import annotations

import asyncio
from typing import Optional

from . import wire
from .errors import Cancelled
from .job import Job, Stop
from .runner import Runner


def answer(runner: Runner, job: Job, error: Optional[BaseException]) -> Optional[str]:
    """The message for a job that returned or raised, if anybody is to be told."""
    stop = job.stop_reason
    if stop is Stop.DISCONNECTED:
        return None
    if stop is not None and (job._noticed or isinstance(error, (Cancelled, asyncio.CancelledError))):
        return wire.cancelled(job.id, job.attempt) if stop is Stop.CANCELLED else None
    if error is None:
        return wire.done(job.id, job.attempt)
    return wire.error(job.id, job.attempt, runner._describe(error))
