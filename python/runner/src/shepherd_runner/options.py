"""How a runner is reached, and what it calls itself."""

from __future__ import annotations

import os
from typing import Mapping, NamedTuple, Optional

#: The port of runners, as it always was.
DEFAULT_PORT = 9999


class Options(NamedTuple):
    """Settings of :func:`serve`. What belongs to the model is an attribute of its :class:`Runner`."""

    #: Where to listen: ``ipc:///PATH`` or ``tcp://ADDRESS:PORT``.
    listen: str
    #: What the runner calls itself in the shepherd's log; by default its class.
    name: str = ""
    #: How many seconds the job in work may go on after SIGTERM or SIGINT.
    grace: float = 10.0
    #: The secret that the shepherd must prove to know, as the runner proves it to him. Without one, whoever connects
    #: first is taken for the shepherd, and gives the runner its jobs.
    token: Optional[str] = None

    def __repr__(self) -> str:
        """Shows no secret."""
        return f"Options(listen={self.listen!r}, name={self.name!r}, grace={self.grace!r})"

    @classmethod
    def from_env(cls, port: int = DEFAULT_PORT, environ: Optional[Mapping[str, str]] = None) -> "Options":
        """Listens where the sheep says: at the URL in the environment's ``SHEPHERD_LISTEN``; without it at ``port``
        of the address in ``SHEPHERD_LISTEN_HOST``, and without that of 127.0.0.1 only. The token is that in
        ``SHEPHERD_TOKEN``, if there is one.
        """
        environ = os.environ if environ is None else environ
        url = environ.get("SHEPHERD_LISTEN")
        token = environ.get("SHEPHERD_TOKEN") or None
        if url:
            return cls(listen=url, token=token)
        host = environ.get("SHEPHERD_LISTEN_HOST") or "127.0.0.1"
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return cls(listen=f"tcp://{host}:{port}", token=token)
