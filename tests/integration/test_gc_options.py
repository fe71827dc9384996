"""What `gc` can be asked for beyond the usual: kinds, limits, workspaces, orphans, metrics."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Postgres
from tests.support.forks import serve
from tests.support.gc_place import EXPERIMENTS, GONE_RUNS, MODELS, RUNS, Yard
from tests.support.mariadb import MARIADB
from tests.support.places import Place, snapshot
from tests.support.programs import (
    DESTINATION,
    STORE,
    Answer,
    Server,
    clean_environment,
    http,
)
from tests.support.terminal import run_on_terminal

API = "/api/2.0/mlflow"
DAY_MS = 86_400_000
ALL = pytest.mark.parametrize("yard", ["sqlite", "postgresql", MARIADB], indirect=True)
pytestmark = pytest.mark.xdist_group("gc-options")


# --- Kinds -------------------------------------------------------------------------------------


def _add_jobs(yard: Yard) -> None:
    now = int(time.time() * 1000)
    for name, status, age_days in (
        ("old-done", 2, 60),
        ("old-failed", 3, 60),
        ("old-running", 1, 60),
        ("new-done", 2, 1),
    ):
        yard.query(
            "INSERT INTO jobs (id, creation_time, job_name, params, status, retry_count, "
            "last_update_time) VALUES (:id, :at, 'j', '{}', :status, 0, :at)",
            id=name,
            status=status,
            at=now - age_days * DAY_MS,
        )
    yard.query("INSERT INTO job_locks VALUES ('lock', 'old-done', 0)")


@ALL
def test_jobs_go_when_asked_for(yard: Yard) -> None:
    _add_jobs(yard)
    yard.report()
    assert len(yard.query("SELECT id FROM jobs")) == 4
    report = yard.report("--jobs")
    assert report["purged"] == {"job": 2}
    assert yard.query("SELECT id FROM jobs ORDER BY id") == ["new-done", "old-running"]
    assert yard.query("SELECT COUNT(*) FROM job_locks") == [0]


def test_named_jobs_are_exactly_these(yard: Yard) -> None:
    _add_jobs(yard)
    assert yard.report("--job-ids", "old-failed,new-done")["purged"] == {"job": 1}
    assert yard.query("SELECT id FROM jobs ORDER BY id") == ["new-done", "old-done", "old-running"]
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)
    for job, words in (("nothing", "there is no job"), ("old-running", "has not ended")):
        ended = yard.gc("--job-ids", job)
        assert (ended.returncode, words in ended.stderr) == (2, True)


@ALL
def test_deleted_versions_go_but_for_the_last(yard: Yard) -> None:
    stage = "Deleted_Internal"
    yard.query("UPDATE model_versions SET last_updated_time = 1 WHERE current_stage = :s", s=stage)
    yard.query('INSERT INTO model_version_tags (workspace, name, version, "key", value) '
               "VALUES ('default', 'registered', 3, 'k', 'v')")  # fmt: skip
    first = yard.report("--deleted-versions", "--dry-run")
    versions = next(item for item in first["items"] if item["name"] == "model_version")
    assert versions["facts"] == {"going": 0, "staying": {"last_version": 1}}
    yard.query("INSERT INTO model_versions (workspace, name, version, current_stage, source) "
               "VALUES ('default', 'registered', 4, 'None', 's3://else/where')")  # fmt: skip
    assert yard.report("--deleted-versions")["purged"]["model_version"] == 1
    assert yard.query("SELECT version FROM model_versions ORDER BY version") == [1, 2, 4]
    assert yard.query("SELECT COUNT(*) FROM model_version_tags WHERE version = 3") == [0]
    yard.check_collected()


# --- Limits ------------------------------------------------------------------------------------


@ALL
def test_max_runs_leaves_the_rest_for_the_next_run(yard: Yard) -> None:
    first = yard.report("--max-runs", "1")
    assert (first["stopped_by"], first["purged"]["experiment"]) == ("--max-runs", 1)
    assert first["purged"]["run"] == 2, "an experiment goes whole"
    second = yard.report("--max-runs", "1")
    assert (second["stopped_by"], second["purged"]["run"]) == ("--max-runs", 1)
    assert yard.report()["stopped_by"] is None
    yard.check_collected()


def test_max_seconds_begins_nothing_once_time_is_up(yard: Yard) -> None:
    report = yard.report("--max-seconds", "0.000001")
    assert (report["stopped_by"], report["purged"]) == ("--max-seconds", {})
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)
    yard.report("--max-seconds", "600")
    yard.check_collected()


@pytest.mark.parametrize("option", ["--max-runs", "--max-seconds"])
@pytest.mark.parametrize("value", ["0", "-1", "some", ""])
def test_a_limit_is_a_number_above_nought(yard: Yard, option: str, value: str) -> None:
    before = snapshot(yard.place.root)
    assert yard.gc(option, value).returncode == 2
    assert snapshot(yard.place.root) == before


def test_offline_ends_the_same(yard: Yard) -> None:
    yard.report("--offline")
    yard.check_collected()


# --- Reports -----------------------------------------------------------------------------------


def test_a_dry_run_tells_the_bytes(yard: Yard) -> None:
    planned = yard.report("--dry-run")["would_free"]
    by_experiment = planned.pop("bytes_by_experiment")
    assert planned == yard.report()["freed"]
    assert sum(by_experiment.values()) == planned["bytes"] > 0


def test_metrics_are_written_for_prometheus(yard: Yard) -> None:
    path = yard.place.root / "gc.prom"
    yard.report("--metrics-file", str(path))
    text = path.read_text()
    assert 'mlflow_server_gc_purged{kind="run"} 4.0' in text
    assert 'mlflow_server_gc_kept{kind="run",reason="younger"} 1.0' in text
    assert "mlflow_server_gc_last_exit_code 0.0" in text
    ended = yard.gc("--metrics-file", str(path), **{STORE: "sqlite:////nowhere/at/all.db"})
    assert ended.returncode == 69
    assert "mlflow_server_gc_last_exit_code 0.0" in path.read_text(), "refused before it began"
    yard.artifacts.rename(yard.place.root / "unmounted")
    yard.query("UPDATE runs SET deleted_time = 1 WHERE run_uuid = :id", id=yard.ids["unknown"])
    assert yard.gc("--metrics-file", str(path)).returncode == 69
    assert "mlflow_server_gc_last_exit_code 69.0" in path.read_text()
    assert yard.gc("--metrics-file", str(path / "in" / "it")).returncode == 2


def test_a_variable_that_lets_more_go_is_told(yard: Yard) -> None:
    ended = yard.gc("--dry-run", TRACKING_SERVER_INCLUDE_REFERENCED="true")
    assert "TRACKING_SERVER_INCLUDE_REFERENCED is set" in ended.stdout
    assert "is set" not in yard.gc("--dry-run", "--include-referenced").stdout


def test_a_database_whose_clock_is_off_is_told() -> None:
    from mlflow_server.cli.gc_report import plan_report
    from mlflow_server.cli.shared import Context
    from mlflow_server.gc.plan import Plan
    from mlflow_server.gc.request import Request

    for skew, words in ((-90.0, "90 s behind"), (61.0, "61 s ahead of"), (5.0, "")):
        plan = Plan(0, 0, clock_skew_s=skew)
        warnings = " ".join(plan_report(Context(), Request(0), plan, []).warnings)
        assert (words in warnings) and bool(warnings) == bool(words)


# --- Traces, and what is left of an experiment -------------------------------------------------


@ALL
def test_traces_go_with_their_files_and_so_do_empty_folders(yard: Yard) -> None:
    experiment, trace = yard.ids["gone"], f"tr-{uuid.uuid4().hex}"
    archive = yard.place.root / "archive" / trace / "artifacts"
    own = yard.artifacts / experiment / "traces" / trace / "artifacts"
    for folder in (archive, own):
        folder.mkdir(parents=True)
        (folder / "traces.json").write_text("{}")
    yard.query(
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) "
        "VALUES (:trace, :experiment, 1, 'OK')",
        trace=trace,
        experiment=int(experiment),
    )
    for key, value in (
        ("mlflow.artifactLocation", f"mlflow-artifacts:/{experiment}/traces/{trace}/artifacts"),
        ("mlflow.trace.archiveLocation", str(archive)),
    ):
        insert = 'INSERT INTO trace_tags ("key", value, request_id) VALUES (:key, :value, :trace)'
        yard.query(insert, key=key, value=value, trace=trace)
    assert yard.report()["purged"]["trace"] == 1
    assert not archive.parent.exists()
    assert not (yard.artifacts / experiment).exists()
    assert (yard.place.root / "archive").is_dir(), "a folder that is nobody's stays"
    assert yard.query("SELECT COUNT(*) FROM trace_tags") == [0]
    yard.check_collected()


# --- A destination that nobody named -----------------------------------------------------------


def test_a_default_destination_is_no_answer(yard: Yard) -> None:
    """The server's may be another: what is at the default here would be taken for gone."""
    before = snapshot(yard.place.root)
    ended = yard.place.run("gc", environment={STORE: yard.uri, DESTINATION: ""})
    assert ended.returncode == 78
    assert "MLFLOW_ARTIFACTS_DESTINATION: is not set" in ended.stderr
    after = snapshot(yard.place.root)
    after.pop("project/store.sqlite.lock", None)
    assert after == before


