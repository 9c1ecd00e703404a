"""What a model implements."""

from __future__ import annotations

from typing import Any, Sequence

from .config import Config
from .errors import ErrorTexts, describe
from .job import Job


class Runner:
    """The work that a program does for its jobs. Subclass it and give :meth:`process` or :meth:`process_batch`.

    The attributes may be set in the class, or by :meth:`setup` from the configuration.
    """

    #: How many jobs are processed at a time. One is processed on the main thread; several are on threads of their
    #: own, or as tasks when ``process`` is ``async``.
    slots: int = 1
    #: How many jobs the shepherd may send beyond those in work. Many hide the way between two short jobs; few leave
    #: jobs that take long to other sheep.
    ahead: int = 32
    #: The most jobs of a batch, for :meth:`process_batch`.
    max_batch: int = 8
    #: How many seconds a batch waits to become full, from its first job on.
    max_wait: float = 0.0
    #: Whether the shepherd is told what each job prints. If not, this process's standard output and error are left
    #: alone, and the shepherd takes what comes through them while a job is in work.
    logs: bool = True

    def setup(self, config: Config) -> Any:
        """Loads the model. Called once, on the main thread, while heartbeats are answered already; jobs come only
        after it. May be ``async`` where ``process`` is. An exception ends the runner.
        """

    def process(self, job: Job) -> Any:
        """Works on one job: reads from ``job.inputs`` and writes to ``job.outputs``.

        An exception, whichever, becomes the job's error, and the next job is processed. What it returns is ignored.

        It may be a generator. Then each value it yields is a report of its progress - a fraction from 0 to 1, a
        text, a pair of both, or None for nothing new - and a point at which it is ended when the job is cancelled.

        It may be ``async``, a coroutine or an asynchronous generator. Then all jobs share one event loop, and a
        cancelled job's task is cancelled.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither `process` nor `process_batch`")

    def process_batch(self, jobs: Sequence[Job]) -> Any:
        """Works on one to ``max_batch`` jobs at a time, instead of :meth:`process`.

        ``job.fail(exception)`` fails one of them. When this raises, the outputs of the batch are emptied and each
        of its jobs is processed as a batch of one, so that a job fails only by its own fault.
        """
        raise NotImplementedError

    def teardown(self) -> None:
        """Called once at the end, on the main thread, unless the runner had to leave a job."""

    # The rest is the SDK's own.

    def _describe(self, error: BaseException) -> ErrorTexts:
        """What a job's client is told about an exception."""
        return describe(error)
