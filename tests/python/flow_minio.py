"""The tutorial and more, by MinIO's client."""

import io
from datetime import timedelta
from urllib.parse import urlsplit

from minio import Minio
from minio.error import S3Error

import common


def client(access_key=common.ACCESS_KEY, secret_key=common.SECRET_KEY):
    return Minio(urlsplit(common.S3_URL).netloc, access_key=access_key, secret_key=secret_key, secure=False)


def put(bucket, key, data, **more):
    return s3.put_object(bucket, key, io.BytesIO(data), len(data), **more)


def get(bucket, key):
    answer = s3.get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


s3 = client()

# The tutorial: make a bucket, put inputs, start the job, wait, get outputs.
assert not s3.bucket_exists("minio-tutorial")
s3.make_bucket("minio-tutorial")
assert s3.bucket_exists("minio-tutorial")
put("minio-tutorial", "inputs/input", common.files("output", "deep/er/two"))
common.run_job("minio-tutorial")
listed = [found.object_name for found in s3.list_objects("minio-tutorial", "outputs/", recursive=True)]
assert listed == ["outputs/deep/er/two", "outputs/output"], listed
listed = [found.object_name for found in s3.list_objects("minio-tutorial")]
assert sorted(listed) == ["inputs/", "job_status.json", "outputs/"], listed
assert get("minio-tutorial", "outputs/output") == b"output"
assert b'"done"' in get("minio-tutorial", "job_status.json")

# 100 MiB in parts: up, through a job, and down again.
data = common.large()
s3.make_bucket("minio-large")
put("minio-large", "inputs/input", data, part_size=10 << 20)
assert s3.stat_object("minio-large", "inputs/input").size == len(data)
common.run_job("minio-large")
assert get("minio-large", "outputs/output") == data

# URLs that were signed for others.
s3.make_bucket("minio-presigned")
url = s3.presigned_put_object("minio-presigned", "inputs/input", expires=timedelta(minutes=1))
assert common.fetch(url, "PUT", common.files("output"))[0] == 200
common.run_job("minio-presigned")
url = s3.presigned_get_object("minio-presigned", "outputs/output", expires=timedelta(minutes=1))
assert common.fetch(url) == (200, b"output")
signature = url.split("X-Amz-Signature=")[1][:64]
assert common.fetch(url.replace(signature, signature[::-1]))[0] == 403

# Who has other keys gets nothing.
wrong = common.expect(S3Error, lambda: client(secret_key="wrong-secret").list_buckets())
assert wrong.code == "SignatureDoesNotMatch", wrong
wrong = common.expect(S3Error, lambda: client(access_key="wrong-access").make_bucket("minio-wrong"))
assert wrong.code == "InvalidAccessKeyId", wrong

# Lists of any length.
for first in [False, True]:
    found = s3.list_objects(common.CROWD, "inputs/", recursive=True, use_api_v1=first)
    keys = [one.object_name for one in found]
    assert len(keys) == common.CROWD_SIZE and keys == sorted(keys), len(keys)

# Buckets are removed by those who emptied them.
full = common.expect(S3Error, lambda: s3.remove_bucket("minio-presigned"))
assert full.code == "BucketNotEmpty", full
for found in s3.list_objects("minio-presigned", recursive=True):
    s3.remove_object("minio-presigned", found.object_name)
s3.remove_bucket("minio-presigned")
assert not s3.bucket_exists("minio-presigned")
