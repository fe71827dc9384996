"""Prometheus metrics of all workers together; names as in `docs/metrics.md`.

`prometheus_client` chooses between one process and many when it is imported, so this module is
imported only after PROMETHEUS_MULTIPROC_DIR is set.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from mlflow_server.server.front import Receive, Scope, Send

_LABELS = ("method", "route", "status")
# Seconds; from an answer out of memory to the upload of a large artifact.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
POOL_INTERVAL_S = 5.0


class Pool(Protocol):
    """The part of SQLAlchemy's QueuePool that is counted."""

    def checkedout(self) -> int:
        """Connections in use."""

    def checkedin(self) -> int:
        """Connections at rest."""


class Metrics:
    """The metrics of one server. Made by the supervisor; each worker's values live in a file.

    Args:
        folder: PROMETHEUS_MULTIPROC_DIR.
        version: Of this bundle.
        mlflow_version: Of MLflow.
        db_revision: Schema revision the server runs on.
    """

    def __init__(self, folder: Path, version: str, mlflow_version: str, db_revision: str) -> None:
        self._folder = folder
        # Collected from the workers' files, so registering them anywhere would count twice.
        here = CollectorRegistry()
        self._duration = Histogram(
            "mlflow_server_http_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its answer.",
            _LABELS,
            buckets=_BUCKETS,
            registry=here,
        )
        self._in_flight = Gauge(
            "mlflow_server_http_requests_in_flight",
            "Requests being answered now.",
            multiprocess_mode="livesum",
            registry=here,
        )
        self._received = Counter(
            "mlflow_server_http_request_bytes_total",
            "Bytes of request bodies.",
            _LABELS[:2],
            registry=here,
        )
        self._sent = Counter(
            "mlflow_server_http_response_bytes_total",
            "Bytes of response bodies.",
            _LABELS[:2],
            registry=here,
        )
        self._pool = Gauge(
            "mlflow_server_db_pool_connections",
            "Database connections of the workers' pools.",
            ("state",),
            multiprocess_mode="livesum",
            registry=here,
        )
        build = Gauge(
            "mlflow_server_build_info",
            "What runs here; the value is always 1.",
            ("version", "mlflow_version", "db_revision"),
            multiprocess_mode="max",
            registry=here,
        )
        build.labels(version, mlflow_version, db_revision).set(1)

    def begin(self) -> None:
        """A request has come in."""
        self._in_flight.inc()

    def end(
        self, method: str, route: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """A request has been answered; sizes in bytes of the bodies."""
        self._in_flight.dec()
        self._duration.labels(method, route, str(status)).observe(seconds)
        if received:
            self._received.labels(method, route).inc(received)
        if sent:
            self._sent.labels(method, route).inc(sent)

    async def watch_pools(self, get_pools: Callable[[], list[Pool]]) -> None:
        """Keep the pool gauges current until cancelled."""
        while True:
            pools = get_pools()
            self._pool.labels("in_use").set(sum(pool.checkedout() for pool in pools))
            self._pool.labels("idle").set(sum(pool.checkedin() for pool in pools))
            await asyncio.sleep(POOL_INTERVAL_S)

    def worker_died(self, pid: int) -> None:
        """Forget the gauges of a worker; its counters stay, so that totals never fall."""
        mark_process_dead(pid, path=str(self._folder))  # type: ignore[no-untyped-call]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app behind `/metrics`."""
        body = await asyncio.to_thread(self._render)
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", CONTENT_TYPE_LATEST.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _render(self) -> bytes:
        registry = CollectorRegistry()
        collector: Any = MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]
        del collector
        return generate_latest(registry)
