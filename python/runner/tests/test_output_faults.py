"""What is printed where nobody expects it."""

import subprocess
import sys

import pytest
from shepherd import LONG, Shepherd, done, shutdown


def end(shepherd: Shepherd) -> None:
    shepherd.send(shutdown())
    assert shepherd.exit() == 0


def test_what_a_thread_prints_after_its_job_is_in_no_log(shepherd):
    shepherd.start(
        """
        class R(Runner):
            slots = 2
            def process(self, job):
                if job.id == "waits":
                    self.go.set()
                    self.thread.join()
                    # Longer than text of a log waits for more.
                    time.sleep(0.2)
                    return
                self.go = threading.Event()
                self.thread = threading.Thread(target=self.late)
                self.thread.start()
            def late(self):
                self.go.wait()
                print("late")
        """
    )
    for id in ("starts", "waits"):
        shepherd.send(shepherd.input(id))
        assert shepherd.message() == done(id)
    end(shepherd)
    assert shepherd.printed() == "late\n"


@pytest.mark.parametrize(
    "how",
    [
        "sys.stdout = Tee(); print('no end', end='')",
        "sys.__stdout__.write('no end')",
        "ctypes.CDLL(None).printf(b'no end')",
    ],
)
def test_the_beginning_of_a_line_is_of_the_job_that_wrote_it(shepherd, how):
    shepherd.start(
        f"""
        import ctypes
        class Tee:
            def __init__(self):
                self.other = sys.stdout
            def write(self, text):
                self.other.write(text)
            def flush(self):
                pass
        class R(Runner):
            def process(self, job):
                if job.id == "one":
                    {how}
        """,
        # Otherwise nothing is held back.
        PYTHONUNBUFFERED="",
    )
    shepherd.send(shepherd.input("one"))
    log, answer = shepherd.messages(2)
    assert (log.get("text"), answer) == ("no end", done("one"))
    shepherd.send(shepherd.input("two"))
    assert shepherd.message() == done("two")
    end(shepherd)


def test_what_an_object_prints_at_its_end_in_the_middle_of_reading_holds_nothing_up():
    program = """
import os, threading
from shepherd_runner.capture import Capture
lock, seen = threading.RLock(), []
def passed(fd, data, is_left):
    seen.append(data)
    # As whoever prints here does.
    capture.drain()
with lock:
    capture = Capture(lock, passed)
    os.write(1, b"one")
    os.write(2, b"two")
    capture.drain()
    assert seen == [b"one", b"two"], seen
    capture.restore()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LONG / 2)
