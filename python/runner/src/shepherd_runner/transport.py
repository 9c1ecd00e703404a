"""The socket at which the shepherd reaches a runner: nng's Pair1, which has one peer at a time.

A connection has a number, and messages are for one connection: what was not sent when it ended is dropped, so that
nothing meant for one shepherd reaches the next. A connection proves nothing about who is there; the shepherd sends
nothing before it was told that the runner is ready. With a token (see :mod:`.handshake`), only a peer that proved to
know it has a connection here; any other is turned away, unheard.

The socket is never closed: it ends with the process. To close one while its peer is there, or while a thread waits
for it, aborted 1 of 50 processes ("panic: pthread_mutex_lock", libnng 1.11 of pynng 0.9).

This is the only module that knows pynng.
"""

from __future__ import annotations

import atexit
import select
import threading
import time
from typing import Any, Callable, NamedTuple, Optional, Set

import pynng

from .handshake import Challenge
from .wire import MAX_FRAME

#: The number of no connection.
NONE = 0

#: How long a send waits before it looks whether its connection is still there, in milliseconds.
_SEND_MS = 100
#: How long a send waits while it is not clear whether there is another connection, in seconds.
_COMING = 0.001
#: How long a peer may take to prove that it is the shepherd, in seconds: nobody else can connect meanwhile.
_PROOF = 2.0
#: How long a receive waits before it says that nothing came, in milliseconds.
_RECV_MS = 1000


class Frame(NamedTuple):
    """A frame, and the connection that it came on."""

    connection: int
    data: bytes


class _Pair1(pynng.Pair1):  # type: ignore[misc]
    def __del__(self) -> None:
        """Closes nothing, at the interpreter's end either."""


class _Guest:
    """A peer that did not prove yet that it is the shepherd."""

    def __init__(self, pipe: Any, token: str) -> None:
        self.pipe = pipe
        self.challenge = Challenge(token)
        self.is_asked = False
        self.by = time.monotonic() + _PROOF

    def turn_away(self) -> None:
        try:
            self.pipe.close()
        except pynng.NNGException:
            # It is gone already.
            pass


class ListenError(Exception):
    """It cannot be listened where it should."""


class RunnerSocket:
    """Listens for one shepherd at a time."""

    def __init__(self, url: str, changed: Callable[[], None], token: Optional[str] = None) -> None:
        """Listens at ``url``, for whoever knows the token, if there is one. ``changed`` is called when
        :attr:`connection` has become another one, or somebody is there to be asked for a proof; on a thread of the
        library, where it must neither wait nor call this object.
        """
        self._connection = NONE
        self._changed = changed
        self._token = token
        #: Who is there and is not the shepherd yet.
        self._guest: Optional[_Guest] = None
        #: Connections whose beginning was not told yet.
        self._coming: Set[int] = set()
        #: Held while a message is handed over, so that no other connection begins between the look and the deed.
        self._entrance = threading.Lock()
        # Without a send buffer: what would lie in one could reach a later peer.
        self._socket = _Pair1(send_buffer_size=0, recv_max_size=MAX_FRAME, recv_timeout=_RECV_MS)
        # The library's own end would close all sockets.
        atexit.unregister(getattr(pynng.nng, "_pynng_atexit", print))
        self._socket.add_pre_pipe_connect_cb(self._on_coming)
        self._socket.add_post_pipe_connect_cb(self._on_connect)
        self._socket.add_post_pipe_remove_cb(self._on_remove)
        try:
            self._socket.listen(url)
            self._send_fd = self._socket.send_fd
            self._room = select.poll()
            self._room.register(self._send_fd, select.POLLIN)
        except (pynng.NNGException, ValueError) as error:
            self._socket.close()
            raise ListenError(f"cannot listen at `{url}`: {error}") from error

    @property
    def connection(self) -> int:
        """The present connection, or :data:`NONE`."""
        return self._connection

    def _on_coming(self, pipe: Any) -> None:
        with self._entrance:
            self._coming.add(pipe.id)

    def _on_connect(self, pipe: Any) -> None:
        self._begin(pipe)

    def _begin(self, pipe: Any) -> None:
        # In this order: a send that sees neither would take the connection before for the present one.
        if self._token is None:
            self._connection = pipe.id
        elif pipe.id in self._coming:
            self._guest = _Guest(pipe, self._token)
        self._coming.discard(pipe.id)
        self._changed()

    def greet(self) -> None:
        """Asks a peer for its proof that was not asked yet."""
        guest = self._guest
        if guest is not None and not guest.is_asked:
            guest.is_asked = True
            self._hand_over(guest.challenge.frame, lambda: guest is self._guest)

    def _prove(self, guest: _Guest, frame: bytes) -> None:
        answer = guest.challenge.answer(frame)
        if answer is None:
            guest.turn_away()
        elif self._hand_over(answer, lambda: guest is self._guest):
            with self._entrance:
                # It may have gone meanwhile, which nobody would hear of again.
                if guest is not self._guest:
                    return
                self._connection, self._guest = guest.pipe.id, None
            self._changed()

    def _on_remove(self, pipe: Any) -> None:
        # A second peer, which was sent away, comes and goes without having been connected.
        self._coming.discard(pipe.id)
        with self._entrance:
            guest = self._guest
            if guest is not None and guest.pipe.id == pipe.id:
                self._guest = None
        # The end of an earlier connection may be told after the beginning of the next.
        if pipe.id == self._connection:
            self._connection = NONE
            self._changed()

    def recv(self) -> Optional[Frame]:
        """The next frame, or None when there was none for a second."""
        try:
            message = self._socket.recv_msg()
        except pynng.Timeout:
            guest = self._guest
            if guest is not None and time.monotonic() > guest.by:
                guest.turn_away()
            return None
        connection = NONE if message.pipe is None else message.pipe.id
        if connection in self._coming:
            # It speaks before its beginning is told.
            self._begin(message.pipe)
        guest = self._guest
        if guest is not None and guest.pipe.id == connection:
            self._prove(guest, message.bytes)
            return None
        if connection == NONE or connection != self._connection:
            # Left behind by a connection that is gone.
            return None
        return Frame(connection, message.bytes)

    def send(self, connection: int, data: bytes) -> bool:
        """Sends to this connection, and waits while its peer does not read. Returns whether it was sent. One call at
        a time.
        """
        return connection != NONE and self._hand_over(data, lambda: connection == self._connection)

    def _hand_over(self, data: bytes, is_present: Callable[[], bool]) -> bool:
        while is_present():
            if not self._room.poll(_SEND_MS):
                continue
            with self._entrance:
                # One that comes may take the present one's place, whose end is told later.
                if is_present() and not self._coming:
                    try:
                        # The library must not wait: what waits in it is sent to whoever connects next.
                        self._socket.send(data, block=False)
                        return True
                    except pynng.TryAgain:
                        continue
                    except pynng.NNGException:
                        return False
            time.sleep(_COMING)
        return False

    def flush(self, timeout: float) -> None:
        """Waits until what was sent has left this process, while there is somebody to send it to."""
        by = time.monotonic() + timeout
        poll = select.poll()
        # Readable once another message could be sent: the one before is in the system's hands.
        poll.register(self._send_fd, select.POLLIN)
        while self._connection != NONE and time.monotonic() < by:
            if poll.poll(20):
                return
