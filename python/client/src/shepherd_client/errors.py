"""What can go wrong, by what the caller can do about it.

No message and no representation holds a key, a password or what a URL says of a user.
"""

from typing import Optional


class ShepherdError(Exception):
    """The base of all that this package raises on its own account."""


class Rejected(ShepherdError):
    """The shepherd refuses the request as it is; `status` is the HTTP status, the message says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class JobNotFound(Rejected):
    """The shepherd knows no such job."""

    def __init__(self, job_id: str, status: int = 404) -> None:
        super().__init__(f"job {job_id!r} does not exist", status)
        self.job_id = job_id


class FileNotFound(Rejected):
    """The job is known and has no such file."""

    def __init__(self, job_id: str, name: str) -> None:
        super().__init__(f"job {job_id!r} has no file {name!r}", 404)
        self.job_id = job_id
        self.name = name


class AlreadySubmitted(Rejected):
    """A job with this id is there already, and it is not the one that was to be submitted."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"a job with the id {job_id!r} was already submitted", 409)
        self.job_id = job_id


class AlreadyFinished(Rejected):
    """The job can no longer be cancelled."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} is finished already", 409)
        self.job_id = job_id


class JobFailed(ShepherdError):
    """The job has ended without a result."""

    def __init__(self, job_id: str, message: str, exception_type: str = "", traceback: str = "") -> None:
        super().__init__(f"job {job_id!r} failed: {f'{exception_type}: ' if exception_type else ''}{message}")
        self.job_id = job_id
        #: What the runner, or the shepherd, says.
        self.message = message
        #: The type of the exception that the runner reports; may be empty.
        self.exception_type = exception_type
        #: Its traceback as text; may be empty.
        self.traceback = traceback


class JobCancelled(JobFailed):
    """The job has ended because somebody withdrew it."""


class WaitTimeout(ShepherdError, TimeoutError):
    """The job has not finished in the time that the caller gave."""

    def __init__(self, job_id: str, timeout: float, outage: Optional[str] = None) -> None:
        super().__init__(f"job {job_id!r} has not finished within {timeout:g} s{f'; {outage}' if outage else ''}")
        self.job_id = job_id


class Unavailable(ShepherdError):
    """The shepherd cannot be reached, or cannot answer now. A submit that ends so may have been accepted: repeat it
    with the same `job_id` and `exist_ok=True`."""

    def __init__(self, message: str, job_id: Optional[str] = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class UnexpectedAnswer(ShepherdError):
    """What answers is no shepherd, or one of another kind."""


class StorageRequired(ShepherdError):
    """This cannot be done over the HTTP API alone: the client was made without `storage`."""


class StorageError(ShepherdError):
    """The S3 service refuses, or cannot be reached."""
