"""The two ways to send and to wait. What is above them is written once, as coroutines.

`Blocking` has coroutines that never suspend, so that `run` can drive whatever is built on them to its end in one step,
without an event loop; `Asynchronous` has ordinary ones, for asyncio and trio.
"""

import sys
import threading
import time
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager
from typing import (
    Any,
    AsyncContextManager,
    AsyncIterator,
    Callable,
    Coroutine,
    Dict,
    Generator,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    TypeVar,
)

import anyio
import anyio.to_thread
import httpx

from shepherd_client import proxies
from shepherd_client.patience import Deadline
from shepherd_client.wire import Answer

T = TypeVar("T")

#: Seconds to connect in.
CONNECT = 5.0


class Lost(Exception):
    """There was no whole answer. `sent` says whether the request may have arrived, `silent` for how many seconds
    nothing was heard before."""

    def __init__(self, error: Exception, silent: float = 0.0) -> None:
        super().__init__(f"{type(error).__name__}: {error}".rstrip(": "))
        self.sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        self.silent = silent


class _Limits(Dict[str, float]):
    """Time limits as httpx takes them. None passes the deadline, whenever it is looked up."""

    def __init__(self, silence: float, deadline: Optional[Deadline]) -> None:
        super().__init__(connect=min(CONNECT, silence), read=silence, write=silence, pool=silence)
        self._deadline = deadline

    def get(self, key: str, default: Any = None) -> Any:
        limit = super().get(key, default)
        # Sockets take 0 for no waiting at all, and fail even with what is there.
        return limit if self._deadline is None else min(limit, max(self._deadline.left(), 0.001))


class Request(NamedTuple):
    method: str
    url: str
    params: Mapping[str, str] = {}
    content: Optional[bytes] = None
    #: Seconds that the answer may be silent.
    silence: float = 60.0
    deadline: Optional[Deadline] = None

    def options(self) -> Any:
        """As httpx takes it."""
        # What packs answers on the way holds back streams.
        headers = {"Accept-Encoding": "identity"}
        if self.content is not None:
            headers["Content-Type"] = "application/json"
        return {
            "method": self.method,
            "url": self.url,
            "params": self.params or None,
            "content": self.content,
            "headers": headers,
            "extensions": {"timeout": _Limits(self.silence, self.deadline)},
            "follow_redirects": False,
        }

    def lost(self, error: Exception) -> Lost:
        """What an error of httpx means."""
        if isinstance(error, httpx.ConnectTimeout):
            return Lost(error, min(CONNECT, self.silence))
        return Lost(error, self.silence if isinstance(error, httpx.TimeoutException) else 0.0)

    def check(self) -> None:
        """Raises once the deadline has passed: httpx limits each piece of an answer, not their sum."""
        if self.deadline is not None and not self.deadline.left():
            raise httpx.ReadTimeout("the time is over")


class Live(NamedTuple):
    """An answer that is being read: its pieces, or an error's whole body."""

    answer: Answer
    pieces: AsyncIterator[bytes]


class Transport(Protocol):
    #: What requests go through, for people; None where they go direct, or by a client that was given.
    proxy: Optional[str]

    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""

    def open(self, request: Request) -> AsyncContextManager[Live]:
        """Raises Lost, also while the pieces are read."""

    async def sleep(self, seconds: float) -> None: ...

    async def call(self, work: Callable[[], T], deadline: Optional[Deadline] = None) -> T:
        """Runs what blocks; raises WaitTimeout and leaves it alone when it takes until the deadline."""

    async def close(self) -> None: ...


class Blocking:
    def __init__(self, http: Optional[httpx.Client], url: str) -> None:
        self._http = httpx.Client(mounts=proxies.direct(url)) if http is None else http
        self._own = http is None
        self.proxy = proxies.of(url) if self._own else None

    async def ask(self, request: Request) -> Answer:
        async with self.open(request) as live:
            if live.answer.status != 200:
                return live.answer
            return Answer(200, b"".join([piece async for piece in live.pieces]))

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Live]:
        try:
            with self._http.stream(**request.options()) as response:
                pieces = self._pieces(response, request)
                body = b"" if response.status_code == 200 else b"".join([piece async for piece in pieces])
                yield Live(Answer(response.status_code, body), pieces)
        except httpx.TransportError as error:
            raise request.lost(error) from None

    @staticmethod
    async def _pieces(response: httpx.Response, request: Request) -> AsyncIterator[bytes]:
        for piece in response.iter_bytes():
            request.check()
            yield piece

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def call(self, work: Callable[[], T], deadline: Optional[Deadline] = None) -> T:
        if deadline is None:
            return work()
        done: "Future[T]" = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        if not wait([done], deadline.left()).done:
            raise deadline.error()
        return done.result()

    async def close(self) -> None:
        if self._own:
            self._http.close()


class Asynchronous:
    def __init__(self, http: Optional[httpx.AsyncClient], url: str) -> None:
        self._http = httpx.AsyncClient(mounts=proxies.direct(url)) if http is None else http
        self._own = http is None
        self.proxy = proxies.of(url) if self._own else None

    async def ask(self, request: Request) -> Answer:
        async with self.open(request) as live:
            if live.answer.status != 200:
                return live.answer
            return Answer(200, b"".join([piece async for piece in live.pieces]))

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Live]:
        try:
            async with self._http.stream(**request.options()) as response:
                pieces = self._pieces(response, request)
                body = b"" if response.status_code == 200 else b"".join([piece async for piece in pieces])
                yield Live(Answer(response.status_code, body), pieces)
        except httpx.TransportError as error:
            raise request.lost(error) from None

    @staticmethod
    async def _pieces(response: httpx.Response, request: Request) -> AsyncIterator[bytes]:
        async for piece in response.aiter_bytes():
            request.check()
            yield piece

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def call(self, work: Callable[[], T], deadline: Optional[Deadline] = None) -> T:
        if deadline is None:
            return await anyio.to_thread.run_sync(work)
        with anyio.move_on_after(deadline.left()):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        raise deadline.error()

    async def close(self) -> None:
        if self._own:
            await self._http.aclose()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs what is built on `Blocking`."""
    # An event loop that runs in this thread must not take our generators for its own.
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        sys.set_asyncgen_hooks(*hooks)
    coroutine.close()
    raise RuntimeError("a blocking transport has suspended")


def iterate(items: AsyncIterator[T]) -> Generator[T, None, None]:
    """Iterates over what is built on `Blocking`; closing the generator closes it."""

    async def step() -> T:
        return await items.__anext__()

    async def close() -> None:
        await items.aclose()  # type: ignore[attr-defined]

    try:
        while True:
            try:
                item = run(step())
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(close())
