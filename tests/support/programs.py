"""Start our own programs, and ask them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
STORE = "MLFLOW_BACKEND_STORE_URI"
DESTINATION = "MLFLOW_ARTIFACTS_DESTINATION"
_PORTS_PER_WORKER = 1_000
# Begins somewhere else in each run: ports of the run before may still be closing.
_ports = itertools.count(os.getpid())
# Long on purpose: CI has two cores and runs several servers side by side.
START_TIMEOUT_S = 90.0


def free_port() -> int:
    """A TCP port that nobody listens on now, and that nobody else will be given.

    Outgoing connections take theirs from 32,768 up (Linux), SeaweedFS adds 10,000 to some of its
    own; each process of pytest-xdist has a range to itself, and hands out no port twice.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    for _ in range(_PORTS_PER_WORKER):
        port = 12_000 + worker * _PORTS_PER_WORKER + next(_ports) % _PORTS_PER_WORKER
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of this process without any setting, and with `extra`."""
    prefixes = ("MLFLOW_", "_MLFLOW", "TRACKING_SERVER_", "PG", "PYTEST_", "PROMETHEUS_")
    prefixes += ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "AWS_EC2_METADATA_DISABLED": "true", **extra}


def run_cli(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 60,
    prefix: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as a user would, with something in front of the command line."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "mlflow_server", *arguments],
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
    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
) -> Iterator[Server]:
    """Run `serve` in `folder` (made when missing) on a free port with two workers.

    The caller's arguments come last and win. Everything is killed at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    whole = clean_environment(**{"MLFLOW_WORKERS": "2", **(environment or {})})
    with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
        process = start(
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
