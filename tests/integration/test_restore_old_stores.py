"""Stores that older releases of MLflow wrote: backed up as they are, restored at this release."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from mlflow_server.store.revision import head_revision
from tests.conftest import DATA
from tests.support.api_dump import Dumper
from tests.support.everything_place import (
    BACKUPS,
    assert_goes_on,
    command,
    empty_store,
    serving,
)
from tests.support.mariadb import MARIADB
from tests.support.places import Place
from tests.support.stores import open_store

pytestmark = pytest.mark.xdist_group("restore-old-stores")

# Of tests/data/old-stores/README.md: the release, its revision, and what it has.
RELEASES = {
    "2.3.2": ("3500859a5d39", False, False, False),
    "2.9.2": ("acf3f17fdcc7", True, False, False),
    "2.22.1": ("0584bdc529eb", True, True, False),
    "3.1.4": ("bda7b8c39065", True, True, True),
}


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A backup of each, in a place of its own."""
    found = {}
    for release in RELEASES:
        folder = tmp_path_factory.mktemp("old")
        place = Place.make(folder / "place")
        shutil.copy(DATA / "old-stores" / f"mlflow-{release}.db", place.store)
        (place.project / "artifacts").mkdir()
        before = place.store.read_bytes()
        command(place, "backup", "create", environment={BACKUPS: str(folder / "backups")})
        assert place.store.read_bytes() == before
        found[release] = folder / "backups"
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", MARIADB])
@pytest.mark.parametrize("release", RELEASES)
def test_has_everything_that_the_old_store_had(
    release: str,
    kind: str,
    backups: dict[str, Path],
    place: Place,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    revision, has_inputs, has_traces, has_models = RELEASES[release]
    target = empty_store(kind, request, tmp_path)
    environment = {**target.environment, BACKUPS: str(backups[release])}
    if kind == "sqlite":
        planned = command(place, "restore", "latest", "--dry-run", environment=environment)
        assert f"at revision {revision}" in planned["items"][0]["detail"]
    command(place, "restore", "latest", environment=environment)
    engine = open_store(target.uri)
    with engine.connect() as connection:
        query = sqlalchemy.text("SELECT version_num FROM alembic_version")
        assert connection.execute(query).scalars().all() == [head_revision()]
    with serving(target, tmp_path / "server") as server:
        found = Dumper(server.url, wants_files=False).dump()
        assert_goes_on(server)
    _check_runs(found)
    _check_registry(found)
    runs = {run["run"]["info"]["run_name"]: run["run"] for run in found["runs"].values()}
    inputs = [each for run in runs.values() for each in _inputs(run)]
    assert [tag for each in inputs for tag in each["tags"]] == (
        [{"key": "mlflow.data.context", "value": "training"}] * 3 if has_inputs else []
    )
    traces = [trace for traces in found["traces"].values() for trace in traces.values()]
    assert len(traces) == (3 if has_traces else 0)
    source = runs["run-0"]["info"]["run_id"]
    for trace in traces:
        assert trace["info"]["trace_metadata"]["mlflow.sourceRun"] == source
    models = [model["info"]["name"] for model in found["logged_models"].values()]
    assert models == (["lm"] if has_models else [])
    if has_models:
        with engine.connect() as connection:
            gone = sqlalchemy.text("SELECT lifecycle_stage, name FROM logged_models ORDER BY name")
            assert list(connection.execute(gone)) == [("active", "lm"), ("deleted", "lm-gone")]


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
