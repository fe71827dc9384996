"""The result of a collection as a textfile for Prometheus' node exporter."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_server.errors import UnavailableError
from mlflow_server.gc.outcome import Outcome
from mlflow_server.gc.plan import Kind


def write_textfile(path: Path, exit_code: int, outcome: Outcome | None) -> None:
    """Write what a monitoring system should see, in one step: no reader finds half a file.

    Args:
        path: Ends in `.prom` by the collector's convention.
        exit_code: That the command ends with.
        outcome: What was done; None when it was refused or failed.

    Raises:
        UnavailableError: It cannot be written there.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> None:
        metric = Gauge(f"mlflow_server_gc_{name}", text, labels, registry=registry)
        for key, value in values.items():
            (metric.labels(*key) if labels else metric).set(value)

    gauge("last_run_timestamp_seconds", "When gc ended last.", {(): time.time()})
    gauge("last_exit_code", "What it ended with; 0 is well.", {(): exit_code})
    if outcome is not None:
        plan, failed = outcome.plan, len(outcome.failures)
        kept = {
            (kind.value, reason.value): float(count)
            for kind in Kind
            for reason, count in plan.kept(kind).items()
        }
        purged = {(kind.value,): float(outcome.purged[kind]) for kind in Kind}
        seconds = {(phase,): spent for phase, spent in outcome.seconds.items()}
        gauge("purged", "Entities that the last run purged.", purged, "kind")
        gauge("kept", "Deleted entities that stay.", kept, "kind", "reason")
        gauge("freed_bytes", "Size of the files that it removed.", {(): outcome.freed.size_bytes})
        gauge("freed_files", "Files that it removed.", {(): outcome.freed.files})
        gauge("failed_locations", "Locations that it could not remove.", {(): failed})
        gauge("waiting_locations", "Locations left for the next run.", {(): outcome.waiting})
        gauge("seconds", "How long each phase took.", seconds, "phase")
        gauge("clock_skew_seconds", "Database clock less host clock.", {(): plan.clock_skew_s})
    try:
        write_to_textfile(str(path), registry)
    except OSError as err:
        raise UnavailableError(
            f"--metrics-file: {path}: cannot be written: {err.strerror}",
            hint="name a file in the collector's folder",
        ) from None
