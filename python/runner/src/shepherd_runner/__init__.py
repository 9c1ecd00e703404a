"""The SDK for runners written in Python.

A runner is a process that has one model loaded and works on one job after another::

    from shepherd_runner import Job, Runner

    class Upper(Runner):
        def setup(self, config):
            self.suffix = config.get("suffix", "")

        def process(self, job: Job) -> None:
            text = (job.inputs / "input").read_text()
            (job.outputs / "output").write_text(text.upper() + self.suffix)

``shepherd-runner-py -r my_module.Upper NAME/VERSION/config.yaml`` serves it, or :func:`serve` from a program of
one's own. It listens for the shepherd, announces the runner once its model is loaded, takes jobs ahead, answers
heartbeats while a job computes, turns exceptions into the job's error, and ends when it is told to or when the
program that started it is gone.

It moves no files: inputs are there when a job comes, and outputs are fetched after it is done.
"""

from .config import Config
from .errors import Cancelled, SettingsError
from .job import Job, Stop
from .options import Options
from .runner import Runner
from .serve import serve

__all__ = ["Cancelled", "Config", "Job", "Options", "Runner", "SettingsError", "Stop", "serve"]
__version__ = "0.1.0"
