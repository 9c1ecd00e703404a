"""The tutorial's walk with MinIO's client for Python: inputs into S3, a job, outputs from S3.

    pip install minio
    export MINIO_ACCESS_KEY=... MINIO_SECRET_KEY=...
    python3 minio_walk.py my-job "counting sheep"
    python3 minio_walk.py first-job '{"key": [1, 2, 3]}' cxflow-test:latest

Where the services are, unless at the tutorial's ports: S3_URL and API_URL. The model is `upper:1`, unless named.
"""

import io
import json
import os
import sys
import urllib.request
from urllib.parse import urlsplit

from minio import Minio

job_id, text = sys.argv[1:3]
name, _, version = (sys.argv[3] if len(sys.argv) > 3 else "upper:1").partition(":")
s3_url = urlsplit(os.environ.get("S3_URL", "http://127.0.0.1:7000"))
api_url = os.environ.get("API_URL", "http://127.0.0.1:5000")

s3 = Minio(
    s3_url.netloc,
    access_key=os.environ["MINIO_ACCESS_KEY"],
    secret_key=os.environ["MINIO_SECRET_KEY"],
    secure=s3_url.scheme == "https",
)

# 1. inputs into storage: the job's bucket, and in it inputs/input
s3.make_bucket(job_id)
data = text.encode() + b"\n"
s3.put_object(job_id, "inputs/input", io.BytesIO(data), len(data))

# 2. start the job
body = json.dumps({"job_id": job_id, "model": {"name": name, "version": version}})
urllib.request.urlopen(
    urllib.request.Request(f"{api_url}/start-job", body.encode(), {"Content-Type": "application/json"})
).close()

# 3. wait until it is ready
with urllib.request.urlopen(f"{api_url}/jobs/{job_id}/wait_ready") as answer:
    status = json.load(answer)
if status["status"] != "done":
    sys.exit(f"the job is {status['status']}: {status['error_details']}")

# 4. outputs from storage
for found in s3.list_objects(job_id, "outputs/", recursive=True):
    print(found.object_name)
print(s3.get_object(job_id, "outputs/output").read().decode(), end="")
