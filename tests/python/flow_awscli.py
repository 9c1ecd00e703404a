"""The tutorial and more, by the AWS command line."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import common

KEYS = {"AWS_ACCESS_KEY_ID": common.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": common.SECRET_KEY}
SETTINGS = {"AWS_DEFAULT_REGION": common.REGION, "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}


def run(*words, keys=KEYS):
    program = [sys.executable, str(Path(sys.executable).with_name("aws")), "--endpoint-url", common.S3_URL]
    return subprocess.run([*program, *words], env={**os.environ, **SETTINGS, **keys}, capture_output=True)


def aws(*words):
    ended = run(*words)
    assert ended.returncode == 0, (words, ended)
    return ended.stdout


def refused(*words, **other):
    ended = run(*words, keys={**KEYS, **other})
    assert ended.returncode != 0, (words, ended)
    return ended.stderr.decode()


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)

    # For presigned URLs it would take version 2 otherwise.
    (folder / "config").write_text("[default]\ns3 =\n  signature_version = s3v4\n  addressing_style = path\n")
    SETTINGS["AWS_CONFIG_FILE"] = str(folder / "config")

    # The tutorial: make a bucket, put inputs, start the job, wait, get outputs.
    (folder / "inputs").mkdir()
    (folder / "inputs" / "input").write_bytes(common.files("output", "deep/er/two"))
    (folder / "inputs" / "beside").write_text("it")
    aws("s3", "mb", "s3://awscli-tutorial")
    aws("s3", "cp", "--recursive", str(folder / "inputs"), "s3://awscli-tutorial/inputs")
    common.run_job("awscli-tutorial")
    aws("s3", "sync", "s3://awscli-tutorial/outputs", str(folder / "outputs"))
    assert (folder / "outputs/output").read_text() == "output"
    assert (folder / "outputs/deep/er/two").read_text() == "deep/er/two"
    assert b"job_status.json" in aws("s3", "ls", "s3://awscli-tutorial")

    # 100 MiB in parts: up, through a job, and down again.
    data = common.large()
    (folder / "large").write_bytes(data)
    aws("s3", "mb", "s3://awscli-large")
    aws("s3", "cp", str(folder / "large"), "s3://awscli-large/inputs/input")
    common.run_job("awscli-large")
    aws("s3", "cp", "s3://awscli-large/outputs/output", str(folder / "back"))
    assert (folder / "back").read_bytes() == data

    # A URL that was signed for others; it signs none to put.
    url = aws("s3", "presign", "s3://awscli-tutorial/outputs/output", "--expires-in", "60").decode().strip()
    assert common.fetch(url) == (200, b"output")

    # Who has other keys gets nothing.
    assert "SignatureDoesNotMatch" in refused("s3", "ls", AWS_SECRET_ACCESS_KEY="wrong")
    assert "InvalidAccessKeyId" in refused("s3", "mb", "s3://awscli-wrong", AWS_ACCESS_KEY_ID="wrong")

    # Lists of any length.
    listed = json.loads(aws("s3api", "list-objects-v2", "--bucket", common.CROWD, "--prefix", "inputs/"))
    keys = [found["Key"] for found in listed["Contents"]]
    assert len(keys) == common.CROWD_SIZE and keys == sorted(keys), len(keys)

    # Buckets are removed by those who emptied them.
    assert "BucketNotEmpty" in refused("s3", "rb", "s3://awscli-tutorial")
    aws("s3", "rb", "--force", "s3://awscli-tutorial")
    assert b"awscli-tutorial" not in aws("s3", "ls")
