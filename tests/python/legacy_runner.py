"""A runner as those of the first shepherd were: a ROUTER, one frame a message, one job after the other.

It knows nothing that came later: neither attempts nor pings nor cancelling, and it binds by itself. What a job
does is the test's script in `inputs/input`.
"""

import argparse
import json
import os
import time
import traceback
from pathlib import Path

import zmq

import script


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal")
    parser.add_argument("--bind-after", type=float, default=0)
    parser.add_argument("-p", type=int, default=9999)
    parser.add_argument("config")
    options = parser.parse_args()

    config = json.loads(Path(options.config).read_text())
    if "exit" in config:
        os._exit(config["exit"])
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
        script.note(options.journal, job, "-", os.environ.get("SHEPHERD_SHEEP", "-"))

        def say(**answer):
            socket.send_multipart([identity, json.dumps({"message": {"identity": "", **answer}}).encode()])

        directory = Path(message["io_data_root"]) / job
        try:
            word, value = script.read(directory)
            if word == "garbage":
                for garbage in script.GARBAGE:
                    socket.send_multipart([identity, garbage])
                script.write(directory / "outputs" / "output", "after the garbage")
            elif word == "answer_for":
                say(message_type="DoneMessage", job_id=value["job"])
                raise ValueError("lied")
            elif word == "answer_twice":
                script.write(directory / "outputs" / "output", "answered")
                say(message_type="DoneMessage", job_id=job)
                raise ValueError("answered again")
            else:
                script.work(directory, word, value)
            say(message_type="DoneMessage", job_id=job)
        except script.Odd as error:
            say(message_type="ErrorMessage", job_id=job, short_error=str(error), long_error="long " + str(error))
        except Exception as error:
            say(
                message_type="ErrorMessage",
                job_id=job,
                message=str(error),
                exception_type=type(error).__name__,
                exception_traceback=traceback.format_exc(),
            )


main()
