"""The real daemon, for tests: `SHEPHERD_BIN` names its binary."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import pytest

#: Long enough for a loaded machine, in seconds.
LONG = 120.0


class Reply(NamedTuple):
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def binary() -> str:
    """The daemon's binary; without one the test is skipped, or fails where nothing may be."""
    path = os.environ.get("SHEPHERD_BIN")
    if not path:
        reason = "SHEPHERD_BIN does not name the daemon"
        if os.environ.get("SHEPHERD_TEST_NO_SKIP") == "1":
            pytest.fail(reason)
        print(f"skipped: {reason}")
        pytest.skip(reason)
    return path


class Daemon:
    """One daemon with one bare sheep, whose runners are of this Python."""

    def __init__(
        self,
        directory: Path,
        models: Path,
        python: str = sys.executable,
        runner_command: Optional[List[str]] = None,
        crash_retries: int = 0,
        **sheep: Any,
    ) -> None:
        config: Dict[str, Any] = {
            "data_root": str(directory / "root"),
            "limits": {"crash_retries": crash_retries},
            "sheep": {
                "dolly": {
                    "type": "bare",
                    "working_directory": str(models),
                    "runner_command": runner_command or [python, "-m", "shepherd_runner"],
                    **sheep,
                }
            },
        }
        path = directory / "shepherd.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(config))
        self.log: List[str] = []
        self._process = subprocess.Popen(
            [binary(), "-c", str(path), "-h", "127.0.0.1", "-p", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            encoding="utf-8",
        )
        self._address = ""
        self._available = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._available.wait(LONG) and self._address, self.log

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            match = re.search(r"available at (http://[0-9.:]+)", line)
            if match:
                self._address = match.group(1)
                self._available.set()
        self._available.set()

    def close(self) -> None:
        """Ends it, and expects that it ends well."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(LONG) == 0, self.log
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def request(self, path: str, body: Any = None) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=LONG) as reply:
                return Reply(reply.status, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read())

    def submit(self, job_id: str, name: str, payload: str = "payload", version: str = "1") -> None:
        body = {"job_id": job_id, "model": {"name": name, "version": version}, "payload": payload}
        reply = self.request("/start-job", body)
        assert (reply.status, reply.json) == (200, {"success": True}), reply

    def finished(self, job_id: str) -> Dict[str, Any]:
        """The job's status, once it is done or failed."""
        reply = self.request(f"/jobs/{job_id}/wait_ready?timeout={LONG}")
        assert reply.status == 200, (reply, self.log)
        status: Dict[str, Any] = reply.json
        return status

    def done(self, job_id: str) -> None:
        status = self.finished(job_id)
        assert status["status"] == "done", (status, self.log)

    def failed(self, job_id: str) -> Dict[str, str]:
        status = self.finished(job_id)
        assert status["status"] == "failed", status
        details: Dict[str, str] = status["error_details"]
        return details

    def result(self, job_id: str, name: str = "output") -> Reply:
        return self.request(f"/jobs/{job_id}/result/{name}")
