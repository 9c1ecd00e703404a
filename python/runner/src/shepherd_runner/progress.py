"""What a generator's values mean."""

from __future__ import annotations

from numbers import Real
from typing import Any

from .job import Job


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
