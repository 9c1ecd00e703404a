"""A runner as those of the first shepherd were, which copies its input: a ROUTER, one frame a message, one job
after the other.

    legacy.py -p PORT CONFIG
"""

import argparse
import json

import zmq

parser = argparse.ArgumentParser()
parser.add_argument("-p", type=int, default=9999)
parser.add_argument("config")
options = parser.parse_args()

socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(f"tcp://0.0.0.0:{options.p}")
while True:
    identity, frame = socket.recv_multipart()
    message = json.loads(frame)["message"]
    job = message["job_id"]
    directory = f"{message['io_data_root']}/{job}"
    with open(f"{directory}/inputs/input", "rb") as file:
        data = file.read()
    with open(f"{directory}/outputs/output", "wb") as file:
        file.write(data)
    answer = {"identity": "", "job_id": job, "message_type": "DoneMessage"}
    socket.send_multipart([identity, json.dumps({"message": answer}).encode()])
