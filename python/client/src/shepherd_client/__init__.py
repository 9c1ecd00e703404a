"""The client of Shepherd: submit jobs, wait, take their results.

    from shepherd_client import Client

    with Client("http://127.0.0.1:5000") as client:
        job = client.submit("upper", "1", payload="counting sheep")
        print(job.result())

`AsyncClient` is the same for event loops. A job is submitted once, whatever happens to the connection or the daemon
meanwhile: `shepherd_client.core` says how.
"""

from shepherd_client.aio import AsyncClient, AsyncJob
from shepherd_client.client import Client, Job
from shepherd_client.errors import (
    AlreadyFinished,
    AlreadySubmitted,
    FileNotFound,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Rejected,
    ShepherdError,
    StorageError,
    StorageRequired,
    Unavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from shepherd_client.records import (
    Event,
    JobError,
    JobStatus,
    ListedJob,
    Model,
    Progress,
    Readiness,
    Sheep,
    State,
)
from shepherd_client.storage import Storage

__all__ = [
    "AlreadyFinished",
    "AlreadySubmitted",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Event",
    "FileNotFound",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "JobStatus",
    "ListedJob",
    "Model",
    "Progress",
    "Readiness",
    "Rejected",
    "Sheep",
    "ShepherdError",
    "State",
    "Storage",
    "StorageError",
    "StorageRequired",
    "Unavailable",
    "UnexpectedAnswer",
    "WaitTimeout",
]
