"""The two ways to send and to wait. What is above them is written once, as coroutines.

`Blocking` has coroutines that never suspend, so that `run` can drive whatever is built on them to its end in one step,
without an event loop; `Asynchronous` has ordinary ones, for asyncio and trio.
"""

import sys
import time
from contextlib import asynccontextmanager
from typing import (
    Any,
    AsyncContextManager,
    AsyncIterator,
    Callable,
    Coroutine,
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

from shepherd_client.wire import Answer

T = TypeVar("T")

#: Seconds to connect in; to send or hear something in, unless a request says otherwise.
CONNECT = 5.0
READ = 60.0


class Lost(Exception):
    """There was no whole answer. `sent` says whether the request may have arrived, `quiet` whether time ran out."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}".rstrip(": "))
        self.sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        self.quiet = isinstance(error, httpx.ReadTimeout)


class Request(NamedTuple):
    method: str
    url: str
    params: Mapping[str, str] = {}
    content: Optional[bytes] = None
    #: Seconds that the answer may be quiet.
    read: float = READ

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
            "timeout": httpx.Timeout(READ, connect=CONNECT, read=self.read),
            "follow_redirects": False,
        }


class Live(NamedTuple):
    """An answer that is being read: its pieces, or an error's whole body."""

    answer: Answer
    pieces: AsyncIterator[bytes]


class Transport(Protocol):
    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""

    def open(self, request: Request) -> AsyncContextManager[Live]:
        """Raises Lost, also while the pieces are read."""

    async def sleep(self, seconds: float) -> None: ...

    async def call(self, work: Callable[[], T]) -> T:
        """Runs what blocks."""

    async def close(self) -> None: ...


class Blocking:
    def __init__(self, http: Optional[httpx.Client]) -> None:
        self._http = httpx.Client() if http is None else http
        self._own = http is None

    async def ask(self, request: Request) -> Answer:
        try:
            response = self._http.request(**request.options())
        except httpx.TransportError as error:
            raise Lost(error) from None
        return Answer(response.status_code, response.content)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Live]:
        try:
            with self._http.stream(**request.options()) as response:
                body = b"" if response.status_code == 200 else response.read()
                yield Live(Answer(response.status_code, body), self._pieces(response))
        except httpx.TransportError as error:
            raise Lost(error) from None

    @staticmethod
    async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
        for piece in response.iter_bytes():
            yield piece

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def call(self, work: Callable[[], T]) -> T:
        return work()

    async def close(self) -> None:
        if self._own:
            self._http.close()


class Asynchronous:
    def __init__(self, http: Optional[httpx.AsyncClient]) -> None:
        self._http = httpx.AsyncClient() if http is None else http
        self._own = http is None

    async def ask(self, request: Request) -> Answer:
        try:
            response = await self._http.request(**request.options())
        except httpx.TransportError as error:
            raise Lost(error) from None
        return Answer(response.status_code, response.content)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Live]:
        try:
            async with self._http.stream(**request.options()) as response:
                body = b"" if response.status_code == 200 else await response.aread()
                yield Live(Answer(response.status_code, body), response.aiter_bytes())
        except httpx.TransportError as error:
            raise Lost(error) from None

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def call(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work)

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
