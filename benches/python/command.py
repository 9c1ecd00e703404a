"""Jobs that are a command, /bin/true: one after the other, and many that wait together.

usage: command.py SHEPHERD SLOTS [DIRECTORY]

SHEPHERD is the daemon's program, with `shepherd-runner` beside it; SLOTS is the runner's `slots`; the
daemon's directories are made in DIRECTORY.
"""

import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ALONE, TOGETHER = 150, 1200


def main(program: str, slots: str, parent: str = "/dev/shm") -> None:
    with tempfile.TemporaryDirectory(dir=parent) as path:
        root = pathlib.Path(path)
        model = root / "models/true/1"
        model.mkdir(parents=True)
        (model / "config.yaml").touch()
        (model / "runner.yaml").write_text(f"runner: {{command: [/bin/true], slots: {slots}}}\n")
        config = root / "shepherd.yaml"
        sheep = f"{{type: bare, working_directory: {root}/models}}"
        config.write_text(f"data_root: {root}/data\nsheep:\n  dolly: {sheep}\n")
        command = [program, "-c", str(config), "-h", "127.0.0.1", "-p", "0"]
        daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            measure(port_of(daemon))
        finally:
            # It may wait for nothing: its directories go.
            daemon.kill()
            daemon.wait()


def port_of(daemon: subprocess.Popen) -> int:
    """The port that the daemon's log tells; afterwards nobody reads the log."""
    marker = "available at http://127.0.0.1:"
    for line in daemon.stderr:
        if marker in line:
            return int(line.split(marker)[1].split("/")[0].split()[0])
    raise SystemExit("the daemon ended")


def measure(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(method: str, path: str, body: object = None) -> dict:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text!r}")
        return json.loads(text)

    def submit(job: str) -> None:
        ask("POST", "/start-job", {"job_id": job, "model": {"name": "true", "version": "1"}, "payload": "x"})

    def wait(job: str) -> None:
        status = ask("GET", f"/jobs/{job}/wait_ready")
        if status["status"] != "done":
            raise SystemExit(f"{job}: {status}")

    submit("warm-up")
    wait("warm-up")
    times = []
    for number in range(ALONE):
        begun = time.perf_counter()
        submit(f"alone-{number}")
        wait(f"alone-{number}")
        times.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    for number in range(TOGETHER):
        submit(f"together-{number}")
    for number in range(TOGETHER):
        wait(f"together-{number}")
    rate = TOGETHER / (time.perf_counter() - begun)
    print(f"one after the other: p50 {statistics.median(times) * 1e3:.1f} ms; together: {rate:.0f} jobs/s")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
