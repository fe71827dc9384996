"""Fill an empty backend store with deleted runs and a few that stay; touches only that store.

Run as a program by `gc.py`, in a process of its own, because it imports MLflow:

    python benchmarks/_gc_seed.py sqlite:////tmp/seeded.db /tmp/artifacts '{"deleted": 3000}'

MLflow makes the schema and the experiment; the rows come from set-based SQL, two million metric
points in half a minute. Equal arguments give equal runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DELETED_PER_ACTIVE = 9
LEAST_ACTIVE = 10
AGE_MS = 60 * 86_400_000
"""How long ago the deleted runs were deleted."""
RUN_LENGTH_MS = 45_000
RUNS_PER_INSERT = 1_000
LIVE_PREFIX = "live_"
"""Beginning of the keys that are logged while gc works; no seeded key has it."""
NUMBERS = (
    "WITH RECURSIVE keys(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM keys WHERE k < {keys} - 1), "
    "steps(s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM steps WHERE s < {points} - 1) "
)
METRICS = (
    "(key, value, timestamp, run_uuid, step, is_nan) "
    "SELECT 'metric_' || k, k + s / 10.0, start_time + s * 1000, run_uuid, s, FALSE "
    "FROM runs CROSS JOIN keys CROSS JOIN steps "
)
TEXTS = (
    "(key, value, run_uuid) SELECT 'key_' || k, 'value ' || k, run_uuid "
    "FROM runs CROSS JOIN keys ORDER BY start_time, k"
)


@dataclass(frozen=True)
class SeededRun:
    """One run; `index` counts from 0, oldest first."""

    index: int
    run_id: str
    is_deleted: bool


@dataclass(frozen=True)
class Shape:
    """What is in a store.

    Attributes:
        deleted: Runs that were deleted. A tenth of all runs besides them stays, at least ten.
        metric_keys: Metrics of each run.
        points: Of each metric.
        params: Of each run.
        tags: Of each run.
        files: Artifacts of each run.
    """

    deleted: int
    metric_keys: int = 20
    points: int = 10
    params: int = 10
    tags: int = 5
    files: int = 3

    @property
    def active(self) -> int:
        """Runs that stay."""
        return max(self.deleted // DELETED_PER_ACTIVE, LEAST_ACTIVE)

    @property
    def rows_per_run(self) -> dict[str, int]:
        """By table."""
        return {
            "runs": 1,
            "metrics": self.metric_keys * self.points,
            "latest_metrics": self.metric_keys,
            "params": self.params,
            "tags": self.tags,
        }

    def runs(self) -> Iterator[SeededRun]:
        """All runs; those that stay are spread evenly."""
        ids = random.Random(30_001)
        total = self.deleted + self.active
        for index in range(total):
            stays = (index + 1) * self.active // total > index * self.active // total
            yield SeededRun(index, f"{ids.getrandbits(128):032x}", not stays)


def run_row(
    run: SeededRun, experiment_id: int, artifact_location: str, now_ms: int
) -> dict[str, Any]:
    """The columns of a run; it ended just before the deleted ones were deleted."""
    deleted_ms = now_ms - AGE_MS
    start_ms = deleted_ms - RUN_LENGTH_MS - 1_000_000_000 + run.index * 1_000
    return {
        "run_uuid": run.run_id,
        "name": f"run-{run.index:06d}",
        "source_type": "LOCAL",
        "source_name": "train.py",
        "entry_point_name": "",
        "user_id": f"user{run.index % 7}",
        "status": "FINISHED",
        "start_time": start_ms,
        "end_time": start_ms + RUN_LENGTH_MS,
        "source_version": "",
        "lifecycle_stage": "deleted" if run.is_deleted else "active",
        "artifact_uri": f"{artifact_location}/{run.run_id}/artifacts",
        "experiment_id": experiment_id,
        "deleted_time": deleted_ms if run.is_deleted else None,
    }


def seed(backend_store_uri: str, artifact_root: str, shape: Shape) -> str:
    """Create the schema and fill it; the store must be empty before.

    Args:
        backend_store_uri: The store.
        artifact_root: What MLflow puts in front of `/EXPERIMENT/RUN/artifacts`.
        shape: How much.

    Returns:
        Id of the experiment that has all the runs; it is active.
    """
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import create_engine

    store = SqlAlchemyStore(backend_store_uri, artifact_root)
    experiment_id: str = store.create_experiment("collected")
    location = store.get_experiment(experiment_id).artifact_location
    store.engine.dispose()
    now_ms = time.time_ns() // 1_000_000
    rows = [run_row(run, int(experiment_id), location, now_ms) for run in shape.runs()]
    engine = create_engine(backend_store_uri)
    with engine.begin() as connection:
        # Foreign keys are right by construction; looking each of them up takes most of the time.
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET session_replication_role = replica")
        for first in range(0, len(rows), RUNS_PER_INSERT):
            connection.execute(SqlRun.__table__.insert(), rows[first : first + RUNS_PER_INSERT])
        for statement in fills(shape):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return experiment_id


def fills(shape: Shape) -> Iterator[str]:
    """Statements that give each run what belongs to it, in the order in which it was logged."""
    metrics = NUMBERS.format(keys=shape.metric_keys, points=shape.points)
    last = f"WHERE s = {shape.points - 1}"
    yield f"{metrics}INSERT INTO metrics {METRICS}ORDER BY start_time, s, k"
    yield f"{metrics}INSERT INTO latest_metrics {METRICS}{last} ORDER BY start_time, k"
    yield f"{NUMBERS.format(keys=shape.params, points=1)}INSERT INTO params {TEXTS}"
    yield f"{NUMBERS.format(keys=shape.tags, points=1)}INSERT INTO tags {TEXTS}"


def main() -> None:
    """Fill the store named on the command line and print the experiment's id as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend_store_uri")
    parser.add_argument("artifact_root")
    parser.add_argument("shape", type=json.loads, help="attributes of `Shape` as a JSON object")
    arguments = parser.parse_args()
    shape = Shape(**arguments.shape)
    json.dump(seed(arguments.backend_store_uri, arguments.artifact_root, shape), sys.stdout)


if __name__ == "__main__":
    main()
