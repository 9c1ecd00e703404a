"""What goes wrong: with one job, and with the runner."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import NamedTuple, Optional


class Cancelled(Exception):
    """The job was told to stop, and did.

    Raised by :meth:`Job.raise_if_cancelled`, and by models that find out by themselves.
    """


class SettingsError(Exception):
    """The runner's arguments, ``runner.yaml`` or configuration are wrong; the message says how."""


class ErrorTexts(NamedTuple):
    """What a job's client is told about an exception."""

    message: str
    exception_type: str
    exception_traceback: str


def describe(error: BaseException) -> ErrorTexts:
    """The texts for an exception, without the SDK's own frames at the beginning of its traceback.

    Never raises: an exception may be any object that a model made.
    """
    return ErrorTexts(_message(error), _type(error), _traceback(error))


def _type(error: BaseException) -> str:
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        if isinstance(error, SystemExit):
            # A library that is used to being a program. The runner goes on.
            return f"the model tried to exit with {error.code!r}"
        return str(error) or _type(error)
    except Exception as other:
        return f"an exception whose text cannot be had: {_type(other)}"


def _traceback(error: BaseException) -> str:
    try:
        error = error.with_traceback(_of_model(error.__traceback__))
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as other:
        return f"a traceback that cannot be had: {_type(other)}"


def _of_model(frames: Optional[TracebackType]) -> Optional[TracebackType]:
    """The frames from the model's first one on."""
    at = frames
    while at is not None and at.tb_frame.f_globals.get("__package__") == __package__:
        at = at.tb_next
    # An exception of the SDK itself, such as Cancelled, keeps all its frames.
    return frames if at is None else at
