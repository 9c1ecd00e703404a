"""What a model prints.

It goes where the runner's own standard output and error go, which the sheep passes on to the shepherd's log, line by
line. What was printed during a job has left this process before the job's answer does: so whoever reads both can tell
which lines belong to which job, where jobs are processed one at a time. :func:`job_output` is the one place where
something can be said about a job's beginning and end in that stream.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Iterator, Sequence

from .job import Job


def prepare() -> None:
    """Makes standard output and error pass on each line at once, and never fail because of a letter."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with contextlib.suppress(Exception):
                reconfigure(line_buffering=True, errors="backslashreplace")


@contextlib.contextmanager
def job_output(jobs: Sequence[Job]) -> Iterator[None]:
    """Around the processing of these jobs."""
    try:
        yield
    finally:
        flush()


def flush() -> None:
    """Passes on what was printed without an end of line."""
    for stream in (sys.stdout, sys.stderr):
        # Closed, or with nobody who reads it: no fault of the job's.
        with contextlib.suppress(Exception):
            stream.flush()
