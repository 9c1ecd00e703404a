"""What a job's script makes a runner in Python do: `Script` of tests/src/script.rs, for Python 3.8 and later."""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

SPARSE_PIECE = 64 << 20

#: No text, and no line either.
NOISE = b"\xff\xfe{\x00\r\x1b[\xc3"

#: Frames that are no messages.
GARBAGE = [
    b"\0",
    b"\xff\xfe\xfd",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b'{"message": null}',
    b'{"messages": [1, null, {}]}',
    b'{"message": {"message_type": "NonsenseMessage"}}',
    b'{"message": {"message_type": "DoneMessage"}}',
    b'{"message": {"message_type": "DoneMessage", "job_id": 7, "attempt": []}}',
    b'{"message": {"message_type": "PongMessage", "nonce": -1}}',
    b"[" * 1000,
]


class Odd(Exception):
    """An error that runners of 2018 tell in the words of 2018."""


def note(journal, job, attempt, sheep):
    """Tells the test who began a job."""
    with open(journal, "a") as file:
        file.write("run {} {} {} {}\n".format(job, attempt, sheep, os.getpid()))


def read(directory):
    """What the job in this directory wants: a word, and what belongs to it."""
    script = json.loads((directory / "inputs" / "input").read_text(encoding="utf-8"))
    if isinstance(script, str):
        return script, None
    ((word, value),) = script.items()
    return word, value


def work(directory, word, value, check=lambda: None, progress=lambda fraction, message: None):
    """Does what touches no wire. `check` raises when the job should end; `progress` says how far it is."""
    outputs = directory / "outputs"
    text = None
    if word == "say":
        text = value
    elif word == "gate":
        wait(check, Path(value).exists)
        text = "through"
    elif word == "files":
        for name, content in value:
            write(outputs / name, content)
    elif word == "copy":
        for path in (directory / "inputs").rglob("*"):
            if path.is_file():
                write(outputs / path.relative_to(directory / "inputs"), path.read_text(encoding="utf-8"))
    elif word == "sparse":
        with open(outputs / "output", "wb") as file:
            file.truncate(value)
            for offset in range(0, value, SPARSE_PIECE):
                file.seek(offset)
                file.write(struct.pack("<Q", offset + 1))
    elif word == "noise":
        for stream in (sys.stdout, sys.stderr):
            stream.buffer.write(NOISE)
            stream.buffer.flush()
        text = "said"
    elif word == "fail":
        raise (Odd if value.startswith("odd") else ValueError)(value)
    elif word == "exit":
        os._exit(value)
    elif word == "steps":
        for step in value:
            ((kind, told),) = step.items()
            if kind == "print":
                sys.stdout.write(told)
                sys.stdout.flush()
            elif kind == "progress":
                progress(*told)
            elif kind == "gate":
                wait(check, Path(told).exists)
            else:
                work(directory, kind, told)
        text = "stepped"
    elif word == "exit_once":
        if is_first(Path(value["marker"])):
            os._exit(7)
        text = "survived"
    elif word == "hang":
        child = subprocess.Popen(["sleep", "100000"])
        aside = Path(value["child"] + ".aside")
        aside.write_text(str(child.pid))
        # Whoever sees the file sees all of it.
        aside.rename(value["child"])
        wait(check, lambda: False)
    elif word != "nothing":
        raise ValueError("this runner cannot do " + word)
    if text is not None:
        write(outputs / "output", text)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def wait(check, is_over):
    while not is_over():
        check()
        time.sleep(0.005)


def is_first(marker):
    """Whether the file was made just now."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
