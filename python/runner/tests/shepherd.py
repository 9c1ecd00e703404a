"""The shepherd's side of the wire, for tests: a pynng dialer that says what it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pynng

#: Long enough for a loaded machine, in seconds; nothing is measured with it.
LONG = 60.0
ATTEMPT = "1.1"

Record = Dict[str, Any]


class Shepherd:
    """Starts runners as processes of their own and speaks to them over ipc."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.data.mkdir()
        self.url = f"ipc://{directory}/runner.sock"
        self._socket: Optional[pynng.Pair1] = None
        self._unread: List[Record] = []
        self.process: Optional["subprocess.Popen[str]"] = None

    # The runner's process.

    def start(self, source: str, *arguments: str, config: str = "", **environ: str) -> Record:
        """Serves the class `R` of this source, and returns its ready message."""
        self.launch(source, *arguments, config=config, **environ)
        return self.ready()

    def launch(self, source: str, *arguments: str, config: str = "", **environ: str) -> None:
        (self.directory / "model.py").write_text(
            "import os, sys, time, threading, asyncio\n"
            "from shepherd_runner import *\n" + textwrap.dedent(source),
            encoding="utf-8",
        )
        (self.directory / "config.yaml").write_text(config, encoding="utf-8")
        self.execute("-m", "shepherd_runner", "-r", "model.R", *arguments, "config.yaml", **environ)

    def execute(self, *command: str, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=str(self.directory),
            env={**os.environ, "SHEPHERD_LISTEN": self.url, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            encoding="utf-8",
        )

    def exit(self) -> int:
        """Waits for the process's end."""
        assert self.process is not None
        return self.process.wait(LONG)

    def printed(self) -> str:
        """All that the ended process wrote to standard error and output."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=LONG)
        return err + out

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(LONG)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()

    # The connection.

    def dial(self) -> None:
        self._socket = pynng.Pair1(recv_timeout=int(LONG * 1000), send_timeout=int(LONG * 1000))
        self._socket.reconnect_time_min = 10
        self._socket.reconnect_time_max = 20
        self._socket.dial(self.url, block=False)

    def hang_up(self) -> None:
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        self._unread.clear()

    def ready(self) -> Record:
        if self._socket is None:
            self.dial()
        message = self.message()
        assert message["message_type"] == "ReadyMessage", message
        return message

    def raw(self, frame: bytes) -> None:
        assert self._socket is not None
        self._socket.send(frame)

    def send(self, *messages: Record) -> None:
        frame: Record = {"messages": list(messages)} if len(messages) != 1 else {"message": messages[0]}
        self.raw(json.dumps(frame).encode())

    def message(self) -> Record:
        """The next message."""
        while not self._unread:
            assert self._socket is not None
            frame = json.loads(self._socket.recv())
            self._unread.extend(frame["messages"] if "messages" in frame else [frame["message"]])
        return self._unread.pop(0)

    def messages(self, count: int) -> List[Record]:
        return [self.message() for _ in range(count)]

    def silence(self) -> None:
        """Nothing was said but what is answered to a ping."""
        self.send(ping(99))
        assert self.message() == {"nonce": 99, "message_type": "PongMessage"}

    # Jobs.

    def stage(self, job_id: str, text: Optional[str] = "payload") -> None:
        for name in ("inputs", "outputs"):
            (self.data / job_id / name).mkdir(parents=True, exist_ok=True)
        if text is not None:
            (self.data / job_id / "inputs" / "input").write_text(text, encoding="utf-8")

    def input(self, job_id: str, attempt: str = ATTEMPT, **more: Any) -> Record:
        """The message that gives a job, with its directories made."""
        self.stage(job_id)
        return {
            "identity": "",
            "job_id": job_id,
            "attempt": attempt,
            "io_data_root": str(self.data),
            "message_type": "InputMessage",
            **more,
        }

    def output(self, job_id: str, name: str = "output") -> str:
        return (self.data / job_id / "outputs" / name).read_text(encoding="utf-8")

    def wait_for(self, path: str) -> None:
        """Waits until a model has made a file in the data directory."""
        by = time.monotonic() + LONG
        while not (self.data / path).exists():
            assert time.monotonic() < by, f"{path} does not come"
            time.sleep(0.005)


def done(job_id: str, attempt: str = ATTEMPT) -> Record:
    return {"identity": "", "job_id": job_id, "attempt": attempt, "message_type": "DoneMessage"}


def cancel(job_id: str, attempt: str = ATTEMPT) -> Record:
    return {"job_id": job_id, "attempt": attempt, "message_type": "CancelMessage"}


def cancelled(job_id: str, attempt: str = ATTEMPT) -> Record:
    return {
        "identity": "",
        "job_id": job_id,
        "attempt": attempt,
        "message": "the job was cancelled",
        "exception_type": "Cancelled",
        "exception_traceback": "",
        "message_type": "ErrorMessage",
    }


def shutdown(grace: float = LONG) -> Record:
    return {"grace": grace, "message_type": "ShutdownMessage"}


def ping(nonce: int) -> Record:
    return {"nonce": nonce, "message_type": "PingMessage"}


TERM = signal.SIGTERM
