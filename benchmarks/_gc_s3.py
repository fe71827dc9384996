"""A real S3 server on this machine, and the artifacts of a seeded store in it.

SeaweedFS counts the requests that it answers by itself, so that nothing stands between it and the
clients that are measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _gc_places import FILE_SIZE
from _servers import ServerError, free_port

BUCKET = "artifacts"
PREFIX = "mlflow"
ACCESS_KEY, SECRET_KEY = "benchmark", "benchmark-secret-key"
START_LIMIT_S = 60.0
POLL_S = 0.3
THREADS = 16
SOCKET = "/tmp/seaweedfs-{service}-grpc-{port}.sock"  # noqa: S108 - SeaweedFS's own choice
COUNTER = "SeaweedFS_s3_request_total"


@dataclass(frozen=True)
class Bucket:
    """A `Place` in the bucket of a running server.

    Attributes:
        endpoint: Its address.
        metrics_url: Where it tells how many requests it has answered.
    """

    endpoint: str
    metrics_url: str

    @property
    def location(self) -> str:
        return f"s3://{BUCKET}/{PREFIX}"

    @property
    def destination(self) -> str:
        return self.location

    @property
    def variables(self) -> Mapping[str, str]:
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def lay(self, experiment_id: str, run_ids: Iterable[str], files: int) -> None:
        keys = [
            f"{PREFIX}/{experiment_id}/{run_id}/artifacts/file-{number}.bin"
            for run_id in run_ids
            for number in range(files)
        ]
        with self.client() as client, ThreadPoolExecutor(THREADS) as pool:

            def put(key: str) -> None:
                client.put_object(Bucket=BUCKET, Key=key, Body=bytes(FILE_SIZE))

            list(pool.map(put, keys))

    def count(self) -> int:
        return len(self._keys())

    def clear(self) -> None:
        keys = self._keys()
        with self.client() as client:
            for first in range(0, len(keys), 1000):
                objects = [{"Key": key} for key in keys[first : first + 1000]]
                client.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})

    def requests(self) -> Counter[str]:
        """Requests about the bucket that were answered so far, by kind as SeaweedFS calls it."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found: Counter[str] = Counter()
        for line in lines:
            if line.startswith(f'{COUNTER}{{bucket="{BUCKET}"'):
                labels, _, count = line.rpartition(" ")
                found[labels.partition('type="')[2].partition('"')[0]] += int(float(count))
        return found

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A boto3 client, to be used by many threads."""
        import boto3
        from botocore.client import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(max_pool_connections=THREADS),
        )
        try:
            yield client
        finally:
            client.close()

    def _keys(self) -> list[str]:
        with self.client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def find_weed() -> Path | None:
    """SeaweedFS's program: beside this interpreter, or on the path."""
    beside = Path(sys.executable).parent / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    return Path(found) if found else None


@contextlib.contextmanager
def run_s3(weed: Path, folder: Path) -> Iterator[Bucket]:
    """SeaweedFS with signature checks on free ports, and one bucket.

    Args:
        weed: Its program.
        folder: Made for its files, and removed.

    Raises:
        ServerError: It does not answer.
    """
    folder.mkdir()
    s3_port, metrics_port = free_port(), free_port()
    # gRPC would take the port that is 10,000 higher, which may be another's.
    grpc_ports = {service: free_port() for service in ("s3", "master", "volume", "filer")}
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List"]
    identities = [{"name": "benchmark", "credentials": credentials, "actions": actions}]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}), "utf-8")
    options = [
        f"-dir={folder}",
        f"-s3.port={s3_port}",
        *(f"-{service}.port={free_port()}" for service in ("master", "volume", "filer")),
        *(f"-{service}.port.grpc={port}" for service, port in grpc_ports.items()),
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        f"-metricsPort={metrics_port}",
        "-metricsIp=127.0.0.1",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-volume.max=100",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [str(weed), "server", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Its logs go to the temporary folder; one new volume at a time for a bucket, not seven.
            env={
                **os.environ,
                "TMPDIR": str(folder),
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            },
        )
    try:
        bucket = Bucket(f"http://127.0.0.1:{s3_port}", f"http://127.0.0.1:{metrics_port}/metrics")
        make_bucket(bucket)
        yield bucket
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        for service, port in grpc_ports.items():
            Path(SOCKET.format(service=service, port=port)).unlink(missing_ok=True)


def make_bucket(bucket: Bucket) -> None:
    """Create the bucket of a server that has just started, and wait until objects can be written.

    Raises:
        ServerError: It takes too long.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    limit = time.monotonic() + START_LIMIT_S
    with bucket.client() as client:
        while True:
            try:
                with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=BUCKET)
                # The first write waits for a volume: not in the time that is measured.
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
                client.delete_object(Bucket=BUCKET, Key="ready")
                return
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > limit:
                    kind = type(error).__name__
                    raise ServerError(f"the S3 server does not answer ({kind})") from None
                time.sleep(POLL_S)


def weed_version(weed: Path) -> str:
    """Product and version."""
    told = subprocess.run([weed, "version"], capture_output=True, text=True, check=True).stdout
    return f"SeaweedFS {told.split()[2]}"  # version 8000GB 4.48 linux amd64
