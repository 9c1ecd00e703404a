"""The messages of protocol version 1, and how they are put into frames.

A frame is ``{"message": {...}}`` or ``{"messages": [{...}, ...]}``, JSON. What cannot be understood becomes
:class:`Garbage`, never an exception; unknown keys are ignored. The bounds are those of the shepherd, which would cut
off or refuse what is longer.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Union

from .errors import ErrorTexts

PROTOCOL_VERSION = 1
#: The ``exception_type`` of the answer for a job that was ended because it was cancelled.
CANCELLED = "Cancelled"
#: The most messages that one frame may hold.
MAX_BATCH = 1024
#: The largest frame, in bytes. A peer that sends a larger one is disconnected.
MAX_FRAME = 4 << 20

_MAX_MESSAGE = 64 << 10
_MAX_TRACEBACK = 128 << 10
_MAX_NAME = 255
_MAX_PROGRESS = 1 << 10
#: The longest text of a log message, in bytes; its end is kept.
MAX_LOG = 32 << 10
_ELLIPSIS = "…"


class Input(NamedTuple):
    """A job to work on."""

    job_id: str
    #: Which attempt at it: any text, to be repeated in every answer.
    attempt: str
    io_data_root: str
    #: Seconds since 1970-01-01T00:00:00 UTC.
    deadline: Optional[float]


class Cancel(NamedTuple):
    """End this attempt, whether it runs or waits."""

    job_id: str
    attempt: str


class Shutdown(NamedTuple):
    """Begin no other job, and exit."""

    #: How many seconds the job in work may take to end.
    grace: float


class Ping(NamedTuple):
    """Answer at once, also while a job is in work."""

    nonce: int


class Garbage(NamedTuple):
    """Something that is no message."""

    reason: str


Message = Union[Input, Cancel, Shutdown, Ping, Garbage]


def decode(frame: bytes) -> List[Message]:
    """All messages of a frame, in order."""
    try:
        parsed = json.loads(frame)
    except (ValueError, RecursionError) as error:
        return [Garbage(f"no JSON: {error}")]
    if not isinstance(parsed, dict):
        return [Garbage("no JSON object")]
    records: List[Any] = []
    if parsed.get("message") is not None:
        records.append(parsed["message"])
    several = parsed.get("messages")
    if isinstance(several, list):
        records.extend(several[:MAX_BATCH])
    if not records:
        return [Garbage("a frame without a message")]
    messages = [_read(record) for record in records]
    if isinstance(several, list) and len(several) > MAX_BATCH:
        messages.append(Garbage(f"more than {MAX_BATCH} messages in a frame"))
    return messages


def _read(record: Any) -> Message:
    if not isinstance(record, dict):
        return Garbage("a message that is no object")
    kind = record.get("message_type")
    try:
        if kind == "InputMessage":
            deadline = record.get("deadline")
            return Input(
                _job_id(record),
                _text(record, "attempt"),
                _text(record, "io_data_root"),
                None if deadline is None else _number(record, "deadline"),
            )
        if kind == "CancelMessage":
            return Cancel(_job_id(record), _text(record, "attempt"))
        if kind == "PingMessage":
            nonce = record.get("nonce")
            if not isinstance(nonce, int) or isinstance(nonce, bool):
                raise ValueError("`nonce` is missing")
            return Ping(nonce)
        if kind == "ShutdownMessage":
            return Shutdown(_number(record, "grace"))
    except ValueError as error:
        return Garbage(str(error))
    return Garbage(f"unknown message type {str(kind)[:_MAX_NAME]!r}")


def _text(record: Any, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is missing")
    return value


def _number(record: Any, key: str) -> float:
    value = record.get(key)
    # Neither NaN nor infinity nor a negative number passes.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    raise ValueError(f"`{key}` is no number of seconds")


def _job_id(record: Any) -> str:
    job_id = _text(record, "job_id")
    # It becomes one segment of a path.
    if job_id in ("", ".", "..") or "/" in job_id or "\0" in job_id:
        raise ValueError(f"`job_id` is no name of a directory: {job_id[:_MAX_NAME]!r}")
    return job_id


def _json(record: Any) -> str:
    # Escaped to ASCII: every text has a form, also one with lone surrogates.
    return json.dumps(record, separators=(",", ":"))


def ready(name: str, slots: int, ahead: int, batch: int, logs: bool) -> str:
    """The runner takes jobs from now on."""
    record = {
        "protocol": PROTOCOL_VERSION,
        "name": _head(name, _MAX_NAME),
        "slots": slots,
        "ahead": ahead,
        "batch": batch,
    }
    if logs:
        record["logs"] = True
    return _json({**record, "message_type": "ReadyMessage"})


def done(job_id: str, attempt: str) -> str:
    """The outputs are complete."""
    return _json({"identity": "", "job_id": job_id, "attempt": attempt, "message_type": "DoneMessage"})


def error(job_id: str, attempt: str, texts: ErrorTexts) -> str:
    """The job failed."""
    return _json(
        {
            "identity": "",
            "job_id": job_id,
            "attempt": attempt,
            "message": _head(texts.message, _MAX_MESSAGE),
            "exception_type": _head(texts.exception_type, _MAX_NAME),
            "exception_traceback": _tail(texts.exception_traceback, _MAX_TRACEBACK),
            "message_type": "ErrorMessage",
        }
    )


def cancelled(job_id: str, attempt: str) -> str:
    """The job ended because it was cancelled."""
    return error(job_id, attempt, ErrorTexts("the job was cancelled", CANCELLED, ""))


def progress(job_id: str, attempt: str, fraction: Optional[float], message: Optional[str]) -> str:
    """How far the job is."""
    record = {"job_id": job_id, "attempt": attempt, "message_type": "ProgressMessage"}
    if fraction is not None:
        record["fraction"] = fraction  # type: ignore[assignment]
    if message is not None:
        record["message"] = _head(message, _MAX_PROGRESS)
    return _json(record)


def log(job_id: str, attempt: str, text: str) -> str:
    """The next piece of what the job printed."""
    return _json(
        {"job_id": job_id, "attempt": attempt, "text": _tail(text, MAX_LOG), "message_type": "LogMessage"}
    )


def pong(nonce: int) -> str:
    """The answer to :class:`Ping`."""
    return _json({"nonce": nonce, "message_type": "PongMessage"})


def frames(messages: Sequence[str], batch: int) -> Iterator[bytes]:
    """Puts messages into frames of at most ``batch`` messages and of half the largest size."""
    held: List[str] = []
    size = 0
    for message in messages:
        if held and (len(held) >= batch or size + len(message) > MAX_FRAME // 2):
            yield _frame(held)
            held, size = [], 0
        held.append(message)
        size += len(message) + 1
    if held:
        yield _frame(held)


def _frame(messages: Sequence[str]) -> bytes:
    if len(messages) == 1:
        return b'{"message":%s}' % messages[0].encode("ascii")
    return b'{"messages":[%s]}' % ",".join(messages).encode("ascii")


def _head(text: str, most: int) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= most:
        return encoded.decode("utf-8")
    return encoded[: most - 3].decode("utf-8", "ignore") + _ELLIPSIS


def _tail(text: str, most: int) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= most:
        return encoded.decode("utf-8")
    return _ELLIPSIS + encoded[len(encoded) - (most - 3) :].decode("utf-8", "ignore")
