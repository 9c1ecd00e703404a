"""The text recognition as a runner: it is loaded once, and pictures stream through it."""

import time

from recognise import Recogniser

from shepherd_runner import Config, Job, Runner


class Ocr(Runner):
    # A picture takes long enough for the next one to come in time, and one that waits here cannot be read by
    # another sheep.
    ahead = 1

    def setup(self, config: Config) -> None:
        self._recogniser = Recogniser(config)

    def process(self, job: Job) -> None:
        begun = time.perf_counter()
        self._recogniser.process(job.inputs, job.outputs)
        # What is left of the time that a client waits is the shepherd's.
        print(f"{job.id} took {time.perf_counter() - begun:.6f} s")
