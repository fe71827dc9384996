"""`migrate`: into another database, from files into a database; refusals, interruptions."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support import forks
from tests.support.api_dump import Dumper
from tests.support.direct import Direct, files_of, locations, make_direct
from tests.support.everything_place import (
    Copy,
    Everything,
    assert_goes_on,
    assert_sound,
    command,
    empty_store,
    rows_of,
    run_program,
    serving,
)
from tests.support.places import Place, snapshot
from tests.support.programs import clean_environment
from tests.support.stores import make_head_store

pytestmark = pytest.mark.xdist_group("restore-artifacts")

# Runs `migrate`, and kills it at the Nth call of a function.
KILLED = """
import importlib, itertools, os, signal, sys
module, name, when = sys.argv[1:4]
holder = importlib.import_module(module)
if ":" in name:
    holder, name = getattr(holder, name.partition(":")[0]), name.partition(":")[2]
original, calls = getattr(holder, name), itertools.count(1)

def fault(*args, **kwargs):
    if next(calls) == int(when):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(holder, name, fault)
from mlflow_server.cli.main import main
main(sys.argv[4:])
"""


@pytest.fixture(scope="module")
def direct(everything: Everything, tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """A store with the destination in its rows."""
    return make_direct(everything, tmp_path_factory.mktemp("direct"))


@pytest.fixture(scope="module")
def mlruns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MLflow's file store."""
    folder = tmp_path_factory.mktemp("files") / "mlruns"
    run_program("file_store.py", str(folder), MLFLOW_ALLOW_FILE_STORE="true")
    return folder


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_file_store(
    kind: str, mlruns: Path, place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before = snapshot(mlruns)
    target = empty_store(kind, request, tmp_path)
    report = command(
        place,
        *("migrate", f"--file-store={mlruns}", f"--to-backend-store-uri={target.uri}"),
        f"--to-artifacts-destination={target.destination}",
        environment={},
    )
    assert not [item for item in report["items"] if item["status"] != "ok"]
    assert snapshot(mlruns) == before
    with serving(target, tmp_path / "server") as server:
        found = Dumper(server.url, wants_files=False).dump()
        assert_goes_on(server)
    experiments = {each["name"]: each for each in found["experiments"].values()}
    new = report["items"][0]["facts"]["renumbered"]
    if kind == "sqlite":
        assert new == {}
    else:
        # MLflow gave them 18 digits, the column has 32 bits.
        assert sorted(new.values()) == ["1", "2"]
        assert [experiments[name]["experiment_id"] for name in ("größe", "gone")] == ["1", "2"]
    assert {name: each["lifecycle_stage"] for name, each in experiments.items()} == {
        "Default": "active",
        "größe": "active",
        "gone": "deleted",
    }
    runs = {run["run"]["info"]["run_name"]: run for run in found["runs"].values()}
    assert set(runs) == {"run", "deleted", "of gone"}
    odd = {point["step"]: point["value"] for point in runs["run"]["metrics"]["odd"]}
    assert str(odd[0]).lower() == "nan"
    assert float(odd[-3]) > 1e308
    assert len(runs["run"]["metrics"]["loss"]) == 5
    folder = Path(target.destination)
    for name, path in (("run", "folder/größe.txt"), ("deleted", "a.txt")):
        location = runs[name]["run"]["info"]["artifact_uri"].removeprefix("file://")
        assert Path(location).is_relative_to(folder)
        assert (Path(location) / path).is_file()
    model = found["registered_models"]["model"]
    assert model["model"]["registered_model"]["aliases"] == [{"alias": "best", "version": "1"}]


def test_says_which_settings_to_change_and_a_plan_changes_nothing(
    direct: Direct, tmp_path: Path
) -> None:
    target = Copy(f"sqlite:///{tmp_path}/new/store.db", str(tmp_path / "artifacts"))
    line = ("migrate", f"--to-backend-store-uri={target.uri}")
    line = (*line, f"--to-artifacts-destination={target.destination}")
    before = snapshot(direct.place.project)
    planned = direct.place.run(*line, "--dry-run", environment=direct.copy.environment)
    assert planned.returncode == 0, planned.stderr
    assert "Nothing was changed." in planned.stdout
    assert list(tmp_path.iterdir()) == []
    assert snapshot(direct.place.project) == before
    done = direct.place.run(*line, environment=direct.copy.environment)
    assert done.returncode == 0, done.stderr
    assert f"MLFLOW_BACKEND_STORE_URI={target.uri}" in done.stdout
    assert f"MLFLOW_ARTIFACTS_DESTINATION={target.destination}" in done.stdout


def test_refusals_change_nothing(everything: Everything, tmp_path: Path) -> None:
    place, environment = everything.place, everything.environment
    full = tmp_path / "full.db"
    make_head_store(f"sqlite:///{full}")
    link = tmp_path / "link.db"
    link.symlink_to(place.store)
    before = snapshot(tmp_path), snapshot(everything.artifacts), rows_of(place.store)
    for target, code, words in (
        (f"sqlite:///{full}", 1, "not empty"),
        (everything.uri, 2, "same database"),
        (f"sqlite:///{link}", 2, "same database"),
        ("mssql+pyodbc://u:p@127.0.0.1:1/x", 78, "mssql"),
        ("nonsense", 2, "--to-backend-store-uri"),
    ):
        ended = place.run("migrate", "--to-backend-store-uri", target, environment=environment)
        assert (ended.returncode, words in ended.stderr) == (code, True), ended.stderr
    ended = place.run("migrate", environment=environment)
    assert (ended.returncode, "--to-backend-store-uri" in ended.stderr) == (78, True)
    used = tmp_path / "used"
    used.mkdir()
    (used / "somebody's").touch()
    ended = place.run(
        *("migrate", f"--to-backend-store-uri=sqlite:///{tmp_path}/new.db"),
        f"--to-artifacts-destination={used}",
        environment=environment,
    )
    assert (ended.returncode, "not empty" in ended.stderr) == (1, True), ended.stderr
    (used / "somebody's").unlink()
    used.rmdir()
    assert not (tmp_path / "new.db").exists()
    (tmp_path / "new.db.lock").unlink(missing_ok=True)
    after = snapshot(tmp_path), snapshot(everything.artifacts), rows_of(place.store)
    assert after == before


@pytest.mark.parametrize(
    ("module", "function", "when", "kind"),
    [
        ("mlflow_server.backup.copying", "_copy", 5, "postgresql"),
        ("mlflow_server.store.bulk", "BulkWriter:write", 7, "sqlite"),
        ("mlflow_server.store.bulk", "BulkWriter:write", 7, "postgresql"),
    ],
)
def test_the_same_command_goes_on_after_a_kill(
    module: str,
    function: str,
    when: int,
    kind: str,
    direct: Direct,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    target = empty_store(kind, request, tmp_path)
    line = ("migrate", f"--to-backend-store-uri={target.uri}")
    line = (*line, f"--to-artifacts-destination={target.destination}")
    killed = forks.run(
        [sys.executable, "-c", KILLED, module, function, str(when), *line],
        env=clean_environment(**direct.copy.environment),
        cwd=direct.place.project,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    report = command(direct.place, *line, environment=direct.copy.environment)
    assert report["resumed"] is True
    assert files_of(Path(target.destination)) == files_of(direct.artifacts)
    back = tmp_path / "back.db"
    command(
        direct.place,
        *("migrate", f"--to-backend-store-uri=sqlite:///{back}"),
        environment=target.environment,
    )
    assert_sound(back)
    rows, before = rows_of(back), rows_of(direct.place.store)
    assert {name: len(found) for name, found in rows.items()} == {
        name: len(found) for name, found in before.items()
    }
    assert locations(back) == sorted(
        row.replace(str(direct.artifacts), target.destination)
        for row in locations(direct.place.store)
    )
