"""What every runner must do, through the real daemon and a bare sheep."""

import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from daemon import LONG, Daemon, binary

MODEL = '''
import ctypes, os, signal, sys, time
from shepherd_runner import Runner


class Scripted(Runner):
    """Does what its input says."""

    def setup(self, config):
        if config.get("dies"):
            os._exit(9)
        if config.get("raises"):
            raise RuntimeError("the weights are gone")
        self.loaded = os.getpid()
        self.count = 0

    def process(self, job):
        self.count += 1
        text = (job.inputs / "input").read_text(encoding="utf-8")
        getattr(self, text.split()[0])(job, text)

    def ok(self, job, text):
        (job.outputs / "output").write_text(f"{self.loaded} {self.count}")

    def error(self, job, text):
        raise ValueError("bad picture: žluťoučký 羊")

    def several(self, job, text):
        for name in ("output", "a b.json", "žluťoučký 羊.txt"):
            (job.outputs / name).write_text(name, encoding="utf-8")

    def nested(self, job, text):
        (job.outputs / "deep" / "er").mkdir(parents=True)
        (job.outputs / "deep" / "er" / "file").write_text("nested")

    def empty(self, job, text):
        (job.outputs / "output").touch()

    def none(self, job, text):
        pass

    def big(self, job, text):
        with open(job.outputs / "output", "wb") as file:
            file.truncate(1 << 30)

    def slow(self, job, text):
        for step in range(10):
            job.progress(step / 10, "slowly")
            time.sleep(0.1)
        self.ok(job, text)

    def crash(self, job, text):
        print("about to crash", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(1000)

    def once(self, job, text):
        (job.outputs / "left").touch()
        marker = text.split()[1]
        if not os.path.exists(marker):
            open(marker, "w").close()
            self.crash(job, text)
        (job.outputs / "output").write_text(job.attempt)

    def hang(self, job, text):
        # With the interpreter's lock held: nobody answers heartbeats.
        ctypes.PyDLL(None).sleep(1000)

    def garbage(self, job, text):
        # What a model does to its own standard streams is no concern of the wire.
        sys.stdout.buffer.write(b"\\xff\\xfe{\\x00" * 100 + b"\\n")
        sys.stdout.close()
        self.ok(job, text)

    def waits(self, job, text):
        while True:
            job.raise_if_cancelled()
            time.sleep(0.01)

    def deaf(self, job, text):
        while True:
            time.sleep(1)
'''


@pytest.fixture(scope="module")
def models():
    binary()
    with tempfile.TemporaryDirectory(prefix="models-") as directory:
        models = Path(directory)
        (models / "scripted.py").write_text(MODEL, encoding="utf-8")
        for version, config in [("1", ""), ("dies", '{"dies": true}'), ("raises", '{"raises": true}')]:
            path = models / "scripted" / version
            path.mkdir(parents=True)
            (path / "config.yaml").write_text(config)
            (path / "runner.yaml").write_text("runner: {class: scripted.Scripted}\n")
        yield models


@pytest.fixture
def daemon(models, tmp_path):
    daemon = Daemon(tmp_path, models, heartbeat_timeout="2s", stop_grace="1s")
    yield daemon
    daemon.close()


def test_outcomes(daemon):
    jobs = ["ok", "several", "nested", "empty", "none", "error", "garbage", "slow", "big"]
    for job in jobs:
        daemon.submit(f"job-{job}", "scripted", job)
    for job in jobs:
        if job != "error":
            daemon.done(f"job-{job}")
    details = daemon.failed("job-error")
    assert (details["message"], details["exception_type"]) == ("bad picture: žluťoučký 羊", "ValueError")
    assert "in error" in details["exception_traceback"]
    for name in ("output", "a b.json", "žluťoučký 羊.txt"):
        assert daemon.result("job-several", quote(name)).body.decode() == name
    assert daemon.result("job-nested", "deep/er/file").body == b"nested"
    assert daemon.result("job-empty") == (200, b"")
    assert daemon.result("job-none").status == 404
    # One process, with its model loaded once, did them all.
    first, second = (daemon.result(f"job-{job}").body.split() for job in ("ok", "slow"))
    assert first[0] == second[0] and int(first[1]) < int(second[1])


@pytest.mark.parametrize("fault", ["crash", "hang"])
def test_a_runner_that_dies_or_hangs_costs_its_job_alone(daemon, fault):
    daemon.submit("before", "scripted", "ok")
    daemon.done("before")
    daemon.submit("guilty", "scripted", fault)
    daemon.submit("after", "scripted", "ok")
    details = daemon.failed("guilty")
    assert details["exception_type"] == "RunnerDied", details
    daemon.done("after")
    assert daemon.result("after").body.split()[1] == b"1"


def test_another_attempt_at_a_crashed_job_is_another_one(models, tmp_path):
    daemon = Daemon(tmp_path, models, crash_retries=1)
    daemon.submit("job", "scripted", f"once {tmp_path}/marker")
    daemon.done("job")
    # Its answers carry the number of the second attempt; those of the first would have been refused.
    assert daemon.result("job").body.endswith(b"2")
    daemon.close()


def test_a_model_that_cannot_be_loaded_says_why(daemon):
    for version in ("dies", "raises"):
        daemon.submit(f"job-{version}", "scripted", "ok", version=version)
    assert daemon.failed("job-dies")["message"]
    assert "the weights are gone" in daemon.failed("job-raises")["exception_traceback"]


@pytest.mark.parametrize("manner", ["waits", "deaf"])
def test_cancelling(daemon, manner):
    daemon.submit("first", "scripted", "ok")
    daemon.done("first")
    daemon.submit("running", "scripted", manner)
    daemon.submit("waiting", "scripted", "ok")
    by = time.monotonic() + LONG
    while daemon.request("/jobs/running/status").json["status"] != "processing":
        assert time.monotonic() < by
        time.sleep(0.01)
    for job in ("waiting", "running"):
        assert daemon.request(f"/jobs/{job}/cancel", {}).status == 200
    for job in ("waiting", "running"):
        assert daemon.finished(job)["status"] == "failed"
    daemon.submit("next", "scripted", "ok")
    daemon.done("next")
    # Who listens keeps its process.
    same = daemon.result("next").body.split()[0] == daemon.result("first").body.split()[0]
    assert same == (manner == "waits")


def test_what_models_print_is_in_the_log(models, tmp_path):
    daemon = Daemon(tmp_path, models)
    daemon.submit("guilty", "scripted", "crash")
    daemon.failed("guilty")
    daemon.close()
    assert any("about to crash" in line for line in daemon.log)


def test_tcp(models, tmp_path):
    # Below the ephemeral ports, and not the same for tests that run at the same time.
    port = 21000 + hash(str(tmp_path)) % 5000
    daemon = Daemon(tmp_path, models, transport="tcp", port=port)
    daemon.submit("job", "scripted", "ok")
    daemon.done("job")
    daemon.close()


def test_a_thousand_jobs(daemon):
    for number in range(1000):
        daemon.submit(f"job-{number}", "scripted", "ok")
    for number in range(1000):
        daemon.done(f"job-{number}")
    assert daemon.result("job-999").body.split()[1] == b"1000"
