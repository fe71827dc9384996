"""Stores that older MLflow releases wrote: refused without a byte changed, never migrated.

`data/old-stores/README.md` says what is in them. Constructing any MLflow store migrates an old
database silently (`tests/data/old-stores`, MLflow 3.17.2), so a refusal must come before.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from tests.conftest import DATA, GOLDEN, Postgres
from tests.support.places import Place, snapshot
from tests.support.programs import free_port
from tests.support.refusals import refusal
from tests.support.stores import execute, locked, make_head_store

# File -> revision, and how many revisions MLflow 3.17.2 is ahead.
STORES = {
    "mlflow-2.3.2.db": ("3500859a5d39", 47),
    "mlflow-2.9.2.db": ("acf3f17fdcc7", 44),
    "mlflow-2.22.1.db": ("0584bdc529eb", 39),
    "mlflow-3.1.4.db": ("bda7b8c39065", 36),
}
HEAD = "dc11669786a5"
every_store = pytest.mark.parametrize("name", STORES)


def _copy(name: str, place: Place) -> Path:
    shutil.copyfile(DATA / "old-stores" / name, place.store)
    return place.store


def _doctor(place: Place) -> dict[str, object]:
    """The item about the schema, after checks of the whole report; nothing may have changed."""
    before = snapshot(place.root)
    port = str(free_port())
    ended = place.run("doctor", "--json", environment={"MLFLOW_PORT": port})
    assert snapshot(place.root) == before
    report = json.loads(ended.stdout)
    assert ended.returncode == report["exit_code"] == 3
    item: dict[str, object] = next(entry for entry in report["items"] if entry["name"] == "schema")
    assert item["status"] == "failed"
    return item


def _check_refused(place: Place, name: str, *, uri: str | None = None) -> None:
    revision, behind = STORES[name]
    environment = {"MLFLOW_BACKEND_STORE_URI": uri} if uri else {}
    found = refusal(place, environment=environment)
    assert found.code == 4
    assert len(found.errors) == 1
    assert revision in found.errors[0]
    assert str(behind) in found.errors[0]
    assert HEAD in found.errors[0]
    assert "mlflow-server upgrade" in found.hints[0]


def test_all_golden_stores_are_here() -> None:
    assert {path.name for path in (DATA / "old-stores").glob("*.db")} == set(STORES)
    if not GOLDEN.is_dir():
        pytest.skip("the golden stores themselves are not on this machine")
    for name in STORES:
        golden = (GOLDEN / "old-stores" / name).read_bytes()
        assert (DATA / "old-stores" / name).read_bytes() == golden


@every_store
def test_serve_refuses_and_names_upgrade(place: Place, name: str) -> None:
    _copy(name, place)
    _check_refused(place, name)


@every_store
def test_doctor_reports_and_names_upgrade(place: Place, name: str) -> None:
    _copy(name, place)
    item = _doctor(place)
    assert STORES[name][0] in str(item["detail"])
    assert "mlflow-server upgrade" in str(item["fix"])


@every_store
def test_store_in_wal_mode_is_refused_without_files_beside_it(place: Place, name: str) -> None:
    execute(_copy(name, place), "PRAGMA journal_mode = WAL")
    assert [path.name for path in place.project.iterdir()] == [place.store.name]
    _check_refused(place, name)
    _doctor(place)


@pytest.mark.parametrize("kept", [("-wal", "-shm"), ("-wal",)], ids=["as after a crash", "copied"])
def test_revision_is_read_out_of_a_wal_that_was_left_behind(
    place: Place, tmp_path: Path, kept: Sequence[str]
) -> None:
    """The file itself says 2.3.2's revision, the log beside it that of 3.1.4."""
    name = "mlflow-3.1.4.db"
    live = tmp_path / "live.sqlite"
    shutil.copyfile(DATA / "old-stores" / "mlflow-2.3.2.db", live)
    update = f"UPDATE alembic_version SET version_num = '{STORES[name][0]}'"  # noqa: S608
    with locked(live, "PRAGMA journal_mode = WAL", update):
        for suffix in ("", *kept):
            shutil.copyfile(f"{live}{suffix}", f"{place.store}{suffix}")
    shared = place.store.with_name(place.store.name + "-shm")
    before = snapshot(place.root)
    ended = place.run("serve", environment={"MLFLOW_PORT": str(free_port())})
    after = snapshot(place.root)
    assert ended.returncode == 4
    assert STORES[name][0] in ended.stderr
    assert sorted(after) == sorted(before)
    # An index of the log, without content of its own, which every reader may make anew.
    for found in (before, after):
        found.pop(f"project/{shared.name}", None)
    assert after == before


