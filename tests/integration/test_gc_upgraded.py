"""`gc` on stores that older releases of MLflow wrote and this one's migrations brought to head."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DATA
from tests.support.forks import serve
from tests.support.gc_place import Yard
from tests.support.places import Place
from tests.support.programs import clean_environment, http

VERSIONS = ("2.3.2", "2.9.2", "2.22.1", "3.1.4")
API = "/api/2.0/mlflow"


@pytest.fixture(params=VERSIONS)
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> Yard:
    """Such a store; its artifacts are long gone, as their volume is not here."""
    place = Place.make(tmp_path / "place")
    shutil.copy(DATA / "old-stores" / f"mlflow-{request.param}.db", place.store)
    place.store.chmod(0o600)
    uri = f"sqlite:///{place.store}"
    subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", uri],
        env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
        check=True,
        capture_output=True,
        timeout=120,
    )
    artifacts = place.root / "artifacts"
    artifacts.mkdir()
    return Yard(place, uri, artifacts, {})


def test_what_should_go_goes_and_the_api_answers_for_the_rest(upgraded: Yard) -> None:
    names = "SELECT name FROM runs ORDER BY name"
    assert upgraded.query(names) == [f"run-{number}" for number in range(6)]
    report = upgraded.report("--older-than", "0s")
    assert report["purged"]["experiment"] == 1
    assert report["purged"]["run"] == 2
    facts = {item["name"]: item["facts"] for item in report["items"]}
    assert facts["run"]["staying"] == {"referenced": 1}, "version 2 was made from a deleted run"
    assert upgraded.query(names) == ["run-0", "run-1", "run-3", "run-4"]
    assert upgraded.query("SELECT COUNT(*) FROM experiments WHERE name = 'gone'") == [0]
    assert upgraded.query("SELECT COUNT(*) FROM logged_models WHERE name = 'lm-gone'") == [0]
    assert upgraded.query("PRAGMA foreign_key_check") == []
    with serve(upgraded.place.root / "server", environment=upgraded.environment) as server:
        for run in upgraded.query("SELECT run_uuid FROM runs"):
            assert http(f"{server.url}{API}/runs/get?run_id={run}").status == 200
        body = json.dumps({"name": "gone"}).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{server.url}{API}/experiments/create"
        assert http(url, method="POST", body=body, headers=headers).status == 200
