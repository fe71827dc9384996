"""Fill an empty backend store with a store's usual mixture of runs; touches only that store.

Run as a program by the benchmarks, in a process of its own, because it imports MLflow:

    python benchmarks/seed.py sqlite:////tmp/seeded.db --runs 2000

The rows are written with plain INSERTs into the tables of MLflow's own models: the same rows as
through the API in a few seconds instead of minutes. Equal arguments give equal rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

METRICS_PER_RUN = 10
STEPS_PER_METRIC = 3
PARAMS_PER_RUN = 5
TAGS_PER_RUN = 3
SIDE_EXPERIMENTS = 4
"""Experiments besides the large one; together they hold a tenth of the runs."""
FIRST_START_MS = 1_750_000_000_000
"""Start of the first run, ms since the epoch; each following run starts a minute later."""
RUNS_PER_INSERT = 200


@dataclass(frozen=True)
class Seeded:
    """What the load needs to know about a seeded store.

    Attributes:
        large_experiment_id: Holds nine tenths of the runs and is only ever read.
        empty_experiment_id: Holds no runs; new ones go here, so that reads stay comparable.
        side_run_ids: Runs of the small experiments, 32 hex digits each; metrics go to these.
    """

    large_experiment_id: str
    empty_experiment_id: str
    side_run_ids: tuple[str, ...]


@dataclass(frozen=True)
class RunPlan:
    """One run to write; `index` counts from 0 over the whole store."""

    index: int
    run_id: str
    experiment_id: int

    @property
    def start_ms(self) -> int:
        return FIRST_START_MS + self.index * 60_000


def plan_runs(run_count: int, large: int, sides: list[int]) -> list[RunPlan]:
    """Spread the runs: every tenth over the side experiments in turn, the others in the large one.

    Args:
        run_count: Runs in all, at least 1.
        large: Experiment id of the large experiment.
        sides: Experiment ids of the small ones, at least one.

    Returns:
        `run_count` runs, oldest first.
    """
    ids = random.Random(20_001)
    return [
        RunPlan(
            index=index,
            run_id=f"{ids.getrandbits(128):032x}",
            experiment_id=sides[(index // 10) % len(sides)] if index % 10 == 0 else large,
        )
        for index in range(run_count)
    ]


def run_row(run: RunPlan) -> dict[str, Any]:
    return {
        "run_uuid": run.run_id,
        "name": f"run-{run.index:05d}",
        "source_type": "LOCAL",
        "source_name": "train.py",
        "entry_point_name": "",
        "user_id": f"user{run.index % 7}",
        "status": "FINISHED",
        "start_time": run.start_ms,
        "end_time": run.start_ms + 45_000,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": f"mlflow-artifacts:/{run.experiment_id}/{run.run_id}/artifacts",
        "experiment_id": run.experiment_id,
    }


def metric_rows(run: RunPlan) -> Iterator[dict[str, Any]]:
    """All steps of all metrics of a run; the last step of a metric comes last."""
    for metric in range(METRICS_PER_RUN):
        for step in range(STEPS_PER_METRIC):
            yield {
                "key": f"metric_{metric}",
                "value": (run.index % 97) / 97 + metric + step / 10,
                "timestamp": run.start_ms + step * 1000,
                "step": step,
                "is_nan": False,
                "run_uuid": run.run_id,
            }


def param_rows(run: RunPlan) -> Iterator[dict[str, Any]]:
    for param in range(PARAMS_PER_RUN):
        yield {
            "key": f"param_{param}",
            "value": f"{run.index % 13}.{param}",
            "run_uuid": run.run_id,
        }


def tag_rows(run: RunPlan) -> Iterator[dict[str, Any]]:
    tags = {
        "mlflow.runName": f"run-{run.index:05d}",
        "mlflow.user": f"user{run.index % 7}",
        "team": f"team{run.index % 5}",
    }
    assert len(tags) == TAGS_PER_RUN
    for key, value in tags.items():
        yield {"key": key, "value": value, "run_uuid": run.run_id}


def insert_runs(engine: Any, runs: list[RunPlan]) -> None:
    """Write the runs and what belongs to them, `RUNS_PER_INSERT` runs per transaction."""
    from mlflow.store.tracking.dbmodels.models import (
        SqlLatestMetric,
        SqlMetric,
        SqlParam,
        SqlRun,
        SqlTag,
    )

    for first in range(0, len(runs), RUNS_PER_INSERT):
        batch = runs[first : first + RUNS_PER_INSERT]
        metrics = [row for run in batch for row in metric_rows(run)]
        latest = [row for row in metrics if row["step"] == STEPS_PER_METRIC - 1]
        with engine.begin() as connection:
            for model, rows in (
                (SqlRun, [run_row(run) for run in batch]),
                (SqlMetric, metrics),
                (SqlLatestMetric, latest),
                (SqlParam, [row for run in batch for row in param_rows(run)]),
                (SqlTag, [row for run in batch for row in tag_rows(run)]),
            ):
                connection.execute(model.__table__.insert(), rows)


def seed(backend_store_uri: str, run_count: int) -> Seeded:
    """Create the schema and fill it; the store must be empty before."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(backend_store_uri, "mlflow-artifacts:/")
    large = int(store.create_experiment("large"))
    sides = [int(store.create_experiment(f"side-{n}")) for n in range(SIDE_EXPERIMENTS)]
    empty = store.create_experiment("new-runs")
    runs = plan_runs(run_count, large, sides)
    insert_runs(store.engine, runs)
    store.engine.dispose()
    return Seeded(
        large_experiment_id=str(large),
        empty_experiment_id=str(empty),
        side_run_ids=tuple(run.run_id for run in runs if run.experiment_id != large),
    )


def main() -> None:
    """Fill the store named on the command line and print a `Seeded` as JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend_store_uri")
    parser.add_argument("--runs", type=int, default=2000)
    arguments = parser.parse_args()
    json.dump(asdict(seed(arguments.backend_store_uri, arguments.runs)), sys.stdout)


if __name__ == "__main__":
    main()
