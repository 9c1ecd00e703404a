"""Keys that are hard to spell: put as inputs, through a job that copies them, and got as outputs."""

import json
from urllib.parse import unquote

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import common

s3 = boto3.client(
    "s3",
    endpoint_url=common.S3_URL,
    aws_access_key_id=common.ACCESS_KEY,
    aws_secret_access_key=common.SECRET_KEY,
    region_name=common.REGION,
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
)

LONG = "/".join(["directory-" + "x" * 90] * 9)
GOOD = [
    "a b",
    "a+b",
    "a%2Fb",
    "a%20b",
    "100%",
    "žluťoučký kůň/🐑",
    "e\u0301",
    "é",
    ".hidden",
    "..double",
    "...",
    ".dir/.file",
    "a&b=c?d#e",
    "quote'\"quote",
    "<xml>&amp;",
    "back\\slash",
    "semi;colon:comma,at@",
    "$HOME~*[x]{y}|z!",
    # 1,000 bytes with "inputs/" before it.
    LONG + "/" + "y" * (993 - len(LONG) - 1),
]
if common.CROWD:
    # Our own endpoint; moto finds no such object.
    GOOD.append("new\nline\ttab")


def keys(bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def put(bucket, names):
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="inputs/input", Body=json.dumps("copy").encode())
    for name in names:
        s3.put_object(Bucket=bucket, Key="inputs/" + name, Body=name.encode())


def plain(name):
    """The key of a file in the directory for keys that cannot be files' names by themselves."""
    spelled = name.removeprefix(".shepherd-keys/")
    return name if spelled == name else unquote("".join(part[1:] for part in spelled.split("/")))


assert max(len(("inputs/" + name).encode()) for name in GOOD) == 1000

put("hard-keys", GOOD)
common.run_job("hard-keys")
expected = sorted((name.encode() for name in [*GOOD, "input"]))
for side in ["inputs/", "outputs/"]:
    found = [key.removeprefix(side).encode() for key in keys("hard-keys", side)]
    assert found == expected, (side, set(found) ^ set(expected))
for name in GOOD:
    got = s3.get_object(Bucket="hard-keys", Key="outputs/" + name)["Body"].read()
    assert got == name.encode(), (name, got)

# What files cannot be: the job fails and says which it was, or does with what it has.
for bucket, names in {
    "file-and-directory": ["a", "a/b"],
    "long-segment": ["z" * 300],
    "upwards": ["../escaped", "x/../../escaped", "../../escaped"],
    "nowhere": ["./here", "a//b", "a/./b"],
}.items():
    try:
        put(bucket, names)
    except ClientError as error:
        # A server may refuse to hold them at all.
        print(bucket, "refused:", error.response["Error"])
    common.start_job(bucket)
    status = common.finished(bucket)
    print(bucket, status["status"], status["error_details"])
    if status["status"] == "failed":
        assert status["error_details"]["message"], status
    else:
        # What is no file's name by itself is found by the runner, and left by it, in a directory for such.
        copied = [plain(key.removeprefix("outputs/")) for key in keys(bucket, "outputs/")]
        held = [key.removeprefix("inputs/") for key in keys(bucket, "inputs/")]
        assert sorted(copied) == sorted(held), (bucket, copied, held)
