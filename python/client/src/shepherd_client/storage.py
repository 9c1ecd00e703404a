"""Inputs into S3, and the names of outputs out of it. Needs boto3: the extra `[s3]`."""

import os
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional

from shepherd_client.errors import StorageError
from shepherd_client.inputs import Content


@dataclass(frozen=True)
class Storage:
    """The S3 service that the shepherd uses, or the shepherd's own endpoint.

    Each job is a bucket, unless `bucket` is given: then jobs are `PREFIX/JOB_ID/...` in it (the shepherd's
    `layout: prefix`).
    """

    url: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    bucket: Optional[str] = None
    prefix: str = ""
    region: str = "us-east-1"
    #: The URL of a proxy; without it storage is reached directly, whatever the environment says.
    proxy: Optional[str] = field(default=None, repr=False)


class Store:
    """Blocks; may be used by several threads."""

    def __init__(self, storage: Storage) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise StorageError("boto3 is needed for storage: install shepherd-serving-client[s3]") from error
        self._storage = storage
        self._client_error = ClientError
        self._errors = (BotoCoreError, ClientError, boto3.exceptions.Boto3Error)
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 6},
            proxies={} if storage.proxy is None else {"http": storage.proxy, "https": storage.proxy},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # A session of its own: the default one is not to be made by two threads at once.
        self._s3: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=storage.url,
            aws_access_key_id=storage.access_key,
            aws_secret_access_key=storage.secret_key,
            region_name=storage.region,
            config=config,
        )

    def put_inputs(self, job_id: str, files: Mapping[str, Content]) -> None:
        """Lays the inputs of a job down. May be repeated."""
        bucket = self._bucket(job_id)
        try:
            if self._storage.bucket is None:
                self._make_bucket(bucket)
            for name, content in files.items():
                key = self._key(job_id, f"inputs/{name}")
                if isinstance(content, os.PathLike):
                    self._s3.upload_file(os.fspath(content), bucket, key)
                elif isinstance(content, (bytes, str)):
                    data = content.encode() if isinstance(content, str) else content
                    self._s3.put_object(Bucket=bucket, Key=key, Body=data)
                else:
                    self._s3.upload_fileobj(content, bucket, key)
        except self._errors as error:
            raise self._failed("put the inputs of", job_id, error) from None

    def outputs(self, job_id: str) -> List[str]:
        """The names of a job's outputs."""
        below = self._key(job_id, "outputs/")
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket(job_id), Prefix=below)
            return [entry["Key"][len(below) :] for page in pages for entry in page.get("Contents", [])]
        except self._errors as error:
            raise self._failed("list the outputs of", job_id, error) from None

    def close(self) -> None:
        self._s3.close()

    def _make_bucket(self, bucket: str) -> None:
        region = self._storage.region
        # AWS refuses the name of this region and demands that of any other.
        options = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._s3.create_bucket(Bucket=bucket, **options)
        except self._client_error as error:
            # One of an earlier try; if it is another's, putting into it fails.
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _bucket(self, job_id: str) -> str:
        return job_id if self._storage.bucket is None else self._storage.bucket

    def _key(self, job_id: str, key: str) -> str:
        if self._storage.bucket is None:
            return key
        prefix = self._storage.prefix.strip("/")
        return f"{prefix}/{job_id}/{key}" if prefix else f"{job_id}/{key}"

    def _failed(self, what: str, job_id: str, error: Exception) -> StorageError:
        # Said by code and type: texts may quote what was sent.
        code = type(error).__name__
        if isinstance(error, self._client_error):
            code = error.response["Error"]["Code"]
        return StorageError(f"cannot {what} job {job_id!r}: {code}")
