"""A client that logs metrics while something else goes on, one request after the other."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from _gc_seed import LIVE_PREFIX

METRICS_PER_CALL = 10
RESPONSE_LIMIT_S = 120.0
PATH = "/api/2.0/mlflow/runs/log-batch"


@dataclass(frozen=True)
class Call:
    """One `log_batch`.

    Attributes:
        started_s: When, by the monotonic clock.
        ended_s: The same.
        is_good: Answered with 200.
    """

    started_s: float
    ended_s: float
    is_good: bool

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_s - self.started_s


class LoggingClient:
    """Calls `log_batch` of 10 metrics without a pause, on one keep-alive connection.

    A context manager that works in a thread of its own; an answer that is not 200 ends nothing.
    """

    def __init__(self, port: int, run_id: str) -> None:
        """Prepare; nothing is sent yet.

        Args:
            port: Of a server on 127.0.0.1.
            run_id: An active run, which gets the metrics.
        """
        self._port = port
        self._run_id = run_id
        self._calls: list[Call] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def between(self, first_s: float, last_s: float) -> list[Call]:
        """The calls that were under way at some time between two of the monotonic clock."""
        return [call for call in self._calls if call.started_s < last_s and call.ended_s > first_s]

    def _work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=RESPONSE_LIMIT_S)
        try:
            while not self._stop.is_set():
                self._calls.append(self._call(connection, len(self._calls)))
        finally:
            connection.close()

    def _call(self, connection: http.client.HTTPConnection, step: int) -> Call:
        now_ms = time.time_ns() // 1_000_000
        metrics = [
            {"key": f"{LIVE_PREFIX}{n}", "value": step / (n + 1), "timestamp": now_ms, "step": step}
            for n in range(METRICS_PER_CALL)
        ]
        body = json.dumps({"run_id": self._run_id, "metrics": metrics}).encode()
        headers = {"Content-Type": "application/json"}
        started = time.monotonic()
        try:
            connection.request("POST", PATH, body=body, headers=headers)
            response = connection.getresponse()
            response.read()
            is_good = response.status == http.client.OK
        except (OSError, http.client.HTTPException):
            connection.close()  # the next call opens it again
            is_good = False
        return Call(started, time.monotonic(), is_good)


def p99_ms(calls: Sequence[Call]) -> float:
    """Milliseconds that 99 of 100 calls do not exceed; nearest rank."""
    times = sorted(call.seconds for call in calls)
    return times[math.ceil(0.99 * len(times)) - 1] * 1000
