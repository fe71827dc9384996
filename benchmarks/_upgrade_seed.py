"""Fill an empty database with a store of MLflow 2.9: URI RUNS POINTS."""

# ruff: noqa: S608 - statements are put together from constants and numbers

from __future__ import annotations

import sys
from collections.abc import Iterator

import sqlalchemy

from mlflow_server.store.load import filling
from mlflow_server.uris import parse_store_uri

REVISION = "acf3f17fdcc7"
METRIC_KEYS = 20
NUMBERS = {
    "sqlite": "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {0}) "
    "SELECT i FROM n)",
    "postgresql": "(SELECT generate_series(0, {0} - 1) AS i)",
}


def statements(dialect: str, runs: int, points: int) -> Iterator[str]:
    """What fills it: each metric of each run gets that many points."""

    def numbers(count: int, name: str) -> str:
        return f"{NUMBERS[dialect].format(count)} AS {name}"

    run_id, false = "'run-' || r.i", {"sqlite": "0", "postgresql": "FALSE"}[dialect]
    yield (
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, "
        "creation_time, last_update_time) VALUES (1, 'one', '/srv/artifacts/1', 'active', 1, 1)"
    )
    yield (
        "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, "
        "lifecycle_stage, artifact_uri, experiment_id) "
        f"SELECT {run_id}, 'name', 'LOCAL', 'ada', 'FINISHED', 1700000000000 + r.i, 'active', "
        f"'/srv/artifacts/1/' || {run_id}, 1 FROM {numbers(runs, 'r')}"
    )
    for table in ("params", "tags"):
        yield (
            f"INSERT INTO {table} (key, value, run_uuid) SELECT 'key-' || k.i, 'value', {run_id} "
            f"FROM {numbers(runs, 'r')}, {numbers(10, 'k')}"
        )
    yield (
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
        f"SELECT 'metric-' || k.i, s.i * 0.5, 1700000000000 + s.i, {run_id}, s.i, {false} "
        f"FROM {numbers(runs, 'r')}, {numbers(METRIC_KEYS, 'k')}, {numbers(points, 's')}"
    )
    yield (
        "INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) "
        f"SELECT 'metric-' || k.i, 1, 1, {run_id}, 1, {false} "
        f"FROM {numbers(runs, 'r')}, {numbers(METRIC_KEYS, 'k')}"
    )


def make_empty(uri: str, revision: str) -> None:
    """Make the schema of a revision in an empty database."""
    with filling(parse_store_uri(uri), (), revision, None, replace=False) as loader:
        loader.finish(upgrade=False)


def main() -> None:
    """Fill it."""
    uri, runs, points = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make_empty(uri, REVISION)
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        for statement in statements(engine.dialect.name, runs, points):
            connection.exec_driver_sql(statement)
    engine.dispose()
    print("{}")  # what the benchmark reads


if __name__ == "__main__":
    main()
