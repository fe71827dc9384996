"""The stores of tests/data/old-stores, and whether one has everything that it had."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import sqlalchemy


@dataclass(frozen=True)
class Release:
    """What the store of a release has; see the README beside the files.

    Args:
        revision: Of its schema.
        pending: Revisions from there to this release's.
        has_inputs: Inputs of runs.
        has_traces: Traces.
        has_models: Logged models.
        has_evaluation: An assessment, a dataset to evaluate with, a scorer.
    """

    revision: str
    pending: int
    has_inputs: bool = True
    has_traces: bool = True
    has_models: bool = True
    has_evaluation: bool = False


RELEASES = {
    "2.3.2": Release("3500859a5d39", 47, has_inputs=False, has_traces=False, has_models=False),
    "2.9.2": Release("acf3f17fdcc7", 44, has_traces=False, has_models=False),
    "2.22.1": Release("0584bdc529eb", 39, has_models=False),
    "3.1.4": Release("bda7b8c39065", 36),
}


def check(had: Release, found: dict[str, Any], engine: sqlalchemy.Engine) -> None:
    """Raise unless everything is there.

    Args:
        had: What the store had before.
        found: What the API of a server says of it: see `Dumper`.
        engine: Of its database.
    """
    _check_runs(found)
    _check_registry(found)
    runs = {run["run"]["info"]["run_name"]: run["run"] for run in found["runs"].values()}
    inputs = [each for run in runs.values() for each in _inputs(run)]
    assert [tag for each in inputs for tag in each["tags"]] == (
        [{"key": "mlflow.data.context", "value": "training"}] * 3 if had.has_inputs else []
    )
    traces = [trace for traces in found["traces"].values() for trace in traces.values()]
    assert len(traces) == (3 if had.has_traces else 0)
    source = runs["run-0"]["info"]["run_id"]
    for trace in traces:
        assert trace["info"]["trace_metadata"]["mlflow.sourceRun"] == source
    models = [model["info"]["name"] for model in found["logged_models"].values()]
    assert models == (["lm"] if had.has_models else [])
    if had.has_models:
        with engine.connect() as connection:
            gone = sqlalchemy.text("SELECT lifecycle_stage, name FROM logged_models ORDER BY name")
            assert list(connection.execute(gone)) == [("active", "lm"), ("deleted", "lm-gone")]
    _check_evaluation(had, found)


def _inputs(run: dict[str, Any]) -> list[Any]:
    return list(run.get("inputs", {}).get("dataset_inputs", []))


def _check_runs(found: dict[str, Any]) -> None:
    experiments = {each["name"]: each for each in found["experiments"].values()}
    assert set(experiments) == {"Default", "alpha", "beta", "gone"}
    assert experiments["gone"]["lifecycle_stage"] == "deleted"
    assert {"key": "team", "value": "vision"} in experiments["alpha"]["tags"]
    runs = {run["run"]["info"]["run_name"]: run for run in found["runs"].values()}
    assert set(runs) == {f"run-{number}" for number in range(6)}
    deleted = {name for name in runs if _stage(runs[name]) == "deleted"}
    assert deleted == {"run-1", "run-2", "run-5"}
    histories = [points for run in runs.values() for points in run["metrics"].values()]
    assert sum(map(len, histories)) == 56
    latest = [metric for run in runs.values() for metric in run["run"]["data"]["metrics"]]
    assert len(latest) == 20
    values = [point["value"] for points in runs["run-0"]["metrics"].values() for point in points]
    assert sum(map(math.isnan, map(float, values))) == 1
    assert sum(float(value) > 1e308 for value in values) == 1, "+inf, as MLflow keeps it"
    params = [param for run in runs.values() for param in run["run"]["data"]["params"]]
    assert sorted({len(param["value"]) for param in params}) == [3, 200]
    assert len(params) == 12
    assert sum(len(run["run"]["data"]["tags"]) for run in runs.values()) == 18


def _stage(run: dict[str, Any]) -> str:
    return str(run["run"]["info"]["lifecycle_stage"])


def _check_registry(found: dict[str, Any]) -> None:
    churn = found["registered_models"]["churn"]
    model = churn["model"]["registered_model"]
    assert model["tags"] == [{"key": "owner", "value": "ada"}]
    assert model["aliases"] == [{"alias": "champion", "version": "1"}]
    names = {id_: run["run"]["info"]["run_name"] for id_, run in found["runs"].items()}
    versions = {
        number: each["version"]["model_version"] for number, each in churn["versions"].items()
    }
    assert set(versions) == {"1", "2"}
    assert [names[versions[number]["run_id"]] for number in ("1", "2")] == ["run-0", "run-1"]
    assert versions["1"]["current_stage"] == "Production"
    assert all(len(version["tags"]) == 1 for version in versions.values())


def _check_evaluation(had: Release, found: dict[str, Any]) -> None:
    traces = [trace["info"] for traces in found["traces"].values() for trace in traces.values()]
    assessments = [each for trace in traces for each in trace.get("assessments", [])]
    datasets = [
        (each["dataset"]["dataset"]["name"], [row["expectations"] for row in rows.values()])
        for each in found["datasets"].values()
        for rows in [each["records"]]
    ]
    scorers = [
        (scorer["scorer_name"], scorer["scorer_version"])
        for others in found["others"].values()
        for versions in others["scorers"]
        for scorer in versions["scorers"]
    ]
    if not had.has_evaluation:
        assert (assessments, datasets, scorers) == ([], [], [])
        return
    (assessment,) = assessments
    assert assessment["assessment_name"] == "good"
    assert (assessment["feedback"], assessment["rationale"]) == ({"value": True}, "it is")
    assert datasets == [("golden", [{"answer": 2}])]
    assert scorers == [("length", 1)]
