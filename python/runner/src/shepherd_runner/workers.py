"""The loops that process jobs in threads: one job after another, or one batch after another."""

from __future__ import annotations

import contextlib
import inspect
import time
from typing import List, Optional

from . import outcome, progress
from .batch import process_batch
from .job import Job
from .outbox import Outbox
from .output import OUTPUT
from .runner import Runner
from .work import Work

#: Answers wait for each other only between jobs that are shorter than this, in seconds.
_SHORT_JOB = 0.001


class Workers:
    """What a loop needs to process jobs and answer for them."""

    def __init__(self, runner: Runner, work: Work, outbox: Outbox) -> None:
        self._runner = runner
        self._work = work
        self._outbox = outbox

    def run_jobs(self) -> None:
        """Processes jobs one by one until it is time to end."""
        work, outbox = self._work, self._outbox
        job = work.take()
        while job is not None:
            began = time.monotonic()
            answer = outcome.answer(self._runner, job, self._process(job))
            short = time.monotonic() - began < _SHORT_JOB
            work.end(job)
            following = work.take_now()
            if answer is not None:
                outbox.push(job._connection, answer, hold=short and following is not None)
            job = following or work.take()

    def run_batches(self) -> None:
        """Processes batches until it is time to end."""
        runner, work, outbox = self._runner, self._work, self._outbox
        while True:
            jobs = work.take_batch(max(1, runner.max_batch), runner.max_wait)
            if not jobs:
                return
            errors: List[Optional[BaseException]] = process_batch(runner, jobs)
            for number, (job, error) in enumerate(zip(jobs, errors), 1):
                answer = outcome.answer(runner, job, error)
                work.end(job)
                if answer is not None:
                    outbox.push(job._connection, answer, hold=number < len(jobs))

    def _process(self, job: Job) -> Optional[BaseException]:
        try:
            with OUTPUT.of((job,)):
                result = self._runner.process(job)
                if inspect.isgenerator(result):
                    # Its `finally` blocks run here, and what they raise is raised here.
                    with contextlib.closing(result):
                        for value in result:
                            progress.report(job, value)
                            if job.cancelled:
                                break
                elif result is not None:
                    progress.refuse_async(result)
            return job._failure
        except BaseException as error:
            # All of them, also KeyboardInterrupt: with the signal's handler in place it is the model's own.
            return error
