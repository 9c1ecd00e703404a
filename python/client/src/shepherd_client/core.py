"""What the client does, once for both of its halves.

**A submit is neither lost nor done twice.** Its id is chosen here, so it can be sent again when its answer is lost, as
often as it takes. From the first loss on it is *in doubt* whether the job is there already, and a 409 is then no
error by itself: the job with that id is ours if its model and its input are. A job whose inputs are in storage is never
refused with 409, and would run again if it were finished; before it is sent again we therefore look whether it has come
to be since we began.

**Waiting outlives the daemon.** It asks for a bounded time, again and again, and takes every outage that is shorter
than the caller's patience for a pause. The silence of a request that is lost counts as part of the outage, and a
timeout bounds the whole call, whatever it is doing then.

**Streams are taken up again**: events after the last id, a log after what was read of it.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import (
    Any,
    AsyncIterator,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    TypeVar,
    Union,
)
from urllib.parse import urlsplit
from uuid import uuid4

from shepherd_client import records, wire
from shepherd_client.errors import (
    AlreadyFinished,
    AlreadySubmitted,
    FileNotFound,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Rejected,
    StorageRequired,
    Unavailable,
    UnexpectedAnswer,
)
from shepherd_client.follow import Log
from shepherd_client.inputs import Files, Inputs, inputs
from shepherd_client.patience import Deadline, Patience
from shepherd_client.records import Event, JobStatus, ListedJob, Readiness, Sheep, State
from shepherd_client.sse import Frame, Parser
from shepherd_client.storage import Storage, Store
from shepherd_client.transport import Lost, Request, Transport
from shepherd_client.wire import Answer, file_path, job_path, refused

T = TypeVar("T")

#: For how many seconds the shepherd is asked to wait at a time.
_WAIT = 20.0
#: Events come with a heartbeat every 15 seconds. A log has none: one that is quiet for longer is asked for again.
_QUIET = 60.0
_LARGEST_PAGE = 1000


class Core:
    """Everything but the names that callers see."""

    def __init__(self, url: str, transport: Transport, storage: Optional[Storage], retry_for: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            # Not with the URL: it may hold a password.
            raise ValueError("the URL of the shepherd must be like http://HOST:PORT or http://HOST/PATH")
        self._base = url.rstrip("/")
        #: For people: without user and password.
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._transport = transport
        self._store = None if storage is None else Store(storage)
        self._retry_for = retry_for

    async def close(self) -> None:
        await self._transport.close()
        if self._store is not None:
            self._store.close()

    async def submit(
        self,
        model: str,
        version: str,
        payload: Union[str, bytes, None],
        json: Any,
        file: "Union[str, os.PathLike[str], None]",
        files: Optional[Files],
        job_id: Optional[str],
        sheep: Optional[str],
        priority: Optional[int],
        exist_ok: bool,
    ) -> str:
        with_storage = self._store is not None
        given = await self._transport.call(lambda: inputs(payload, json, file, files, with_storage))
        if job_id is None:
            if given == Inputs():
                raise TypeError("without any input, job_id must name a job whose inputs are in storage")
            job_id = str(uuid4())
        body = wire.start_body(job_id, model, version, given.payload, sheep, priority)
        if given.payload:
            await self._start(job_id, model, version, body, given.payload, exist_ok)
        else:
            await self._start_stored(job_id, model, version, body, given, exist_ok)
        return job_id

    async def _start(
        self, job_id: str, model: str, version: str, body: bytes, payload: str, exist_ok: bool
    ) -> None:
        """Submits a job whose input travels with the request."""
        in_doubt, patience = exist_ok, Patience(self._retry_for)
        request = self._request("POST", "/start-job", content=body)
        while True:
            silent = 0.0
            try:
                answer = await self._ask(request, patience)
            except Lost as lost:
                in_doubt, trouble, silent = in_doubt or lost.sent, self._out_of_reach(lost), lost.silent
            else:
                if answer.status == 200:
                    return
                if answer.status == 409:
                    if in_doubt and await self._is_ours(job_id, model, version, payload):
                        return
                    raise AlreadySubmitted(job_id)
                if answer.status not in wire.TRY_AGAIN:
                    refused(answer)
                # A proxy may say so of what it has passed on.
                in_doubt, trouble = True, answer.message()
            await self._pause(patience, trouble, job_id, silent)

    async def _start_stored(
        self, job_id: str, model: str, version: str, body: bytes, given: Inputs, exist_ok: bool
    ) -> None:
        """Submits a job whose inputs are in storage, where they are put first if they are given; or whose one input is
        empty, which the shepherd takes for none where there are inputs already."""
        before = await self._status_if_known(job_id)
        if before is not None and given != Inputs():
            same = before.model == records.Model(model, version)
            if exist_ok and same and (given.files or await self._is_ours(job_id, model, version, "")):
                return
            raise AlreadySubmitted(job_id)
        if given.files:
            await self._in_storage(lambda store: store.put_inputs(job_id, given.files))
        patience = Patience(self._retry_for)
        request = self._request("POST", "/start-job", content=body)
        while True:
            silent = 0.0
            try:
                answer = await self._ask(request, patience)
            except Lost as lost:
                trouble, silent = self._out_of_reach(lost), lost.silent
            else:
                if answer.status == 409 or (answer.status == 200 and answer.has("conflict")):
                    raise AlreadySubmitted(job_id)
                if answer.status == 200:
                    return
                if answer.status not in wire.TRY_AGAIN:
                    refused(answer)
                trouble = answer.message()
            await self._pause(patience, trouble, job_id, silent)
            now = await self._status_if_known(job_id)
            if now is not None and (before is None or now.enqueued_at != before.enqueued_at):
                return

    async def _is_ours(self, job_id: str, model: str, version: str, payload: str) -> bool:
        """Whether the job that is there is the one that we submitted: the same model, and the same input."""
        status = await self._status_if_known(job_id)
        if status is None or status.model != records.Model(model, version):
            return False
        answer = await self._get(job_path(job_id, "input"))
        # An input that somebody has removed since says nothing.
        return answer.status in (400, 404) or (answer.status == 200 and answer.body == payload.encode())

    async def status(self, job_id: str) -> JobStatus:
        answer = await self._get(job_path(job_id, "status"))
        if answer.status != 200:
            refused(answer, job_id)
        return records.job_status(answer.json())

    async def _status_if_known(self, job_id: str) -> Optional[JobStatus]:
        try:
            return await self.status(job_id)
        except JobNotFound:
            return None

    async def wait(self, job_id: str, timeout: Optional[float]) -> JobStatus:
        """Until the job is finished, however it ends."""
        return await self._wait(job_id, _deadline(job_id, timeout))

    async def _wait(self, job_id: str, deadline: Optional[Deadline]) -> JobStatus:
        patience = Patience(self._retry_for, deadline)
        path = job_path(job_id, "wait_ready")
        while True:
            left = _WAIT if deadline is None else min(_WAIT, deadline.left())
            # Three digits, rounded up: a wait that is answered too early is asked for again.
            request = self._request("GET", path, {"timeout": f"{left + 0.0005:.3f}"})
            trouble, silent = None, 0.0
            try:
                answer = await self._ask(request, patience, left)
            except Lost as lost:
                trouble, silent = self._out_of_reach(lost), lost.silent
            else:
                if answer.status in (200, 202):
                    status = records.job_status(answer.json())
                    if status.finished:
                        return status
                    patience.restore()
                elif answer.status in wire.TRY_AGAIN:
                    trouble = answer.message()
                else:
                    refused(answer, job_id)
            if deadline is not None and not deadline.left():
                raise deadline.error(trouble)
            if trouble is not None:
                await self._pause(patience, trouble, job_id, silent)

    async def _done(self, job_id: str, deadline: Optional[Deadline]) -> None:
        """Until the job is done; raises JobFailed when it ends otherwise."""
        status = await self._wait(job_id, deadline)
        if status.state is not State.DONE:
            raise _failure(job_id, status)

    async def result(self, job_id: str, name: Optional[str], timeout: Optional[float]) -> bytes:
        path, deadline = file_path(job_id, "result", name), _deadline(job_id, timeout)
        await self._done(job_id, deadline)
        answer = await self._asked(self._request("GET", path), deadline)
        if answer.status != 200:
            await self._no_file(job_id, name or "output", answer)
        return answer.body

    @staticmethod
    def parse(job_id: str, output: bytes) -> Any:
        return wire.parse(output, f"the output of job {job_id!r}")

    async def outputs(self, job_id: str, timeout: Optional[float]) -> List[str]:
        return await self._outputs(job_id, _deadline(job_id, timeout))

    async def _outputs(self, job_id: str, deadline: Optional[Deadline]) -> List[str]:
        if self._store is None:
            raise StorageRequired("the names of outputs are known to storage only: make the client with storage")
        await self._done(job_id, deadline)
        return await self._in_storage(lambda store: store.outputs(job_id), deadline)

    async def download(
        self,
        job_id: str,
        directory: "Union[str, os.PathLike[str]]",
        names: Optional[Iterable[str]],
        timeout: Optional[float],
    ) -> List[Path]:
        deadline = _deadline(job_id, timeout)
        if names is None:
            chosen = await self._outputs(job_id, deadline)
        else:
            chosen = list(names)
            await self._done(job_id, deadline)
        return [await self._download(job_id, name, Path(directory), deadline) for name in chosen]

    async def _download(self, job_id: str, name: str, directory: Path, deadline: Optional[Deadline]) -> Path:
        """Under another name first: what is there under its own is whole."""
        # Also refuses names that lead out of the directory.
        request = self._request("GET", file_path(job_id, "result", name))
        target = directory / name
        part = target.with_name(f".{uuid4().hex}.part")
        await self._transport.call(lambda: target.parent.mkdir(parents=True, exist_ok=True))
        patience = Patience(self._retry_for, deadline)
        try:
            while True:
                silent = 0.0
                try:
                    async with self._transport.open(_patiently(request, patience)) as live:
                        if live.answer.status == 200:
                            # A new file each time: what was begun may end differently.
                            with part.open("wb") as to:
                                async for piece in live.pieces:
                                    to.write(piece)
                            await self._transport.call(lambda: part.replace(target))
                            return target
                        answer = live.answer
                except Lost as lost:
                    trouble, silent = self._out_of_reach(lost), lost.silent
                else:
                    if answer.status not in wire.TRY_AGAIN:
                        await self._no_file(job_id, name, answer)
                    trouble = answer.message()
                await self._pause(patience, trouble, job_id, silent)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()

    async def _no_file(self, job_id: str, name: str, answer: Answer) -> None:
        if answer.status == 404:
            raise FileNotFound(job_id, name)
        if answer.status == 202:
            # It was finished a moment ago: somebody has submitted it anew.
            raise UnexpectedAnswer(f"job {job_id!r} runs again")
        if answer.status == 500:
            status = await self.status(job_id)
            if status.state in (State.FAILED, State.CANCELLED):
                raise _failure(job_id, status)
        refused(answer, job_id)

    async def cancel(self, job_id: str) -> JobStatus:
        answer = await self._asked(self._request("POST", job_path(job_id, "cancel")))
        if answer.status == 409:
            status = await self.status(job_id)
            # By an earlier try of ours, or by somebody else: it is what was asked for.
            if status.cancelled:
                return status
            raise AlreadyFinished(job_id)
        if answer.status != 200:
            refused(answer, job_id)
        return records.job_status(answer.json())

    async def logs(self, job_id: str) -> str:
        answer = await self._get(job_path(job_id, "logs"))
        if answer.status != 200:
            refused(answer, job_id)
        return answer.body.decode("utf-8", "replace")

    async def follow_logs(self, job_id: str) -> AsyncIterator[str]:
        request = self._request("GET", job_path(job_id, "logs"), {"follow": "true"})._replace(silence=_QUIET)
        log, patience = Log(), Patience(self._retry_for)
        while True:
            trouble = None
            try:
                async with self._transport.open(request) as live:
                    if live.answer.status == 200:
                        log.begin()
                        async for piece in live.pieces:
                            patience.restore()
                            text = log.feed(piece)
                            if text:
                                yield text
                    elif live.answer.status in wire.TRY_AGAIN:
                        trouble = live.answer.message()
                    else:
                        refused(live.answer, job_id)
            except Lost as lost:
                # A quiet log is no outage.
                trouble = "" if lost.sent and lost.silent else self._out_of_reach(lost)
            if trouble:
                await self._pause(patience, trouble, job_id)
            elif trouble is None:
                # It ends with the job, and when the shepherd ends.
                if (await self.status(job_id)).finished:
                    rest = log.end()
                    if rest:
                        yield rest
                    return
                await self._pause(patience, "the log has ended before the job", job_id)

    async def events(self, job_id: str, after: Optional[str]) -> AsyncIterator[Event]:
        path, patience = job_path(job_id, "events"), Patience(self._retry_for)
        while True:
            params = {} if after is None else {"after": after}
            trouble = "the stream of events has ended"
            try:
                request = self._request("GET", path, params)._replace(silence=_QUIET)
                async with self._transport.open(request) as live:
                    if live.answer.status == 204:
                        return
                    if live.answer.status == 200:
                        parser = Parser()
                        async for piece in live.pieces:
                            patience.restore()
                            for frame in parser.feed(piece):
                                event = _event(frame)
                                if event is None:
                                    continue
                                after = event.id or after
                                yield event
                                if event.status is not None and event.status.finished:
                                    return
                    elif live.answer.status in wire.TRY_AGAIN:
                        trouble = live.answer.message()
                    elif live.answer.status == 400:
                        raise Rejected(live.answer.message())
                    else:
                        refused(live.answer, job_id)
            except Lost as lost:
                trouble = self._out_of_reach(lost)
            await self._pause(patience, trouble, job_id)

    async def jobs(self, status: Optional[str], limit: Optional[int]) -> AsyncIterator[ListedJob]:
        """Newest first, page by page as they are taken."""
        left, before = limit, None
        while left is None or left > 0:
            params = {"limit": str(_LARGEST_PAGE if left is None else min(left, _LARGEST_PAGE))}
            params.update((key, value) for key, value in (("status", status), ("before", before)) if value)
            answer = await self._get("/jobs", params)
            if answer.status != 200:
                refused(answer)
            page = answer.json()
            if not isinstance(page, dict) or not isinstance(page.get("jobs"), list):
                raise UnexpectedAnswer("an answer is no list of jobs")
            for one in page["jobs"]:
                yield records.listed_job(one)
            before = page.get("next")
            if before is None:
                return
            left = None if left is None else left - len(page["jobs"])

    async def flock(self) -> Dict[str, Sheep]:
        answer = await self._get("/status")
        if answer.status != 200:
            refused(answer)
        return records.flock(answer.json())

    async def readiness(self) -> Readiness:
        """Asks once: an answer 503 is the answer."""
        try:
            answer = await self._ask(self._request("GET", "/readyz"), Patience(self._retry_for))
        except Lost as lost:
            raise Unavailable(self._out_of_reach(lost)) from None
        if answer.status not in (200, 503):
            refused(answer)
        return records.readiness(answer.json())

    async def _get(self, path: str, params: Optional[Mapping[str, str]] = None) -> Answer:
        return await self._asked(self._request("GET", path, params))

    async def _asked(self, request: Request, deadline: Optional[Deadline] = None) -> Answer:
        """An answer to what may be asked any number of times."""
        patience = Patience(self._retry_for, deadline)
        while True:
            silent = 0.0
            try:
                answer = await self._ask(request, patience)
            except Lost as lost:
                trouble, silent = self._out_of_reach(lost), lost.silent
            else:
                if answer.status not in wire.TRY_AGAIN:
                    return answer
                trouble = answer.message()
            await self._pause(patience, trouble, None, silent)

    async def _ask(self, request: Request, patience: Patience, waits: float = 0.0) -> Answer:
        """Asks once. The shepherd may keep silent for as long as it waits and we have patience."""
        return await self._transport.ask(_patiently(request, patience, waits))

    async def _pause(self, patience: Patience, trouble: str, job_id: Optional[str], silent: float = 0.0) -> None:
        seconds = patience.pause(silent)
        if seconds is not None:
            await self._transport.sleep(seconds)
        elif patience.deadline is not None:
            raise patience.deadline.error(trouble)
        else:
            raise Unavailable(trouble, job_id)

    async def _in_storage(self, work: Callable[[Store], T], deadline: Optional[Deadline] = None) -> T:
        store = self._store
        if store is None:
            raise StorageRequired("the client was made without storage")
        return await self._transport.call(lambda: work(store), deadline)

    def _request(
        self,
        method: str,
        path: str,
        params: Optional[Mapping[str, str]] = None,
        content: Optional[bytes] = None,
    ) -> Request:
        return Request(method, self._base + path, params or {}, content)

    def _out_of_reach(self, lost: Lost) -> str:
        proxy = self._transport.proxy
        through = f" through the proxy {proxy}, which the environment names" if proxy else ""
        return f"the shepherd at {self.shown} does not answer{through} ({lost})"


def _deadline(job_id: str, timeout: Optional[float]) -> Optional[Deadline]:
    return None if timeout is None else Deadline(job_id, timeout)


def _patiently(request: Request, patience: Patience, waits: float = 0.0) -> Request:
    return request._replace(silence=waits + patience.silence(), deadline=patience.deadline)


def _failure(job_id: str, status: JobStatus) -> JobFailed:
    error = status.error or records.JobError("", "", "")
    kind = JobCancelled if status.cancelled else JobFailed
    return kind(job_id, error.message, error.exception_type, error.traceback)


def _event(frame: Frame) -> Optional[Event]:
    """None for kinds of a later shepherd."""
    if frame.event == "status":
        return Event(frame.id, records.job_status(wire.parse(frame.data.encode(), "an event")), None)
    if frame.event == "progress":
        return Event(frame.id, None, records.progress(wire.parse(frame.data.encode(), "an event")))
    return None
