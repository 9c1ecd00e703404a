"""The example models with the real cxflow and emloop, whichever is installed, through the real daemon."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from daemon import Daemon

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "docker"
#: The daemon's own runner, which hands over to the Python one.
RUNNER = os.environ.get("SHEPHERD_RUNNER_BIN")


def framework(name):
    """Skips, or fails, without the framework. `SHEPHERD_TEST_FRAMEWORK` says which must be there."""
    if importlib.util.find_spec(name) is None:
        if os.environ.get("SHEPHERD_TEST_FRAMEWORK") == name:
            pytest.fail(f"{name} is not installed")
        print(f"skipped: {name} is not installed")
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(params=["cxflow", "emloop"])
def name(request):
    return framework(request.param)


@pytest.fixture
def daemon(name, tmp_path):
    command = [RUNNER] if RUNNER else [sys.executable, "-m", "shepherd_runner"]
    # Where the hand-over finds the Python runner.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    daemon = Daemon(
        tmp_path, EXAMPLES / f"{name}_example", runner_command=command, env={"PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    )
    yield daemon
    daemon.close()


def test_the_example_models(name, daemon):
    payload = json.dumps({"key": [1, 2, 3]})
    model = f"{name}-test"
    daemon.submit("job-latest", model, payload, "latest")
    daemon.submit("job-production", model, payload, "production")
    daemon.submit("job-test", model, "4\n2.5\n", "test")
    daemon.submit("job-bad", model, "no JSON", "latest")
    daemon.done("job-latest")
    assert daemon.result("job-latest").json == {"key": [1, 2, 3], "output": [2, 4, 6]}
    daemon.done("job-production")
    # Two batches, of two values and of one.
    assert daemon.result("job-production").json == {"key": [1, 2, 3], "output": [3, 6, 9], "sum": [9, 9]}
    daemon.done("job-test")
    assert daemon.result("job-test").body == b"40.0\n25.0\n"
    assert daemon.failed("job-bad")["exception_type"] == "json.decoder.JSONDecodeError"


def test_an_unknown_stream_says_so(name, daemon, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    second = Daemon(
        other,
        EXAMPLES / f"{name}_example",
        runner_command=[sys.executable, "-m", "shepherd_runner", "-s", "unheard-of"],
    )
    second.submit("job", f"{name}-test", "{}", "latest")
    assert "no method `unheard-of_stream`" in second.failed("job")["message"]
    second.close()
