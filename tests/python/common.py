"""What the flows of all clients share: the addresses and keys from the environment, and the API."""

import hashlib
import json
import os
import urllib.error
import urllib.request

S3_URL = os.environ["S3_URL"]
API_URL = os.environ["API_URL"]
ACCESS_KEY = os.environ["ACCESS_KEY"]
SECRET_KEY = os.environ["SECRET_KEY"]
REGION = "us-east-1"
# A bucket with many objects that somebody else put there, and how many.
CROWD = os.environ.get("CROWD", "")
CROWD_SIZE = int(os.environ.get("CROWD_SIZE", "0"))

MODEL = {"name": "scripted", "version": "latest"}
LARGE = 100 << 20


def start_job(job_id):
    body = json.dumps({"job_id": job_id, "model": MODEL}).encode()
    request = urllib.request.Request(
        f"{API_URL}/start-job", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer) == {"success": True}


def finished(job_id):
    """The status of the job once it is done or failed."""
    with urllib.request.urlopen(f"{API_URL}/jobs/{job_id}/wait_ready") as answer:
        return json.load(answer)


def run_job(job_id):
    start_job(job_id)
    status = finished(job_id)
    assert status["status"] == "done", status
    return status


def files(*names):
    """A script for the runner: it writes these outputs, each with its name in it."""
    return json.dumps({"files": [[name, name] for name in names]}).encode()


def large():
    """100 MiB of which no two pieces are alike."""
    block = hashlib.shake_256(b"sheep").digest(1 << 20)
    return b"".join(number.to_bytes(8, "big") + block[8:] for number in range(LARGE >> 20))


def fetch(url, method="GET", data=None):
    """What plain HTTP says of a URL: the status and the body."""
    request = urllib.request.Request(url, data, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def expect(error, action):
    """The error of this kind that an action raises."""
    try:
        action()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__} was raised")
