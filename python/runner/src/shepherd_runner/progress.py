"""What a generator's values mean, and other results do not."""

from __future__ import annotations

import inspect
from numbers import Real
from typing import Any

from .job import Job


def refuse_async(result: Any) -> None:
    """Raises :class:`TypeError` when nothing was done yet: a function, such as a decorated one, does not say that it
    is ``async`` and returned what is still to be awaited.
    """
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"nothing was processed: {type(result).__name__} was returned by a function that is not declared `async`"
        )


def report(job: Job, value: Any) -> None:
    """Reports a yielded value: None, a fraction, a text, or both as a pair. Raises :class:`TypeError` for others."""
    if value is None:
        return
    if isinstance(value, str):
        job.progress(message=value)
        return
    if isinstance(value, Real):
        job.progress(float(value))
        return
    if isinstance(value, tuple) and len(value) == 2:
        fraction, message = value
        if (fraction is None or isinstance(fraction, Real)) and (message is None or isinstance(message, str)):
            job.progress(None if fraction is None else float(fraction), message)
            return
    raise TypeError(
        f"`process` yielded {value!r:.100}, which is no progress: None, a fraction, a text or (fraction, text)"
    )
