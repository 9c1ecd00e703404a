"""Messages on their way to the shepherd.

Between short jobs answers wait for each other and travel together, because a frame costs more than a job that does
nothing. What nothing follows at once is sent at once; and if the next job turns out to be long, a thread sends what
waits after :data:`HOLD`. The same thread sends what must not be waited for where it was said: pongs and progress.

All messages travel in the order in which they were given.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, List, Optional

from . import wire
from .transport import NONE, RunnerSocket

#: The longest that an answer waits for others, in seconds.
HOLD = 0.001
#: The most messages of a frame to the shepherd.
_BATCH = 64
#: The most messages that wait when another is offered.
_MOST_OFFERED = 1024


class Outbox:
    """What is to be sent on the present connection."""

    def __init__(self, connected: Callable[[int], Optional[str]]) -> None:
        """``connected`` is told of every change of the connection, and says what is to be sent on a new one."""
        self._connected = connected
        self._socket: Optional[RunnerSocket] = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pending: List[str] = []
        self._connection = NONE
        self._send_at: Optional[float] = None
        self._idle = False
        self._stirred = False
        #: Held while something is sent, so that the order is kept. Taken before `_lock`.
        self._sending = threading.Lock()
        #: Held while a change of the connection is taken note of. Taken before `_lock`.
        self._looking = threading.Lock()

    def stir(self) -> None:
        """Has the thread look at the connection. Waits for nothing: the transport calls it."""
        with self._lock:
            self._stirred = True
            self._changed.notify()

    def push(self, connection: int, message: str, hold: bool) -> None:
        """Sends an answer with all that waits, unless it may be held for others."""
        now = time.monotonic()
        with self._lock:
            if connection != self._connection:
                return
            self._pending.append(message)
            if self._send_at is None:
                self._send_at = now + HOLD
                if hold and self._idle:
                    self._changed.notify()
            hold = hold and len(self._pending) < _BATCH and now < self._send_at
        if not hold:
            self._send()

    def post(self, connection: int, message: str) -> None:
        """Has the thread send a message, soon."""
        with self._lock:
            if connection != self._connection:
                return
            self._pending.append(message)
            self._send_at = 0.0
            self._changed.notify()

    def offer(self, connection: int, message: str) -> None:
        """As :meth:`post`, for what may be left out: it is, while a shepherd that does not read has much to read."""
        if len(self._pending) < _MOST_OFFERED:
            self.post(connection, message)

    def append(self, connection: int, message: str) -> None:
        """Has a message travel with the next one, or at the next flush. Waits for nothing."""
        with self._lock:
            if connection == self._connection:
                self._pending.append(message)

    def _send(self) -> None:
        with self._sending:
            with self._lock:
                pending, connection = self._pending, self._connection
                self._pending, self._send_at = [], None
            if self._socket is not None:
                for frame in wire.frames(pending, _BATCH):
                    if not self._socket.send(connection, frame):
                        # Gone, and whatever is left was for it.
                        return

    def look(self, socket: RunnerSocket) -> None:
        """Takes note of the present connection, if it is another one, and greets whoever is there."""
        with self._looking:
            socket.greet()
            connection = socket.connection
            if connection == self._connection:
                return
            with self._lock:
                self._connection = connection
                self._pending, self._send_at = [], None
            greeting = self._connected(connection)
            if greeting is not None:
                self.post(connection, greeting)

    def run(self, socket: RunnerSocket) -> None:
        """The thread, which goes on to the process's end."""
        self._socket = socket
        while True:
            with self._lock:
                left: Optional[float] = None
                while not self._stirred:
                    left = None if self._send_at is None else self._send_at - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    self._idle = True
                    self._changed.wait(left)
                    self._idle = False
                stirred, self._stirred = self._stirred, False
            if stirred:
                self.look(socket)
            else:
                self._send()

    def flush(self) -> None:
        """Sends what waits, at once."""
        self._send()