def test_doctor_reads_a_store_that_it_may_not_write(common_place: Place) -> None:
    place = common_place
    folder = place.project / "store"
    folder.mkdir()
    shutil.copyfile(DATA / "old-stores" / "mlflow-2.3.2.db", folder / "store.sqlite")
    (folder / "store.sqlite").chmod(0o444)
    folder.chmod(0o555)
    before = snapshot(place.root)
    environment = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/store.sqlite",
        "MLFLOW_PORT": str(free_port()),
    }
    ended = place.run("doctor", "--json", environment=environment)
    assert snapshot(place.root) == before
    assert ended.returncode == 3
    items = {entry["name"]: entry for entry in json.loads(ended.stdout)["items"]}
    assert "mlflow-server upgrade" in items["schema"]["fix"]


def test_unfinished_transaction_of_an_old_store_does_not_hide_its_revision(
    place: Place, tmp_path: Path
) -> None:
    """A crash left a journal: SQLite itself takes the transaction back, and we see what was."""
    name = "mlflow-2.22.1.db"
    live = tmp_path / "live.sqlite"
    shutil.copyfile(DATA / "old-stores" / name, live)
    spill = ("PRAGMA cache_size = 1", "BEGIN IMMEDIATE", "UPDATE alembic_version SET version_num=1")
    grow = "UPDATE params SET value = value || 'x'"
    with locked(live, "PRAGMA synchronous = OFF", *spill, grow):
        shutil.copyfile(live, place.store)
        shutil.copyfile(f"{live}-journal", f"{place.store}-journal")
    ended = place.run("serve", environment={"MLFLOW_PORT": str(free_port())})
    assert ended.returncode == 4
    assert STORES[name][0] in ended.stderr
    connection = sqlite3.connect(place.store)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    assert row == (STORES[name][0],)


# --- PostgreSQL --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def current_database(postgres: Postgres) -> str:
    """An initialised PostgreSQL database."""
    uri = postgres.new_database()
    make_head_store(uri)
    return uri


@pytest.fixture
def old_database(current_database: str) -> Iterator[str]:
    """That database, said to be of MLflow 3.1.4."""
    revision = STORES["mlflow-3.1.4.db"][0]
    with psycopg.connect(current_database, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [revision])
        yield current_database
        connection.execute("UPDATE alembic_version SET version_num = %s", [HEAD])


def _content(uri: str) -> dict[str, object]:
    """Every table and index with its definition, and every table's rows."""
    with psycopg.connect(uri) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
        rows = {
            table: connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608
            for table in sorted({column[0] for column in columns})
        }
    return {"columns": columns, "indexes": indexes, "rows": rows}


@pytest.mark.xdist_group("old-stores-postgres")
def test_serve_refuses_an_old_postgresql_database(place: Place, old_database: str) -> None:
    before = _content(old_database)
    _check_refused(place, "mlflow-3.1.4.db", uri=old_database)
    assert _content(old_database) == before


@pytest.mark.xdist_group("old-stores-postgres")
def test_doctor_reports_an_old_postgresql_database(place: Place, old_database: str) -> None:
    before = _content(old_database)
    environment = {
        "MLFLOW_BACKEND_STORE_URI": old_database,
        "MLFLOW_PORT": str(free_port()),
        "MLFLOW_WORKERS": "2",
    }
    ended = place.run("doctor", "--json", environment=environment)
    report = json.loads(ended.stdout)
    item = next(entry for entry in report["items"] if entry["name"] == "schema")
    assert ended.returncode == 3
    assert item["status"] == "failed"
    assert "mlflow-server upgrade" in item["fix"]
    assert _content(old_database) == before
