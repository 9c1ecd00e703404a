"""The real daemon, for tests: `SHEPHERD_BIN` and `SHEPHERD_RUNNER_BIN` name the binaries.

A site outlives its daemon, which can be killed and started again at the same address.
"""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

#: Long enough for a loaded machine, in seconds.
LONG = 60.0

ACCESS_KEY = "sheepdog"
SECRET_KEY = "a-secret-of-the-tests"

#: What the models do, in shell: $1 is the directory of inputs, $2 that of outputs, $3 the file that opens the gate.
MODELS = {
    "upper": 'tr a-z A-Z < "$1/input" > "$2/output"',
    "copy": 'cp -r "$1/." "$2"',
    "sad": 'echo "no grass: žádná tráva" >&2; exit 3',
    "gate": 'echo begun; until [ -e "$3" ]; do sleep 0.02; done; cp "$1/input" "$2/output"',
    "talk": "echo one; echo žluť; echo done > $2/output",
}


def binary(variable: str) -> str:
    """A binary of ours; without it the test is skipped, or fails where nothing may be."""
    path = os.environ.get(variable)
    if not path:
        reason = f"{variable} names no binary"
        if os.environ.get("SHEPHERD_TEST_NO_SKIP") == "1":
            pytest.fail(reason)
        print(f"skipped: {reason}")
        pytest.skip(reason)
    return path


class Site:
    def __init__(self, directory: Path) -> None:
        self.gate = directory / "gate"
        self.log: List[str] = []
        self._directory = directory
        self._process: "Optional[subprocess.Popen[str]]" = None
        self._reader: Optional[threading.Thread] = None
        models = directory / "models"
        for name, script in MODELS.items():
            (models / name / "1").mkdir(parents=True)
            (models / name / "1" / "config.yaml").touch()
            command = ["sh", "-c", script, name, "{inputs}", "{outputs}", str(self.gate)]
            (models / name / "1" / "runner.yaml").write_text(json.dumps({"runner": {"command": command}}))
        served = {"listen": "127.0.0.1:0", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        config: Dict[str, Any] = {
            "data_root": str(directory / "root"),
            "storage": {"serve_s3": served},
            # A job that was in work when its daemon was killed begins anew.
            "sheep": {
                "dolly": {
                    "type": "bare",
                    "working_directory": str(models),
                    "runner_command": [binary("SHEPHERD_RUNNER_BIN")],
                }
            },
        }
        (directory / "shepherd.yaml").write_text(json.dumps(config))
        self.port = 0
        self.s3 = ""
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """At the port that it had before."""
        command = [binary("SHEPHERD_BIN"), "-c", str(self._directory / "shepherd.yaml"), "-h", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "-p", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        available = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, available), daemon=True)
        self._reader.start()
        assert available.wait(LONG) and self._process.poll() is None, self.log

    def _read(self, process: "subprocess.Popen[str]", available: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line)
            served = re.search(r"available over S3 at (http://[0-9.:]+)", line)
            if served:
                self.s3 = served.group(1)
            address = re.search(r"API is available at http://[0-9.]+:([0-9]+)", line)
            if address:
                self.port = int(address.group(1))
            if self.port and self.s3:
                available.set()
        available.set()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def close(self) -> None:
        if self._process is not None:
            self._end(signal.SIGTERM)

    def _end(self, by: signal.Signals) -> None:
        process, reader = self._process, self._reader
        assert process is not None and reader is not None
        self._process = None
        process.send_signal(by)
        code = process.wait(LONG)
        assert by is signal.SIGKILL or code == 0, self.log
        # What a runner holds open ends with it.
        reader.join(LONG)
        assert process.stdout is not None
        process.stdout.close()


class Cutter:
    """A proxy that loses answers: it passes requests on, and cuts the connection when their answers come."""

    def __init__(self, port: int, cuts: int) -> None:
        self._port = port
        self.cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            for work, source, sink in ((self._requests, client, server), (self._answers, server, client)):
                threading.Thread(target=work, args=(source, sink), daemon=True).start()

    @staticmethod
    def _requests(client: socket.socket, server: socket.socket) -> None:
        try:
            while True:
                data = client.recv(65536)
                if not data:
                    break
                server.sendall(data)
        except OSError:
            pass
        server.close()

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while True:
                data = server.recv(65536)
                if not data:
                    break
                if self.cuts > 0:
                    self.cuts -= 1
                    break
                client.sendall(data)
        except OSError:
            pass
        for end in (client, server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
