"""A real S3 server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.programs import DESTINATION, START_TIMEOUT_S, free_port

S3_ANYWHERE: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hidden",
    "AWS_DEFAULT_REGION": "us-east-1",
    DESTINATION: "s3://bucket/artifacts",
}


@dataclass(frozen=True)
class S3Server:
    """A real S3 server with one access key."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What MLflow and boto3 need to use it."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> None:
        """Create a bucket; a server that has just started needs some patience."""
        import botocore.exceptions

        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with self.administer() as client:
                    with contextlib.suppress(
                        client.exceptions.BucketAlreadyExists,
                        client.exceptions.BucketAlreadyOwnedByYou,
                    ):
                        client.create_bucket(Bucket=name)
                    # The first write waits for the volume server: not in the time of a test.
                    client.put_object(Bucket=name, Key="ready", Body=b"ready")
                    client.delete_object(Bucket=name, Key="ready")
                    return
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    @contextlib.contextmanager
    def administer(self) -> Iterator[Any]:
        """A boto3 client of the server's owner, without retries."""
        import boto3
        from botocore.client import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )
        try:
            yield client
        finally:
            client.close()

    def content(self, bucket: str) -> list[str]:
        """Every object and unfinished upload in a bucket."""
        with self.administer() as client:
            objects = client.list_objects_v2(Bucket=bucket).get("Contents", [])
            uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [entry["Key"] for entry in (*objects, *uploads)]

    def buckets(self) -> list[str]:
        """The names of all buckets."""
        with self.administer() as client:
            return [entry["Name"] for entry in client.list_buckets()["Buckets"]]


@contextlib.contextmanager
def run_s3(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with signature checks, on free ports."""
    key, secret = "test-access-key", "test-secret-key-0123456789"
    identities = {
        "identities": [
            {
                "name": "tests",
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps(identities), "utf-8")
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    flags: Sequence[str] = [
        f"-dir={folder}",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.port={ports['s3']}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={ports['master']}",
        f"-volume.port={ports['volume']}",
        f"-filer.port={ports['filer']}",
        "-volume.max=100",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    weed = Path(sys.executable).parent / "weed"
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [str(weed), "server", *flags],
            stdout=log,
            stderr=log,
            start_new_session=True,
            # One new volume at a time for a bucket, not seven: they run out after a few buckets.
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        )
    server = S3Server(f"http://127.0.0.1:{ports['s3']}", key, secret)
    try:
        server.make_bucket("ready")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