def test_a_default_destination_does_not_matter_when_nothing_is_there(yard: Yard) -> None:
    """All locations are paths: they say by themselves where they are."""
    for table, column in (
        ("runs", "artifact_uri"),
        ("experiments", "artifact_location"),
        ("logged_models", "artifact_location"),
    ):
        yard.query(
            f"UPDATE {table} SET {column} = REPLACE({column}, 'mlflow-artifacts:/', :root)",  # noqa: S608
            root=f"{yard.artifacts}/",
        )
    yard.place.run("gc", environment={STORE: yard.uri, DESTINATION: ""})
    yard.check_collected()


# --- Orphans -----------------------------------------------------------------------------------


@pytest.fixture
def orphans(yard: Yard) -> dict[str, Path]:
    """Folders in MLflow's layout that no row knows, and some that are no business of gc's."""
    run, model, trace = uuid.uuid4().hex, f"m-{uuid.uuid4().hex}", f"tr-{uuid.uuid4().hex}"
    folders = {
        "run": yard.artifacts / "4711" / run,
        "model": yard.artifacts / yard.ids["stays"] / "models" / model,
        "trace": yard.artifacts / yard.ids["stays"] / "traces" / trace,
        "workspace": yard.artifacts / "workspaces" / "team" / "5" / uuid.uuid4().hex,
        "young": yard.artifacts / "4711" / uuid.uuid4().hex,
        "other": yard.artifacts / "4711" / "backup",
        "elsewhere": yard.artifacts / "notes" / uuid.uuid4().hex,
    }
    old = time.time() - 2 * 86_400
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / "file").write_text("12345")
        if name != "young":
            for path in (folder / "file", folder):
                os.utime(path, (old, old))
    return folders


