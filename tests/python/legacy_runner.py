"""A runner as those of the first shepherd were: a ROUTER, one frame a message, one job after the other.

It knows nothing that came later: neither attempts nor pings nor cancelling, and it binds by itself. What a job
does is the test's script in `inputs/input`.
"""

import argparse
import json
import os
import signal
import time
import traceback
from pathlib import Path

import zmq


class Odd(Exception):
    """An error that is told in the words of 2018."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal")
    parser.add_argument("--bind-after", type=float, default=0)
    parser.add_argument("-p", type=int, default=9999)
    parser.add_argument("config")
    options = parser.parse_args()

    def note(*words):
        with open(options.journal, "a") as journal:
            journal.write(" ".join(map(str, words)) + "\n")

    time.sleep(options.bind_after)
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(f"tcp://0.0.0.0:{options.p}")
    while True:
        identity, frame = socket.recv_multipart()
        message = json.loads(frame)["message"]
        # A strict reader: the first shepherd sent these keys and no others.
        assert set(message) == {"identity", "job_id", "io_data_root", "message_type"}, message
        assert message["message_type"] == "InputMessage" and message["identity"] == "", message
        job = message["job_id"]
        note("run", job, "-", os.environ.get("SHEPHERD_SHEEP", "-"), os.getpid())
        answer = {"identity": "", "job_id": job}
        try:
            work(Path(message["io_data_root"]) / job)
            answer["message_type"] = "DoneMessage"
        except Odd as error:
            answer.update(message_type="ErrorMessage", short_error=str(error), long_error="long " + str(error))
        except Exception as error:
            answer.update(
                message_type="ErrorMessage",
                message=str(error),
                exception_type=type(error).__name__,
                exception_traceback=traceback.format_exc(),
            )
        socket.send_multipart([identity, json.dumps({"message": answer}).encode()])


def work(directory):
    text = (directory / "inputs" / "input").read_text()
    script = json.loads(text)
    (kind, value), = script.items()
    if kind == "fail":
        raise (Odd if value.startswith("odd") else ValueError)(value)
    if kind in ("exit_once", "stop_once"):
        marker = Path(value["marker"])
        if not marker.exists():
            marker.touch()
            if kind == "exit_once":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGSTOP)
        value = "survived"
    if kind == "gate":
        while not Path(value).exists():
            time.sleep(0.01)
        value = "through"
    (directory / "outputs" / "output").write_text(value)


main()
