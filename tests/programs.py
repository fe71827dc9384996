"""Start the programs that tests talk to: our server, PostgreSQL, an S3 server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# Long on purpose: CI has two cores and runs several servers side by side.
START_TIMEOUT_S = 90.0


def free_port(below: int = 55_000) -> int:
    """A TCP port that nobody listens on now, below the range that some servers add 10,000 to."""
    while True:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port: int = trial.getsockname()[1]
        if port < below:
            return port


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of this process without any setting, and with `extra`."""
    prefixes = ("MLFLOW_", "_MLFLOW", "TRACKING_SERVER_", "AWS_", "PG", "PYTEST_", "PROMETHEUS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "AWS_EC2_METADATA_DISABLED": "true", **extra}


def run_cli(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "mlflow_server", *arguments],
        cwd=cwd,
        env=clean_environment(**(environment or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@dataclass
class Answer:
    """An HTTP answer; error statuses are no exception."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.body)
        return document


def http(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> Answer:
    """One request on a connection of its own; redirects are not followed."""

    class KeepRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: object) -> None:
            return None

    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    opener = urllib.request.build_opener(KeepRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as err:
        with err:
            return Answer(err.code, dict(err.headers), err.read())


@dataclass
class Server:
    """A running `serve`, in a session of its own so that nothing of it can be missed."""

    process: subprocess.Popen[bytes]
    url: str
    port: int
    folder: Path
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return (self.folder / "stderr.log").read_text("utf-8", errors="replace")

    @property
    def output(self) -> str:
        """What it has written to stdout so far."""
        return (self.folder / "stdout.log").read_text("utf-8", errors="replace")

    def pids(self) -> list[int]:
        """Every process of its session that is not a zombie, the supervisor first."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                text = (entry / "stat").read_text("utf-8", errors="replace").rpartition(")")[2]
                fields = text.split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return sorted(found, key=lambda pid: pid != self.process.pid)

    def wait_ready(self, timeout: float = START_TIMEOUT_S) -> None:
        """Wait until `/readyz` says 200; fail with the log when the server ends before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.log}")
            with contextlib.suppress(OSError):
                if http(f"http://127.0.0.1:{self.port}/readyz", timeout=10).status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout} s:\n{self.log}")

    def stop(self, sig: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal to the supervisor, wait for its end, return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout)

    def wait_gone(self, timeout: float = 30) -> list[int]:
        """Wait until no process of the session is left; return those that are."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.pids():
            time.sleep(0.05)
        return self.pids()

    def kill_all(self) -> None:
        """Leave nothing behind, whatever happened."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def serve(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    wait: bool = True,
    port: int | None = None,
) -> Iterator[Server]:
    """Run `serve` in `folder` (made when missing) on a free port with two workers.

    The caller's arguments come last and win. Everything is killed at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    whole = clean_environment(**{"MLFLOW_WORKERS": "2", **(environment or {})})
    with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow_server", "serve", "--port", str(port), *arguments],
            cwd=folder,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    server = Server(process, f"http://127.0.0.1:{port}", port, folder, whole)
    try:
        if wait:
            server.wait_ready()
        yield server
    finally:
        server.kill_all()


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
        import boto3
        import botocore.exceptions
        from botocore.client import Config

        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                region_name="us-east-1",
                config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
            )
            try:
                with contextlib.suppress(
                    client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
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
            finally:
                client.close()


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
