"""What is asked of a running server, and how long it takes; touches the network and child tools."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from _stores import neutral_environment
from seed import METRICS_PER_RUN, PARAMS_PER_RUN, Seeded

HERE = Path(__file__).resolve().parent
CONNECTIONS = 8
WARM_UP_CONNECTIONS = 16
THREADS = 2
RESPONSE_LIMIT_S = 60
SEARCH_PAGE = 20
BYTES_PER_MB = 1_000_000
SCENARIOS = ("search_runs", "log_batch", "create_run")


class LoadError(RuntimeError):
    """A server gave a wrong answer, or none; the measurement is void."""


@dataclass(frozen=True)
class Traffic:
    """Asks one server for what users ask for.

    Attributes:
        port: TCP port on 127.0.0.1.
        seeded: What is in its store.
        run_ids_file: `seeded.side_run_ids`, one a line.
    """

    port: int
    seeded: Seeded
    run_ids_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check_answers(self) -> None:
        """Make sure that a search gives whole runs: speed without an answer is no speed.

        Raises:
            LoadError: Runs, metrics or parameters are missing.
        """
        body = {
            "experiment_ids": [self.seeded.large_experiment_id],
            "max_results": SEARCH_PAGE,
        }
        runs = post_json(self.port, "/api/2.0/mlflow/runs/search", body).get("runs", [])
        if len(runs) != SEARCH_PAGE:
            raise LoadError(f"search_runs gave {len(runs)} runs instead of {SEARCH_PAGE}")
        for run in runs:
            sizes = (len(run["data"]["metrics"]), len(run["data"]["params"]))
            if sizes != (METRICS_PER_RUN, PARAMS_PER_RUN):
                raise LoadError(f"search_runs gave a run with (metrics, params) = {sizes}")

    def warm_up(self, scenario: str, seconds: int) -> None:
        """Load with one connection per request, so that every worker gets its share.

        Raises:
            LoadError: As for `requests_per_second`.
        """
        self._wrk(scenario, seconds, WARM_UP_CONNECTIONS, "-H", "Connection: close")

    def requests_per_second(self, scenario: str, seconds: int) -> float:
        """Requests per second over `CONNECTIONS` keep-alive connections.

        Args:
            scenario: One of `SCENARIOS`.
            seconds: How long to ask.

        Raises:
            LoadError: An answer was not 2xx or 3xx, or did not come.
        """
        result = self._wrk(scenario, seconds, CONNECTIONS)
        return float(result["requests"]) / (float(result["duration_us"]) / 1e6)

    def log_metric_p50_ms(self, call_count: int) -> float:
        """Median milliseconds of `log_metric` with one stock client."""
        command = [
            sys.executable,
            str(HERE / "_sequential.py"),
            self.url,
            self.seeded.empty_experiment_id,
            "--calls",
            str(call_count),
        ]
        times_ms: list[float] = json.loads(run_tool(command))
        return statistics.median(times_ms)

    def _wrk(
        self, scenario: str, seconds: int, connections: int, *options: str
    ) -> dict[str, float]:
        reads = scenario == "search_runs"
        experiment_id = (
            self.seeded.large_experiment_id if reads else self.seeded.empty_experiment_id
        )
        command = [
            "wrk",
            *("--threads", str(THREADS), "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{RESPONSE_LIMIT_S}s"),
            *("--script", str(HERE / "tracking_api.lua"), *options, self.url),
            *("--", scenario, experiment_id, str(self.run_ids_file)),
        ]
        result: dict[str, float] = json.loads(run_tool(command).strip().splitlines()[-1])
        kinds = ("connect", "read", "write", "timeout", "status")
        errors = {kind: result[kind] for kind in kinds if result[kind]}
        if errors or not result["requests"]:
            raise LoadError(f"{scenario}: {errors or 'no answer'} of {result['requests']} requests")
        return result


class ArtifactConnection:
    """Uploads and downloads through the server's artifact proxy on one keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def put_mb_per_s(self, size_mb: int, repeats: int) -> float:
        """Median speed of uploading new files, after one that is not counted."""
        content = os.urandom(size_mb * BYTES_PER_MB)
        times = [self._put(artifact_path(size_mb, n), content) for n in range(repeats + 1)]
        return size_mb / statistics.median(times[1:])

    def get_mb_per_s(self, size_mb: int, repeats: int) -> float:
        """Median speed of downloading what `put_mb_per_s` left, after one that is not counted."""
        times = [self._get(artifact_path(size_mb, n), size_mb) for n in range(repeats + 1)]
        return size_mb / statistics.median(times[1:])

    def _put(self, path: str, content: bytes) -> float:
        """Seconds from the first byte sent to the last byte of the answer."""
        started = time.perf_counter()
        headers = {"Content-Type": "application/octet-stream"}
        self._connection.request("PUT", path, body=content, headers=headers)
        response = self._connection.getresponse()
        answer = response.read()
        elapsed = time.perf_counter() - started
        if response.status != http.client.OK:
            raise LoadError(f"PUT of an artifact gave {response.status}: {answer[:200]!r}")
        return elapsed

    def _get(self, path: str, size_mb: int) -> float:
        """Seconds from the request to the last byte; the content goes into a reused buffer."""
        buffer = bytearray(1 << 20)
        received = 0
        started = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        while count := response.readinto(buffer):
            received += count
        elapsed = time.perf_counter() - started
        if response.status != http.client.OK or received != size_mb * BYTES_PER_MB:
            raise LoadError(f"GET of an artifact gave {response.status}, {received} bytes")
        return elapsed


def artifact_path(size_mb: int, number: int) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/benchmark/{size_mb}mb-{number}.bin"


def post_json(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send one API call on a fresh connection and give the decoded answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_LIMIT_S)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, body=json.dumps(body), headers=headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise LoadError(f"POST {path} gave {response.status}: {text[:200]!r}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def run_tool(command: list[str]) -> str:
    """Run a load generator and give its stdout.

    Raises:
        LoadError: It failed; the message has what it wrote to stderr.
    """
    done = subprocess.run(
        command, env=neutral_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LoadError(f"{Path(command[0]).name} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
