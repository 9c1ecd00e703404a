"""What the shepherd says, as values. Keys that this version does not know are ignored."""

from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Dict, List, Mapping, Optional, Union

from shepherd_client.errors import UnexpectedAnswer

#: The error of a cancelled job, by which it is known on the routes of the first shepherd, where it is a failed one.
_CANCELLED = "The job was cancelled"


class State(str, Enum):
    """Where a job is."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Model:
    """A model; both are None where a sheep has none."""

    name: Optional[str]
    version: Optional[str]


@dataclass(frozen=True)
class JobError:
    """Why a job failed."""

    message: str
    #: Both are empty when there was no exception.
    exception_type: str
    traceback: str


@dataclass(frozen=True)
class Progress:
    """How far a job is: a fraction from 0 to 1, a text, or both."""

    fraction: Optional[float]
    message: Optional[str]


@dataclass(frozen=True)
class JobStatus:
    """Where a job is, and since when. Times are in UTC."""

    state: State
    model: Model
    error: Optional[JobError]
    enqueued_at: Optional[datetime]
    started_at: Optional[datetime]
    finished_at: Optional[datetime]
    #: Only while the job is in work, and has said how far it is.
    progress: Optional[Progress] = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen: the job is done, failed or cancelled."""
        return self.state in (State.DONE, State.FAILED, State.CANCELLED)

    @property
    def cancelled(self) -> bool:
        """Whether it ended because somebody withdrew it."""
        return self.state is State.CANCELLED


@dataclass(frozen=True)
class ListedJob:
    """A job in a list."""

    id: str
    status: JobStatus


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. `id` is what to come again with."""

    id: str
    #: Exactly one of the two is given.
    status: Optional[JobStatus]
    progress: Optional[Progress]


@dataclass(frozen=True)
class Sheep:
    """One of the flock."""

    id: str
    running: bool
    model: Model
    #: The job that it is working on.
    job_id: Optional[str]
    type: Optional[str] = None
    state: Optional[str] = None
    problem: Optional[str] = None
    activity: Optional[str] = None


@dataclass(frozen=True)
class Readiness:
    """Whether the shepherd can take and do jobs; the problems say why not."""

    ready: bool
    problems: List[str]


Json = Union[None, bool, int, float, str, List[Any], Dict[str, Any]]


def job_status(value: Json) -> JobStatus:
    record = _object(value)
    try:
        state, error = State(record["status"]), _error(record.get("error_details"))
        if state is State.FAILED and error == JobError(_CANCELLED, "", ""):
            state = State.CANCELLED
        return JobStatus(
            state=state,
            model=_model(record["model"]),
            error=error,
            enqueued_at=_time(record.get("enqueued_at")),
            started_at=_time(record.get("processing_started_at")),
            finished_at=_time(record.get("finished_at")),
            progress=None if record.get("progress") is None else progress(record["progress"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"no status of a job: {error}") from error


def progress(value: Json) -> Progress:
    record = _object(value)
    fraction, message = record.get("fraction"), record.get("message")
    try:
        return Progress(None if fraction is None else float(fraction), None if message is None else str(message))
    except (TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"no progress of a job: {error}") from error


def listed_job(value: Json) -> ListedJob:
    return ListedJob(_text(_object(value).get("job_id")), job_status(value))


def flock(value: Json) -> Dict[str, Sheep]:
    return {id: _sheep(id, _object(one)) for id, one in _object(_object(value).get("sheep")).items()}


def readiness(value: Json) -> Readiness:
    record = _object(value)
    return Readiness(record.get("ready") is True, [str(problem) for problem in record.get("problems") or []])


def _sheep(id: str, record: Mapping[str, Any]) -> Sheep:
    return Sheep(
        id=id,
        running=record.get("running") is True,
        model=_model(record.get("model") or {}),
        job_id=record.get("request"),
        type=record.get("type"),
        state=record.get("state"),
        problem=record.get("problem"),
        activity=record.get("activity"),
    )


def _model(value: Json) -> Model:
    record = _object(value)
    return Model(record.get("name"), record.get("version"))


def _error(value: Json) -> Optional[JobError]:
    if value is None:
        return None
    record = _object(value)
    keys = ("message", "exception_type", "exception_traceback")
    return JobError(*(str(record.get(key) or "") for key in keys))


def _time(value: Optional[str]) -> Optional[datetime]:
    """Times are naive UTC on the wire."""
    return None if value is None else datetime.fromisoformat(value).replace(tzinfo=timezone.utc)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise UnexpectedAnswer("an answer has no text where one was expected")
    return value


def _object(value: Json) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise UnexpectedAnswer("an answer is no JSON object where one was expected")
    return value
