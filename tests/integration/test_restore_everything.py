"""A store with everything in it goes from database to database and comes back the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.everything_place import (
    BACKUPS,
    Copy,
    Everything,
    assert_goes_on,
    assert_same,
    assert_sound,
    command,
    dump_of,
    empty_store,
    make_everything,
    post,
    rows_of,
    serving,
)
from tests.support.places import snapshot

pytestmark = pytest.mark.xdist_group("restore-everything")

Move: TypeAlias = Callable[[Everything, "Copy | Everything", Copy, Path], None]


@pytest.fixture
def back(tmp_path: Path) -> Copy:
    """An empty store on SQLite."""
    return Copy(f"sqlite:///{tmp_path}/back/store.db", str(tmp_path / "artifacts back"))


def file_of(store: Copy) -> Path:
    return Path(store.uri.removeprefix("sqlite:///"))


def restored(everything: Everything, source: Copy | Everything, target: Copy, at: Path) -> None:
    """Move a store by an archive."""
    place = everything.place
    made = command(place, "backup", "create", environment={**source.environment, BACKUPS: str(at)})
    assert not [item for item in made["items"] if item["status"] != "ok"]
    command(
        place,
        *("restore", made["backup"], f"--artifact-map={everything.own}={everything.own}"),
        environment={**target.environment, BACKUPS: str(at)},
    )


def migrated(everything: Everything, source: Copy | Everything, target: Copy, at: Path) -> None:
    """Move a store directly."""
    command(
        everything.place,
        *("migrate", "--to-backend-store-uri", target.uri),
        *("--to-artifacts-destination", target.destination),
        environment=source.environment,
    )


@pytest.mark.parametrize(
    ("kind", "forth", "home"),
    [
        ("postgresql", restored, migrated),
        ("postgresql", migrated, restored),
        ("mariadb", restored, migrated),
    ],
)
def test_comes_back_the_same(
    kind: str,
    forth: Move,
    home: Move,
    everything: Everything,
    back: Copy,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    there = empty_store(kind, request, tmp_path)
    before = rows_of(everything.place.store)
    artifacts = snapshot(everything.artifacts)
    forth(everything, everything, there, tmp_path / "backups")
    with serving(there, tmp_path / "server there") as server:
        assert_same(everything.dump, dump_of(server))
        home(everything, there, back, tmp_path / "backups back")
        assert_goes_on(server)
    assert_sound(file_of(back))
    after = rows_of(file_of(back))
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
    with serving(back, tmp_path / "server back") as server:
        assert_same(everything.dump, dump_of(server))
        assert_goes_on(server)
        version = {"name": "churn", "source": "s3://b/c"}
        made: Any = post(server, "model-versions/create", version)["model_version"]
        assert made["version"] == "8"
    assert snapshot(everything.artifacts) == artifacts
    assert rows_of(everything.place.store) == before


def test_workspaces_come_back(back: Copy, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Things of one name in several of them stay apart."""
    names = "default,team-a,team-b"
    source = make_everything(tmp_path / "source", workspaces=names)
    there = empty_store("postgresql", request, tmp_path)
    migrated(source, source, there, tmp_path)
    with serving(there, tmp_path / "server there", names) as server:
        assert_same(source.dump, dump_of(server, names))
    restored(source, there, back, tmp_path / "backups")
    assert_sound(file_of(back))
    assert rows_of(file_of(back)) == rows_of(source.place.store)
