"""Fill an empty backend store with runs whose values look like real ones; touches only that store.

Run as a program by `backup.py`, in a process of its own, because it imports MLflow:

    python benchmarks/_backup_seed.py sqlite:////tmp/seeded.db '{"runs": 1000}'

MLflow makes the schema, the rows come from set-based SQL. `--first N` adds runs to a store that was
seeded before. Equal arguments give the same run ids; values differ from one call to the next.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROOT = "mlflow-artifacts:/"
"""Where locations begin, as of a server that hands artifacts out itself."""
RUNS_PER_INSERT = 1_000
RUN_LENGTH_MS = 45_000
UNIFORM = {
    "sqlite": "(random() / 18446744073709551616.0 + 0.5)",
    "postgresql": "random()",
}
"""A random number from 0 to 1."""
SYSTEM_TAGS = ("mlflow.runName", "mlflow.source.name", "mlflow.source.type", "mlflow.user")
NUMBERS = (
    "WITH RECURSIVE keys(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM keys WHERE k < {keys} - 1), "
    "steps(s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM steps WHERE s < {points} - 1) "
)


@dataclass(frozen=True)
class Shape:
    """What is in a store.

    Attributes:
        runs: How many.
        experiments: That they are spread over.
        metric_keys: Metrics of each run.
        points: Of each metric.
        params: Of each run.
        tags: Of each run, besides those that MLflow's client sets.
        system_tags: Those that it sets.
        files: Artifacts of each run.
        file_bytes: Size of each.
    """

    runs: int
    experiments: int = 10
    metric_keys: int = 20
    points: int = 10
    params: int = 10
    tags: int = 5
    system_tags: int = len(SYSTEM_TAGS)
    files: int = 0
    file_bytes: int = 1024

    def run_ids(self, first: int = 0) -> Iterator[tuple[int, str]]:
        """Number and id of each run, the number counted from `first`."""
        for number in range(first, first + self.runs):
            yield number, f"{random.Random(number).getrandbits(128):032x}"


def run_row(number: int, run_id: str, experiment_id: int, now_ms: int) -> dict[str, Any]:
    """The columns of a run."""
    start_ms = now_ms - 30 * 86_400_000 + number * 1_013
    return {
        "run_uuid": run_id,
        "name": f"run-{number:06d}",
        "source_type": "LOCAL",
        "source_name": "train.py",
        "entry_point_name": "",
        "user_id": f"user{number % 7}",
        "status": "FINISHED",
        "start_time": start_ms,
        "end_time": start_ms + RUN_LENGTH_MS + number % 997,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": f"{ROOT}{experiment_id}/{run_id}/artifacts",
        "experiment_id": experiment_id,
        "deleted_time": None,
    }


def fills(shape: Shape, dialect: str, beginning_ms: int) -> Iterator[str]:
    """Statements that give each run that began at a time or later what belongs to it."""
    some = UNIFORM[dialect]
    runs = f"FROM runs CROSS JOIN keys WHERE start_time >= {beginning_ms}"
    keys_of = NUMBERS.format
    yield (
        f"{keys_of(keys=shape.metric_keys, points=shape.points)}"  # noqa: S608 - of constants
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
        f"SELECT 'metric_' || k, (k + 1) * {some} / (s + 1), "
        f"start_time + s * 1000 + CAST({some} * 900 AS BIGINT), run_uuid, s, FALSE "
        f"FROM runs CROSS JOIN keys CROSS JOIN steps WHERE start_time >= {beginning_ms} "
        "ORDER BY start_time, s, k"
    )
    yield (
        "INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) "  # noqa: S608
        "SELECT m.key, m.value, m.timestamp, m.run_uuid, m.step, m.is_nan "
        "FROM metrics m JOIN runs r ON r.run_uuid = m.run_uuid "
        f"WHERE m.step = {shape.points - 1} AND r.start_time >= {beginning_ms}"
    )
    yield (
        f"{keys_of(keys=shape.params, points=1)}INSERT INTO params (key, value, run_uuid) "
        f"SELECT 'param_' || k, CASE WHEN k / 2 * 2 = k THEN CAST({some} AS TEXT) "
        f"ELSE 'choice ' || CAST({some} * 20 AS BIGINT) END, run_uuid {runs}"
    )
    if shape.tags:
        yield (
            f"{keys_of(keys=shape.tags, points=1)}INSERT INTO tags (key, value, run_uuid) "
            f"SELECT 'tag_' || k, 'value ' || CAST({some} * 1000 AS BIGINT), run_uuid {runs}"
        )
    for key in SYSTEM_TAGS[: shape.system_tags]:
        value = "name" if key == "mlflow.runName" else "source_name"
        yield (
            f"INSERT INTO tags (key, value, run_uuid) SELECT '{key}', {value}, run_uuid "  # noqa: S608
            f"FROM runs WHERE start_time >= {beginning_ms}"
        )


def make_experiments(backend_store_uri: str, count: int) -> list[int]:
    """Create the schema and experiments in an empty store."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(backend_store_uri, ROOT)
    ids = [int(store.create_experiment(f"experiment {number}")) for number in range(count)]
    store.engine.dispose()
    return ids


def seed(backend_store_uri: str, shape: Shape, first: int) -> list[int]:
    """Fill a store.

    Args:
        backend_store_uri: The store; empty, unless runs are added.
        shape: How much.
        first: Number of the first run; 0 in an empty store.

    Returns:
        Ids of the experiments; run by run, the next one of them has it.
    """
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import create_engine

    experiments = list(range(1, shape.experiments + 1))
    if not first:
        experiments = make_experiments(backend_store_uri, shape.experiments)
    now_ms = time.time_ns() // 1_000_000
    rows = [
        run_row(number, run_id, experiments[number % len(experiments)], now_ms)
        for number, run_id in shape.run_ids(first)
    ]
    engine = create_engine(backend_store_uri)
    with engine.begin() as connection:
        # Foreign keys are right by construction; looking each of them up takes most of the time.
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET session_replication_role = replica")
        for start in range(0, len(rows), RUNS_PER_INSERT):
            connection.execute(SqlRun.__table__.insert(), rows[start : start + RUNS_PER_INSERT])
        if rows:
            for statement in fills(shape, engine.dialect.name, rows[0]["start_time"]):
                connection.exec_driver_sql(statement)
    engine.dispose()
    return experiments


def main() -> None:
    """Fill the store named on the command line and print the experiments' ids as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend_store_uri")
    parser.add_argument("shape", type=json.loads, help="attributes of `Shape` as a JSON object")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    arguments = parser.parse_args()
    shape = Shape(**arguments.shape)
    print(json.dumps(seed(arguments.backend_store_uri, shape, arguments.first)))


if __name__ == "__main__":
    main()
