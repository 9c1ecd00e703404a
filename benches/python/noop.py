"""A runner on the Python SDK that costs as little as one can: it copies its input."""

import os

from shepherd_runner import Job, Runner


class Noop(Runner):
    def process(self, job: Job) -> None:
        # Neither pathlib nor text: a few microseconds each, and it is the SDK that is measured.
        with open(os.path.join(job.inputs, "input"), "rb") as file:
            data = file.read()
        with open(os.path.join(job.outputs, "output"), "wb") as file:
            file.write(data)
