"""The client for asyncio and trio; its methods are those of `Client`."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, AsyncIterator, Dict, Iterable, List, Optional, Type, Union

import httpx

from shepherd_client.core import Core
from shepherd_client.inputs import UNSET, Files
from shepherd_client.records import Event, JobStatus, ListedJob, Readiness, Sheep
from shepherd_client.storage import Storage
from shepherd_client.transport import Asynchronous


class AsyncClient:
    """A client of one shepherd, in one event loop. It is closed by `async with` or `close()`.

    `storage` is needed for several input files, for what is no text, and for the names of outputs. A shepherd that
    does not answer is asked again until it has been silent for `retry_for` seconds; one request may be silent for 5
    seconds in any case. `http` is a client of httpx to send by, for certificates, proxies or headers of your own; it
    is not closed. Without it, the proxy that the environment names is used, except for loopback addresses.
    """

    def __init__(
        self,
        url: str,
        *,
        storage: Optional[Storage] = None,
        retry_for: float = 30.0,
        http: Optional[httpx.AsyncClient] = None,
    ) -> None:
        self._core = Core(url, Asynchronous(http, url), storage, retry_for)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core.shown!r})"

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._core.close()

    async def submit(
        self,
        model: str,
        version: str,
        payload: Union[str, bytes, None] = None,
        *,
        json: Any = UNSET,
        file: "Union[str, os.PathLike[str], None]" = None,
        files: Optional[Files] = None,
        job_id: Optional[str] = None,
        sheep: Optional[str] = None,
        priority: Optional[int] = None,
        exist_ok: bool = False,
    ) -> "AsyncJob":
        """Submits a job; when this returns, the shepherd has it on disk.

        One of: `payload` (text, or bytes), `json` (any value) or `file` (a path) is the input named `input`; `files`
        are several, either a mapping from names, which may hold `/`, to paths, bytes, texts and binary files, or paths
        alone. With none of them, the job's inputs are in storage already, and `job_id` says whose.

        An id is chosen when none is given. With `exist_ok`, a job that is there already is no error if it is the same
        one: to repeat, with the id of then, a submit whose fate is not known.
        """
        submitted = self._core.submit(
            model, version, payload, json, file, files, job_id, sheep, priority, exist_ok
        )
        return AsyncJob(self._core, await submitted)

    async def run(
        self,
        model: str,
        version: str,
        payload: Union[str, bytes, None] = None,
        *,
        json: Any = UNSET,
        file: "Union[str, os.PathLike[str], None]" = None,
        files: Optional[Files] = None,
        job_id: Optional[str] = None,
        sheep: Optional[str] = None,
        priority: Optional[int] = None,
        exist_ok: bool = False,
        timeout: Optional[float] = None,
    ) -> bytes:
        """Submits a job as `submit` does and waits for its result, the bytes of the output `output`. The job goes on
        when the time for the result is over."""
        job = await self.submit(
            model,
            version,
            payload,
            json=json,
            file=file,
            files=files,
            job_id=job_id,
            sheep=sheep,
            priority=priority,
            exist_ok=exist_ok,
        )
        return await job.result(timeout=timeout)

    def job(self, job_id: str) -> "AsyncJob":
        """A job that was submitted before. Nothing is asked."""
        return AsyncJob(self._core, job_id)

    def jobs(self, status: Optional[str] = None, limit: Optional[int] = None) -> AsyncIterator[ListedJob]:
        """The jobs, newest first, at most `limit`; `status` is one of `queued`, `processing`, `done`, `failed` and
        `cancelled`."""
        return self._core.jobs(status, limit)

    async def status(self) -> Dict[str, Sheep]:
        """The flock."""
        return await self._core.flock()

    async def readiness(self) -> Readiness:
        """Whether the shepherd can take and do jobs."""
        return await self._core.readiness()


class AsyncJob:
    """A job of a shepherd. Methods raise JobNotFound when the shepherd does not know it."""

    def __init__(self, core: Core, job_id: str) -> None:
        self._core = core
        self.id = job_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def status(self) -> JobStatus:
        """Where it is."""
        return await self._core.status(self.id)

    async def wait(self, timeout: Optional[float] = None) -> JobStatus:
        """Waits until it is done, failed or cancelled; raises WaitTimeout when that is later. The shepherd may restart
        meanwhile: with a timeout it may be away until then, otherwise for `retry_for` seconds at a time."""
        return await self._core.wait(self.id, timeout)

    async def result(self, name: Optional[str] = None, *, timeout: Optional[float] = None) -> bytes:
        """Waits until it is done, and gives the bytes of the output `output` or another; raises JobFailed when it
        failed. `timeout` bounds the whole call."""
        return await self._core.result(self.id, name, timeout)

    async def result_json(self, name: Optional[str] = None, *, timeout: Optional[float] = None) -> Any:
        """As `result`, of an output that is JSON."""
        return self._core.parse(self.id, await self._core.result(self.id, name, timeout))

    async def outputs(self, *, timeout: Optional[float] = None) -> List[str]:
        """Waits until it is done, and gives the names of its outputs. Needs storage."""
        return await self._core.outputs(self.id, timeout)

    async def download(
        self,
        directory: "Union[str, os.PathLike[str]]",
        names: Optional[Iterable[str]] = None,
        *,
        timeout: Optional[float] = None,
    ) -> List[Path]:
        """Waits until it is done, and saves these outputs, or all, below the directory. All of them need storage, which
        knows their names."""
        return await self._core.download(self.id, directory, names, timeout)

    async def cancel(self) -> JobStatus:
        """Withdraws it; raises AlreadyFinished when it is too late. May be repeated."""
        return await self._core.cancel(self.id)

    async def logs(self) -> str:
        """What it printed so far."""
        return await self._core.logs(self.id)

    def follow_logs(self) -> AsyncIterator[str]:
        """What it printed and prints, in pieces, until it is finished."""
        return self._core.follow_logs(self.id)

    def events(self, after: Optional[str] = None) -> AsyncIterator[Event]:
        """What happens to it, from the event after the one with this id, or from where it is now, until it is
        finished."""
        return self._core.events(self.id, after)
