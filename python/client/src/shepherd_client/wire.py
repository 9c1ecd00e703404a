"""How requests are spelled, and what answers mean: what both halves of the client share and nothing waits in."""

import json
from typing import Any, NamedTuple, NoReturn, Optional
from urllib.parse import quote

from shepherd_client.errors import JobNotFound, Rejected, Unavailable, UnexpectedAnswer

#: A proxy that finds no shepherd, one that is about to end, and one that finds no storage.
TRY_AGAIN = frozenset((502, 503, 504))


class Answer(NamedTuple):
    """An answer, read whole."""

    status: int
    body: bytes

    def json(self) -> Any:
        return parse(self.body, f"an answer with status {self.status}")

    def has(self, key: str) -> bool:
        """Whether the body is an object with this key."""
        value = self.json()
        return isinstance(value, dict) and key in value

    def message(self) -> str:
        """What an error says; without a message of the shepherd's, its status."""
        try:
            value = json.loads(self.body.decode())
        except ValueError:
            value = None
        text = value.get("message") if isinstance(value, dict) else None
        return text if isinstance(text, str) and text else f"HTTP status {self.status}"


def parse(text: bytes, what: str) -> Any:
    """`text` as JSON."""
    try:
        return json.loads(text.decode())
    except ValueError as error:
        raise UnexpectedAnswer(f"{what} is no JSON") from error


def job_path(job_id: str, rest: str) -> str:
    """The path of something of a job. An id that URLs cannot spell is one that no job has."""
    if job_id in ("", ".", ".."):
        raise JobNotFound(job_id)
    return f"/jobs/{_quote(job_id)}/{rest}"


def file_path(job_id: str, of: str, name: Optional[str]) -> str:
    """The path of a file of a job; `of` is `result` or `input`."""
    if name is None:
        return job_path(job_id, of)
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise Rejected(f"{name!r} cannot be the name of a file of a job")
    return job_path(job_id, f"{of}/{'/'.join(map(_quote, segments))}")


def _quote(segment: str) -> str:
    try:
        return quote(segment, safe="")
    except UnicodeEncodeError:
        raise Rejected(f"{segment!r} is no text that a URL can hold") from None


def start_body(
    job_id: str, model: str, version: str, payload: Optional[str], sheep: Optional[str], priority: Optional[int]
) -> bytes:
    body = {"job_id": job_id, "model": {"name": model, "version": version}}
    optional = {"sheep_id": sheep, "priority": priority, "payload": payload}
    body.update((key, value) for key, value in optional.items() if value is not None)  # type: ignore[misc]
    try:
        # Not escaped as ASCII: three bytes for a letter instead of six.
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Rejected("half of a surrogate pair is no text") from None


def refused(answer: Answer, job_id: Optional[str] = None) -> NoReturn:
    """Raises what an answer that is no success means. `job_id`, where an unknown job is what 400 and 404 mean."""
    if job_id is not None and answer.status in (400, 404):
        raise JobNotFound(job_id, answer.status)
    if answer.status in TRY_AGAIN or answer.status == 507:
        raise Unavailable(answer.message(), job_id)
    if 400 <= answer.status < 500:
        raise Rejected(answer.message(), answer.status)
    raise UnexpectedAnswer(f"an answer that was not expected: {answer.message()}")
