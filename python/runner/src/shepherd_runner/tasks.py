"""The loop that processes jobs as asyncio tasks, for runners whose ``process`` is ``async``."""

from __future__ import annotations

import asyncio
import inspect
from typing import Callable, Optional, Set

from . import outcome, progress
from .config import Config
from .job import Job
from .outbox import Outbox
from .output import OUTPUT
from .runner import Runner
from .work import Work


def is_async(runner: Runner) -> bool:
    """Whether the runner's jobs are tasks."""
    return inspect.iscoroutinefunction(runner.process) or inspect.isasyncgenfunction(runner.process)


class Tasks:
    """Runs in the event loop of the main thread, which is also that of the set-up."""

    def __init__(self, runner: Runner, work: Work, outbox: Outbox) -> None:
        self._runner = runner
        self._work = work
        self._outbox = outbox

    async def run(self, config: Config, ready: Callable[[], None]) -> None:
        """Loads the model, says that it is ``ready``, and processes jobs until it is time to end."""
        loading = self._runner.setup(config)
        if inspect.isawaitable(loading):
            await loading
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()

        def changed() -> None:
            try:
                loop.call_soon_threadsafe(wake.set)
            except RuntimeError:
                # The loop is closed: this is over.
                pass

        self._work.on_change(changed)
        ready()
        tasks: Set["asyncio.Task[None]"] = set()
        while not (self._work.is_ending and not tasks):
            # Before the work is looked at: what comes after the look sets it again.
            wake.clear()
            while len(tasks) < max(1, self._runner.slots):
                job = self._work.take_now()
                if job is None:
                    break
                task = loop.create_task(self._answer(job))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: wake.set())
            await wake.wait()

    async def _answer(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._process(job))
        job.on_cancel(lambda _: _call(loop, task.cancel))
        await asyncio.wait([task])
        error = asyncio.CancelledError() if task.cancelled() else task.result()
        answer = outcome.answer(self._runner, job, error)
        self._work.end(job)
        if answer is not None:
            # Sending waits while the shepherd does not read, and other jobs must not wait for that.
            self._outbox.post(job._connection, answer)

    async def _process(self, job: Job) -> Optional[BaseException]:
        try:
            with OUTPUT.of((job,)):
                result = self._runner.process(job)
                if inspect.isasyncgen(result):
                    try:
                        async for value in result:
                            progress.report(job, value)
                            # One that waits for nothing itself keeps nobody else waiting, and can be cancelled.
                            await asyncio.sleep(0)
                    finally:
                        await result.aclose()
                else:
                    await result
            return job._failure
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # All of them: asyncio would end the loop for some.
            return error


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        pass
