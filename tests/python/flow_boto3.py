"""The tutorial and more, by boto3."""

import io

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

import common


def client(access_key=common.ACCESS_KEY, secret_key=common.SECRET_KEY):
    return boto3.client(
        "s3",
        endpoint_url=common.S3_URL,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=common.REGION,
        # For presigned URLs it would take version 2 otherwise.
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def code(action):
    return common.expect(ClientError, action).response["Error"]["Code"]


s3 = client()

# The tutorial: make a bucket, put inputs, start the job, wait, get outputs.
s3.create_bucket(Bucket="boto3-tutorial")
s3.put_object(Bucket="boto3-tutorial", Key="inputs/input", Body=common.files("output", "deep/er/two"))
status = common.run_job("boto3-tutorial")
listed = s3.list_objects_v2(Bucket="boto3-tutorial", Prefix="outputs/")["Contents"]
assert [found["Key"] for found in listed] == ["outputs/deep/er/two", "outputs/output"], listed
assert s3.get_object(Bucket="boto3-tutorial", Key="outputs/output")["Body"].read() == b"output"
document = s3.get_object(Bucket="boto3-tutorial", Key="job_status.json")
assert b'"done"' in document["Body"].read()
assert "boto3-tutorial" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]

# 100 MiB in parts: up, through a job, and down again.
data = common.large()
s3.create_bucket(Bucket="boto3-large")
parts = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20)
s3.upload_fileobj(io.BytesIO(data), "boto3-large", "inputs/input", Config=parts)
assert s3.head_object(Bucket="boto3-large", Key="inputs/input")["ContentLength"] == len(data)
common.run_job("boto3-large")
back = io.BytesIO()
s3.download_fileobj("boto3-large", "outputs/output", back, Config=parts)
assert back.getvalue() == data
middle = s3.get_object(Bucket="boto3-large", Key="outputs/output", Range="bytes=1048570-1048590")
assert middle["Body"].read() == data[1048570:1048591]

# URLs that were signed for others.
s3.create_bucket(Bucket="boto3-presigned")
where = {"Bucket": "boto3-presigned", "Key": "inputs/input"}
put = s3.generate_presigned_url("put_object", where, ExpiresIn=60)
assert common.fetch(put, "PUT", common.files("output"))[0] == 200
common.run_job("boto3-presigned")
get = s3.generate_presigned_url("get_object", {**where, "Key": "outputs/output"}, ExpiresIn=60)
assert common.fetch(get) == (200, b"output")
assert common.fetch(get.replace("outputs/output", "job_status.json"))[0] == 403
assert common.fetch(get, "PUT", b"x")[0] == 403
assert common.fetch(get.split("?")[0])[0] == 403

# Who has other keys gets nothing.
assert code(lambda: client(secret_key="wrong").list_buckets()) == "SignatureDoesNotMatch"
assert code(lambda: client(access_key="wrong").list_buckets()) == "InvalidAccessKeyId"
wrong = client(secret_key="wrong")
assert code(lambda: wrong.put_object(Body=b"x", **where)) == "SignatureDoesNotMatch"
assert code(lambda: wrong.create_bucket(Bucket="boto3-wrong")) == "SignatureDoesNotMatch"

# Lists of any length.
for version in ["list_objects", "list_objects_v2"]:
    pages = s3.get_paginator(version).paginate(Bucket=common.CROWD, Prefix="inputs/")
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    assert len(keys) == common.CROWD_SIZE and keys == sorted(keys), len(keys)

# Buckets are removed by those who emptied them.
assert code(lambda: s3.delete_bucket(Bucket="boto3-presigned")) == "BucketNotEmpty"
assert code(lambda: s3.create_bucket(Bucket="Not_A_Bucket")) in ["InvalidBucketName", "ParamValidationError"]
found = s3.list_objects_v2(Bucket="boto3-presigned")["Contents"]
s3.delete_objects(Bucket="boto3-presigned", Delete={"Objects": [{"Key": one["Key"]} for one in found]})
s3.delete_bucket(Bucket="boto3-presigned")
assert code(lambda: s3.list_objects_v2(Bucket="boto3-presigned")) == "NoSuchBucket"
