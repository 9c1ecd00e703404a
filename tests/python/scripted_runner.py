"""A runner on the Python SDK that does what its jobs' scripts say, also what the SDK would never do on the wire."""

import json
import os
from pathlib import Path

from shepherd_runner import Runner, wire

import script


class Scripted(Runner):
    def setup(self, config):
        if "exit" in config:
            os._exit(config["exit"])

    def process(self, job):
        directory = job.inputs.parent
        script.note(os.environ["SHEPHERD_TEST_JOURNAL"], job.id, job.attempt, directory.parent.name)
        word, value = script.read(directory)
        if word == "garbage":
            say_first(script.GARBAGE)
            script.write(job.outputs / "output", "after the garbage")
        elif word == "answer_for":
            say_first([done(value["job"], attempt=job.attempt), done(value["job"])])
            raise ValueError("lied")
        elif word == "answer_twice":
            script.write(job.outputs / "output", "answered")
            say_first([done(job.id, attempt=job.attempt)])
            raise ValueError("answered again")
        elif word == "stale_answer":
            marker = Path(value["marker"])
            if not marker.exists():
                marker.write_text(job.attempt)
                os._exit(1)
            script.write(job.outputs / "output", "stale")
            say_first([done(job.id, attempt=marker.read_text())])
            raise ValueError("fresh")
        else:
            script.work(directory, word, value, job.raise_if_cancelled, job.progress)


def done(job_id, **more):
    return json.dumps({"message": {"message_type": "DoneMessage", "job_id": job_id, **more}}).encode()


def say_first(lies):
    """Puts frames before the next one that the SDK sends."""
    frames = wire.frames

    def with_lies(messages, batch):
        if messages:
            wire.frames = frames
            yield from lies
        yield from frames(messages, batch)

    wire.frames = with_lies
