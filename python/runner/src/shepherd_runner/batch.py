"""One batch, whose jobs must not fail for one another's faults."""

from __future__ import annotations

import os
import shutil
from typing import List, Optional, Sequence

from . import progress
from .job import Job
from .output import OUTPUT
from .runner import Runner


def process_batch(runner: Runner, jobs: Sequence[Job]) -> List[Optional[BaseException]]:
    """Processes the jobs together, and alone if that raises. Returns the exception of each."""
    error = _run(runner, jobs)
    if error is None:
        return [job._failure for job in jobs]
    if len(jobs) == 1:
        return [error]
    return [_run_alone(runner, job) for job in jobs]


def _run(runner: Runner, jobs: Sequence[Job]) -> Optional[BaseException]:
    try:
        with OUTPUT.of(jobs):
            result = runner.process_batch(jobs)
            if result is not None:
                progress.refuse_async(result)
        return None
    except BaseException as error:
        return error


def _run_alone(runner: Runner, job: Job) -> Optional[BaseException]:
    if job._failure is not None:
        # What it told before the batch broke off.
        return job._failure
    if job.stop_reason is not None:
        # Another attempt would be in vain.
        return job._give_up()
    try:
        _empty(job)
    except OSError as error:
        return error
    broken = _run(runner, [job])
    # Not `or`: an exception may be false, such as one with a length.
    return job._failure if broken is None else broken


def _empty(job: Job) -> None:
    """Removes what the broken batch may have left among the job's outputs."""
    with os.scandir(job.outputs) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
