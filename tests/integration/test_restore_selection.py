"""Part of a backup is restored: what is named, and what belongs to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_dump import Dumper
from tests.support.everything_place import (
    BACKUPS,
    Copy,
    Everything,
    assert_goes_on,
    assert_sound,
    command,
    rows_of,
    serving,
)

pytestmark = pytest.mark.xdist_group("restore-everything")


@pytest.fixture(scope="module")
def backups(everything: Everything, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with one backup."""
    at = tmp_path_factory.mktemp("backups")
    environment = {**everything.environment, BACKUPS: str(at)}
    command(everything.place, "backup", "create", environment=environment)
    return at


@pytest.fixture
def target(tmp_path: Path) -> Copy:
    """An empty store."""
    return Copy(f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts"))


def line_of(everything: Everything, target: Copy, *options: str) -> tuple[str, ...]:
    own = f"--artifact-map={everything.own}={target.destination}/own"
    return ("restore", "latest", own, *options)


def restore(everything: Everything, backups: Path, target: Copy, *options: str) -> dict[str, Any]:
    environment = {**target.environment, BACKUPS: str(backups)}
    line = line_of(everything, target, *options)
    return command(everything.place, *line, environment=environment)


def names(target: Copy, table: str, column: str = "name") -> set[str]:
    """What a column of the store has."""
    with closing(sqlite3.connect(target.uri.removeprefix("sqlite:///"))) as connection:
        query = f"SELECT {column} FROM {table}"  # noqa: S608
        return {str(row[0]) for row in connection.execute(query)}


def files(target: Copy) -> set[str]:
    """The names of all artifacts."""
    return {path.name for path in Path(target.destination).rglob("*") if path.is_file()}


def assert_whole(target: Copy, folder: Path) -> None:
    """Rows refer to what is there, and a server answers."""
    assert_sound(Path(target.uri.removeprefix("sqlite:///")))
    with serving(target, folder / "server") as server:
        found = Dumper(server.url, wants_files=False).dump()
        assert_goes_on(server)
    models = set(found["logged_models"])
    for run in found["runs"].values():
        for kind, key in (("inputs", "model_inputs"), ("outputs", "model_outputs")):
            for named in run["run"].get(kind, {}).get(key, []):
                assert named["model_id"] in models
    for dataset in found["datasets"].values():
        assert set(dataset["experiments"]["experiment_ids"]) <= set(found["experiments"])


def test_one_experiment(
    everything: Everything, backups: Path, target: Copy, tmp_path: Path
) -> None:
    line = line_of(everything, target, "--experiments=elsewhere", "--dry-run")
    environment = {**target.environment, BACKUPS: str(backups)}
    planned = command(everything.place, *line, environment=environment)
    assert list(tmp_path.iterdir()) == []
    done = restore(everything, backups, target, "--experiments=elsewhere")
    assert planned["items"][0]["facts"]["rows"] == done["items"][0]["facts"]["tables"]
    assert planned["items"][1]["facts"] == done["items"][1]["facts"]
    assert names(target, "experiments") == {"Default", "elsewhere"}
    assert names(target, "runs") == {"own"}
    assert names(target, "logged_models") == {"failed"}
    assert names(target, "evaluation_datasets") == {"golden"}
    for table in ("registered_models", "model_versions", "webhooks", "secrets"):
        assert names(target, table, "*") == set(), table
    assert names(target, "trace_info", "request_id") == set()
    assert files(target) == {"x.bin", "same-1.bin"}
    assert names(target, "runs", "artifact_uri").pop().startswith(f"{target.destination}/own/")
    assert_whole(target, tmp_path)


def test_a_registered_model_with_what_its_versions_are_from(
    everything: Everything, backups: Path, target: Copy, tmp_path: Path
) -> None:
    restore(everything, backups, target, "--registered-models=churn")
    assert names(target, "registered_models") == {"churn"}
    assert names(target, "model_versions", "version") == {"1", "2", "3", "4", "5", "6", "7"}
    assert names(target, "registered_model_aliases", "alias") == {"champion", "größe", "old"}
    assert names(target, "runs") == {"parent", "deleted"}, "versions are from these two"
    assert names(target, "logged_models") == {"lm"}
    assert names(target, "experiments") == {"Default", "everything"}
    assert names(target, "trace_info", "request_id") == set()
    found = files(target)
    assert {"plain.txt", "日本語.txt", "large.bin", "everything.py", "a.txt"} <= found
    assert "x.bin" not in found, "of a run that nobody named"
    assert_whole(target, tmp_path)


def test_both_together(everything: Everything, backups: Path, target: Copy) -> None:
    options = ("--experiments=elsewhere,everything", "--registered-models=copy,greeting")
    restore(everything, backups, target, *options)
    assert names(target, "experiments") == {"Default", "elsewhere", "everything"}
    assert names(target, "registered_models") == {"copy", "greeting"}
    assert {"parent", "child", "grandchild", "deleted", "own"} == names(target, "runs")
    assert len(names(target, "trace_info", "request_id")) == 3
    assert len(names(target, "assessments", "assessment_id")) == 6
    assert len(names(target, "spans", "span_id")) == 6
    assert names(target, "scorers", "scorer_name") == {"length"}
    assert_sound(Path(target.uri.removeprefix("sqlite:///")))


def test_everything_named_is_everything_of_those(
    everything: Everything, backups: Path, target: Copy
) -> None:
    """Of the tables that hang on experiments nothing is missing."""
    restore(everything, backups, target, "--experiments=0,1,2,3,4")
    before = rows_of(everything.place.store)
    after = rows_of(Path(target.uri.removeprefix("sqlite:///")))
    gone = {name for name in before if len(before[name]) != len(after[name])}
    assert gone == {
        "registered_models", "registered_model_tags", "registered_model_aliases",
        "model_versions", "model_version_tags", "webhooks", "webhook_events", "secrets",
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [("--experiments=elsewhere,nobody",), ("--registered-models=nobody",), ("--experiments=,",)],
)
def test_unknown_names_change_nothing(
    options: tuple[str, ...], everything: Everything, backups: Path, target: Copy, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    ended = everything.place.run(
        "restore", "latest", *options, environment={**target.environment, BACKUPS: str(backups)}
    )
    assert ended.returncode == 2, ended.stderr
    assert "nobody" in ended.stderr or "empty" in ended.stderr
    assert sorted(tmp_path.iterdir()) == before
