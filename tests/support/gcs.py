"""A real server of Google Cloud Storage's API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import START_TIMEOUT_S, free_port, http


@dataclass(frozen=True)
class GcsServer:
    """gcp-storage-emulator: buckets and objects as Google's, but anybody may do anything.

    Args:
        port: On this machine, plain HTTP.
    """

    port: int

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What MLflow and Google's library need to use it."""
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    def new_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"b{uuid.uuid4().hex}"
        answer = http(
            f"{self.endpoint}/storage/v1/b?project=tests",
            method="POST",
            body=json.dumps({"name": name}).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status == 200, answer
        return name

    def content(self, bucket: str) -> list[str]:
        """Every object in a bucket."""
        answer = http(f"{self.endpoint}/storage/v1/b/{bucket}/o")
        assert answer.status == 200, answer
        return [entry["name"] for entry in json.loads(answer.body).get("items", [])]

    def buckets(self) -> list[str]:
        """The names of all buckets."""
        answer = http(f"{self.endpoint}/storage/v1/b?project=tests")
        return [entry["name"] for entry in json.loads(answer.body).get("items", [])]


@contextlib.contextmanager
def run_gcs(folder: Path) -> Iterator[GcsServer]:
    """Start it on a free port; nothing is kept."""
    port = free_port()
    flags = ["--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    with (folder / "gcs.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gcp_storage_emulator", "start", *flags],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = GcsServer(port)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                server.buckets()
                break
            assert process.poll() is None, (folder / "gcs.log").read_text()
            assert time.monotonic() < deadline, "the GCS server does not answer"
            time.sleep(0.1)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