ORPHANS = {"run", "model", "trace", "workspace"}


def test_orphans_are_listed_and_nothing_changes(yard: Yard, orphans: dict[str, Path]) -> None:
    before = snapshot(yard.place.root)
    report = yard.report("--orphans")
    assert snapshot(yard.place.root) == before
    found = {item["name"].removeprefix("orphan:") for item in report["items"]}
    assert found == {str(orphans[name].relative_to(yard.artifacts)) for name in ORPHANS}
    assert (report["orphans"], report["younger"], report["bytes"]) == (4, 1, 20)
    assert report["known"] == len(RUNS | MODELS)
    assert yard.report("--orphans", "--orphan-grace", "72h")["orphans"] == 0
    assert yard.report("--orphans=delete", "--dry-run")["orphans"] == 4
    assert snapshot(yard.place.root) == before


def test_orphans_are_deleted_only_when_confirmed(yard: Yard, orphans: dict[str, Path]) -> None:
    before = snapshot(yard.place.root)
    ended = yard.gc("--orphans=delete")
    assert (ended.returncode, "--yes" in ended.stderr) == (2, True)
    assert snapshot(yard.place.root) == before
    report = yard.report("--orphans=delete", "--yes")
    assert (report["deleted"], report["orphans"]) == (True, 4)
    assert {name for name, path in orphans.items() if not path.exists()} == ORPHANS
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)
    assert yard.with_files() == RUNS | MODELS


def test_another_servers_destination_is_not_taken_for_orphans(yard: Yard) -> None:
    """Every folder there is unknown to this store: most likely it is the wrong destination."""
    for table in ("runs", "logged_models"):
        column = "run_uuid" if table == "runs" else "model_id"
        for entity in yard.query(f"SELECT {column} FROM {table}"):  # noqa: S608
            for folder in yard.artifacts.rglob(entity):
                name = ("m-" if table == "logged_models" else "") + uuid.uuid4().hex
                folder.rename(folder.with_name(name))
    before = snapshot(yard.artifacts)
    ended = yard.gc("--orphans=delete", "--yes", "--orphan-grace", "0s")
    assert ended.returncode == 78
    assert "another server" in ended.stderr
    assert snapshot(yard.artifacts) == before


# --- Workspaces --------------------------------------------------------------------------------

ON = {"MLFLOW_ENABLE_WORKSPACES": "true"}


