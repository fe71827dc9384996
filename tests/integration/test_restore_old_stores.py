"""Stores that older releases of MLflow wrote: backed up as they are, restored at this release."""

from __future__ import annotations

import shutil
from pathlib import Path

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
from tests.support.old_stores import RELEASES, check
from tests.support.places import Place
from tests.support.stores import open_store

pytestmark = pytest.mark.xdist_group("restore-old-stores")


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
    revision = RELEASES[release].revision
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
    check(RELEASES[release], found, engine)
