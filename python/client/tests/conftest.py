import inspect
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterator

import anyio.from_thread
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon import Site  # noqa: E402

from shepherd_client import AsyncClient, AsyncJob, Client  # noqa: E402

Make = Callable[..., Any]


class Twin:
    """The async client or job with the sync one's methods, so that both halves have the same tests."""

    def __init__(self, inner: Any, portal: Any) -> None:
        self._inner = inner
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.ismethod(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            async def work() -> Any:
                result = value(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            return self._wrap(self._portal.call(work))

        return call

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, AsyncJob):
            return Twin(value, self._portal)
        return self._iterate(value) if hasattr(value, "__anext__") else value

    def _iterate(self, items: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._portal.call(items.__anext__)
            except StopAsyncIteration:
                return

    def __repr__(self) -> str:
        return repr(self._inner)


@pytest.fixture(scope="session")
def flock() -> Iterator[Site]:
    """A daemon that no test harms."""
    # Not pytest's own directory: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="client-") as directory:
        site = Site(Path(directory))
        yield site
        site.gate.touch()
        site.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A daemon of the test's own."""
    with tempfile.TemporaryDirectory(prefix="client-") as directory:
        site = Site(Path(directory))
        yield site
        site.gate.touch()
        site.close()


@pytest.fixture(params=["sync", "async"])
def make(request: Any) -> Iterator[Make]:
    """Makes clients of one of the two halves."""
    with ExitStack() as stack:
        if request.param == "sync":
            yield lambda *args, **kwargs: stack.enter_context(Client(*args, **kwargs))
            return
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())

        def twin(*args: Any, **kwargs: Any) -> Twin:
            async def new() -> AsyncClient:
                return AsyncClient(*args, **kwargs)

            made = Twin(portal.call(new), portal)
            stack.callback(made.close)
            return made

        yield twin