@pytest.fixture(params=["sqlite", "postgresql"])
def team(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Place, Server, dict[str, str]]]:
    """A server with two workspaces, in each a deleted experiment with a run that has a file."""
    place = Place.make(tmp_path / "place")
    uri = f"sqlite:///{place.store}"
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        uri = postgres.new_database()
    environment = {STORE: uri, DESTINATION: str(place.root / "artifacts"), **ON}
    with serve(place.root / "server", environment=environment) as server:
        assert _call(server, "/api/3.0/mlflow/workspaces", {"name": "team"}).status == 201
        for workspace in ("team", "default"):
            body: dict[str, Any] = {"name": "gone"}
            made = _call(server, f"{API}/experiments/create", body, workspace).json()
            experiment = made["experiment_id"]
            made = _call(
                server, f"{API}/runs/create", {"experiment_id": experiment}, workspace
            ).json()
            info = made["run"]["info"]  # type: ignore[index]
            path = str(info["artifact_uri"]).removeprefix("mlflow-artifacts:/")
            url = f"{server.url}{API}-artifacts/artifacts/{path}/file"
            headers = {"X-MLFLOW-WORKSPACE": workspace}
            assert http(url, method="PUT", body=b"12345", headers=headers).status == 200
            _call(server, f"{API}/experiments/delete", {"experiment_id": experiment}, workspace)
        yield place, server, environment


def _call(server: Server, path: str, body: dict[str, Any], workspace: str = "default") -> Answer:
    headers = {"Content-Type": "application/json", "X-MLFLOW-WORKSPACE": workspace}
    url = f"{server.url}{path}"
    return http(url, method="POST", body=json.dumps(body).encode(), headers=headers)


def test_a_workspace_is_collected_by_itself(
    team: tuple[Place, Server, dict[str, str]],
) -> None:
    place, server, environment = team
    artifacts = place.root / "artifacts"

    def gc(*options: str, **more: str) -> Any:
        ended = place.run(
            "gc", "--json", "--older-than", "0s", *options, environment={**environment, **more}
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)["purged"]

    def workspaces() -> set[str]:
        return {path.relative_to(artifacts).parts[1] for path in artifacts.rglob("file")}

    assert workspaces() == {"team", "default"}
    assert gc("--workspace", "team") == {"run": 1, "experiment": 1}
    assert workspaces() == {"default"}
    assert gc("--workspace", "team") == {}
    assert gc(MLFLOW_WORKSPACE="team") == {}
    assert gc() == {"run": 1, "experiment": 1}, "without a name it is the default workspace"
    assert workspaces() == set()
    for workspace in ("team", "default"):
        answer = _call(server, f"{API}/experiments/create", {"name": "gone"}, workspace)
        assert answer.status == 200, "the name is free again"


def test_all_workspaces_at_once(team: tuple[Place, Server, dict[str, str]]) -> None:
    place, _, environment = team
    ended = place.run("gc", "--all-workspaces", "--older-than", "0s", environment=environment)
    assert ended.returncode == 0, ended.stderr
    assert list((place.root / "artifacts").rglob("file")) == []


def test_a_workspace_needs_a_server_that_has_them(yard: Yard) -> None:
    before = snapshot(yard.place.root)
    for options in (("--workspace", "team"), ("--all-workspaces",)):
        ended = yard.gc(*options)
        assert (ended.returncode, "MLFLOW_ENABLE_WORKSPACES" in ended.stderr) == (2, True)
    ended = yard.gc("--workspace", "teem", **ON)
    assert (ended.returncode, "no workspace 'teem'" in ended.stderr) == (2, True)
    ended = yard.gc("--run-ids", yard.ids["old"], "--workspace", "team", **ON)
    assert ended.returncode == 2
    assert snapshot(yard.place.root) == before
    assert yard.left()[0] & GONE_RUNS == GONE_RUNS


# --- Progress ----------------------------------------------------------------------------------


def test_bars_on_a_terminal_and_none_for_a_machine(yard: Yard) -> None:
    command = [sys.executable, "-m", "mlflow_server", "gc"]
    environment = clean_environment(**yard.environment, TERM="xterm")
    run = partial(run_on_terminal, cwd=yard.place.project, environment=environment)
    code, shown = run([*command, "--dry-run", "--json"])
    assert (code, json.loads(shown)["dry_run"]) == (0, True)
    code, shown = run(command)
    assert code == 0, shown
    bars, cleared, report = shown.rpartition("\x1b[2K")
    assert all(re.search(rf"{name} .*7/7", bars) for name in ("rows", "files")), shown
    assert cleared, "the bars go and the report stays"
    assert report.startswith("Deleted more than 30d ago")
