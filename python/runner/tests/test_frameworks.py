"""The example models with the real cxflow and emloop, whichever is installed, through the real daemon."""

import importlib.util
import json
import os
import shutil
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


DATASET = """
import {name}

class Numbers({name}.BaseDataset):
    def _configure_dataset(self, numbers, output_dir=None, **kwargs):
        self.numbers = numbers

    def predict_stream(self, payload):
        yield {{"key": [number + payload for number in self.numbers]}}
"""


def test_datasets_inherit_the_frameworks_own_class(name, tmp_path):
    model = tmp_path / "models" / "numbers" / "1"
    model.mkdir(parents=True)
    (model / "numbers_dataset.py").write_text(DATASET.format(name=name))
    example = (EXAMPLES / f"{name}_example" / f"{name}-test" / "latest" / "config.yaml").read_text()
    config = example.replace("class: multiply.PayloadDataset", "class: numbers_dataset.Numbers\n  numbers: [1, 2]")
    assert config != example
    (model / "config.yaml").write_text(config)
    wrong = tmp_path / "models" / "wrong" / "1"
    wrong.mkdir(parents=True)
    (wrong / "config.yaml").write_text(example.replace("multiply.PayloadDataset", "multiply.NoSuchDataset"))
    shutil.copy(EXAMPLES / f"{name}_example" / "multiply.py", tmp_path / "models")
    daemon = Daemon(tmp_path, tmp_path / "models", env={"CUDA_VISIBLE_DEVICES": ""})
    daemon.submit("job-numbers", "numbers", "3")
    daemon.submit("job-wrong", "wrong", "3")
    daemon.done("job-numbers")
    assert daemon.result("job-numbers").json == {"key": [4, 5], "output": [8, 10]}
    error = daemon.failed("job-wrong")
    assert error["message"].startswith("AttributeError: ") and "NoSuchDataset" in error["message"]
    daemon.close()


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
