"""Stores moved between databases: every value, one moment, all or nothing."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from mlflow_server.errors import (
    BadInputError,
    BusyError,
    ExitCode,
    InternalError,
    OpsError,
    SchemaError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.store import empty, reflection, schema
from mlflow_server.store.load import filling
from mlflow_server.store.revision import (
    SchemaState,
    head_revision,
    migration_tree,
    read_store_status,
)
from mlflow_server.store.snapshot import snapshot
from mlflow_server.store.tables import Checksum, Column, Kind, Table
from mlflow_server.uris import parse_store_uri
from tests.conftest import DATA, Postgres
from tests.support import forks, places
from tests.support.full_store import AWKWARD, ROWS, fill
from tests.support.mariadb import MARIADB, MariaDb
from tests.support.movers import move, sums
from tests.support.programs import clean_environment
from tests.support.stores import execute, locked, make_head_store

OLD_STORES = ("2.3.2", "2.9.2", "2.22.1", "3.1.4")
HEAD = head_revision()
on_every_dialect = pytest.mark.parametrize("target", ["sqlite", "psycopg2", MARIADB], indirect=True)


@pytest.fixture(scope="session")
def head_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store at head without rows, not to be changed."""
    path = tmp_path_factory.mktemp("head") / "store.sqlite"
    make_head_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory, head_store: Path) -> str:
    """A SQLite store with awkward rows in every table, not to be changed."""
    path = tmp_path_factory.mktemp("full") / "store.sqlite"
    shutil.copyfile(head_store, path)
    fill(path)
    return f"sqlite:///{path}"


def new_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URI of an empty database; a SQLite file is the only thing in `folder`/target."""
    match kind:
        case "sqlite":
            return f"sqlite:///{folder}/target/store.sqlite"
        case "mariadb":
            maria: MariaDb = request.getfixturevalue("mariadb")
            return maria.new_database()
        case driver:
            server: Postgres = request.getfixturevalue("postgres")
            return server.new_database().replace("postgresql:", f"postgresql+{driver}:")


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty database."""
    return new_database(request.param, request, tmp_path)


@contextmanager
def connected(uri: str) -> Iterator[sqlalchemy.Connection]:
    arguments = {"init_command": "SET sql_mode = 'ANSI_QUOTES'"} if "mysql" in uri else {}
    uri = uri.replace("postgresql:", "postgresql+psycopg2:")
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=arguments)
    with engine.begin() as connection:
        yield connection


def query(uri: str, statement: str) -> list[Any]:
    with connected(uri) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def change(uri: str, *statements: str) -> None:
    with connected(uri) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def content(uri: str) -> object:
    """All that is in a database: to see that nothing changed."""
    store = parse_store_uri(uri)
    if store.is_sqlite:
        assert store.path is not None
        return places.snapshot(store.path.parent) if store.path.parent.exists() else None
    return sums(uri)


# Every value


@dataclass(frozen=True)
class Arrived:
    """Where the full store has been moved to; not to be changed.

    Args:
        uri: The database.
        adapted: What it cannot keep exactly.
    """

    uri: str
    adapted: dict[str, int]


@pytest.fixture(scope="module", params=["sqlite", "psycopg", "psycopg2", MARIADB])
def arrived(
    request: pytest.FixtureRequest, full_store: str, tmp_path_factory: pytest.TempPathFactory
) -> Arrived:
    """The full store on each database."""
    uri = new_database(request.param, request, tmp_path_factory.mktemp("arrived"))
    return Arrived(uri, move(full_store, uri))


def test_every_value_comes_back(arrived: Arrived, full_store: str, tmp_path: Path) -> None:
    before, there = sums(full_store), sums(arrived.uri)
    assert all(rows for rows, _ in before.values()), "every table has rows"
    single = {"endpoint_model_mappings": ROWS, "budget_policies": ROWS}
    assert arrived.adapted == (single if "mysql" in arrived.uri else {})
    assert {name for name in before if before[name] != there[name]} == set(arrived.adapted)
    back = f"sqlite:///{tmp_path}/back.sqlite"
    assert move(arrived.uri, back) == {}
    assert sums(back) == there
    values = "SELECT value FROM tags ORDER BY value"
    assert query(back, values) == query(full_store, values)
    assert AWKWARD in query(back, values)[2][0]


def test_tables_and_kinds_are_the_same_everywhere(arrived: Arrived, full_store: str) -> None:
    with (
        snapshot(parse_store_uri(full_store)) as there,
        snapshot(parse_store_uri(arrived.uri)) as here,
    ):
        assert {t.name: t for t in here.tables} == {t.name: t for t in there.tables}
        assert here.revision == there.revision == HEAD
        assert all(table.known for table in here.tables)
        spans = next(table for table in here.tables if table.name == "spans")
        assert "duration_ns" not in {column.name for column in spans.columns}
        assert here.size_bytes() > 0
        order = [table.name for table in here.tables]
        assert order.index("experiments") < order.index("runs") < order.index("metrics")


def test_new_experiments_get_a_number_of_their_own(arrived: Arrived) -> None:
    largest = 2**31 - 2
    with connected(arrived.uri) as connection:
        connection.exec_driver_sql("INSERT INTO experiments (name) VALUES ('new')")
        found = connection.exec_driver_sql("SELECT experiment_id, name FROM experiments")
        numbers = {name: number for number, name in found}
        connection.rollback()
    assert numbers.pop("new") == largest + 1
    assert sorted(numbers.values()) == [0, 1, 7, largest]


@pytest.mark.parametrize("target", ["psycopg2", MARIADB], indirect=True)
def test_the_first_experiment_after_default_is_number_one(
    head_store: Path, target: str, tmp_path: Path
) -> None:
    path = shutil.copyfile(head_store, tmp_path / "default.sqlite")
    execute(path, "INSERT INTO experiments (experiment_id, name) VALUES (0, 'Default')")
    move(f"sqlite:///{path}", target)
    change(target, "INSERT INTO experiments (name) VALUES ('new')")
    found = query(target, "SELECT experiment_id FROM experiments WHERE name = 'new'")
    assert found == [(1,)]


@pytest.mark.parametrize("target", ["psycopg2", MARIADB], indirect=True)
def test_tables_that_mlflow_does_not_have_move_too(
    full_store: str, target: str, tmp_path: Path
) -> None:
    path = shutil.copyfile(full_store.removeprefix("sqlite:///"), tmp_path / "more.sqlite")
    execute(
        path,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(20), ok BOOLEAN, at DATETIME, "
        "doc JSON, raw BLOB, day DATE, number FLOAT)",
        "INSERT INTO users VALUES (7, 'ada', 1, '2026-01-02 03:04:05.678900', '{}', x'00ff', "
        "'2026-01-02', 0.1), (8, NULL, NULL, '2026-01-02 03:04:05.000000', NULL, NULL, NULL, NULL)",
        "CREATE TABLE tracking_server_projects (name TEXT PRIMARY KEY)",
        "INSERT INTO tracking_server_projects VALUES ('p')",
        "CREATE TABLE tracking_server_gc_journal (entry_id INTEGER PRIMARY KEY)",
    )
    source = f"sqlite:///{path}"
    move(source, target)
    after = sums(target)
    assert after["users"] == sums(source)["users"]
    assert after["tracking_server_projects"][0] == 1
    assert "tracking_server_gc_journal" not in after
    with snapshot(parse_store_uri(target)) as found:
        unknown = {table.name for table in found.tables if not table.known}
    assert unknown == {"users", "tracking_server_projects"}
    change(target, "INSERT INTO users (name) VALUES ('next')")
    assert query(target, "SELECT id FROM users WHERE name = 'next'") == [(9,)]
    back = f"sqlite:///{tmp_path}/back.sqlite"
    change(target, "DELETE FROM users WHERE id = 9")
    move(target, back)
    times = "SELECT at FROM users ORDER BY id"
    assert query(back, times) == query(source, times)


def test_what_a_database_cannot_keep_is_counted(
    full_store: str, database_uri: str, tmp_path: Path
) -> None:
    """SQLite has NULL for what is no number."""
    move(full_store, database_uri)
    change(database_uri, "UPDATE span_metrics SET value = 'NaN'")
    assert move(database_uri, f"sqlite:///{tmp_path}/nan.sqlite") == {"span_metrics": ROWS}


# One moment

WRITER = """
import sqlalchemy, sys, os
engine = sqlalchemy.create_engine(os.environ["STORE"])
number = 0
while True:
    number += 1
    with engine.begin() as connection:
        for table in ("jobs_locks_a", "jobs_locks_b"):
            connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({number})")
    print(number, flush=True)
"""


@contextmanager
def writing(uri: str) -> Iterator[Callable[[], None]]:
    """Have another process write the same numbers to two tables for as long as the block takes.

    Yields:
        Waits until some more have been written.
    """
    change(uri, *(f"CREATE TABLE jobs_locks_{name} (number INTEGER)" for name in "ab"))
    with forks.Popen(
        [sys.executable, "-c", WRITER],
        env=clean_environment(STORE=uri.replace("postgresql:", "postgresql+psycopg2:")),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def wait() -> None:
            assert process.stdout is not None
            for _ in range(5):
                assert process.stdout.readline(), "the writer was kept out"

        try:
            wait()
            yield wait
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["wal", "delete", "psycopg", "psycopg2", "mariadb"])
def test_a_snapshot_is_of_one_moment_while_a_server_writes(
    mode: str, head_store: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if mode in ("wal", "delete"):
        path = shutil.copyfile(head_store, tmp_path / "store.sqlite")
        execute(path, f"PRAGMA journal_mode = {mode}")
        uri = f"sqlite:///{path}"
    elif mode == "mariadb":
        uri = request.getfixturevalue("mariadb").new_database()
    else:
        server: Postgres = request.getfixturevalue("postgres")
        uri = server.new_database().replace("postgresql:", f"postgresql+{mode}:")
    with writing(uri) as wait:
        for _ in range(3):
            with snapshot(parse_store_uri(uri)) as store:
                tables = {table.name: table for table in store.tables}
                one = list(chain.from_iterable(store.rows(tables["jobs_locks_a"])))
                wait()
                other = list(chain.from_iterable(store.rows(tables["jobs_locks_b"])))
                assert one == other
                assert one


@pytest.mark.parametrize("state", ["plain", "wal", "log left"])
def test_no_file_appears_beside_an_idle_store(state: str, full_store: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "store.sqlite"
    shutil.copyfile(full_store.removeprefix("sqlite:///"), path)
    with ExitStack() as stack:
        if state != "plain":
            execute(path, "PRAGMA journal_mode = WAL")
        if state == "log left":
            # As a kill leaves it: the log is there, nobody has it mapped.
            connection = stack.enter_context(closing(sqlite3.connect(path)))
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("DELETE FROM tags")
            connection.commit()
            left = tmp_path / "left"
            shutil.copytree(folder, left)
            (left / "store.sqlite-shm").unlink()
            folder, path = left, left / "store.sqlite"
        before = places.snapshot(folder)
        found = sums(f"sqlite:///{path}")
        assert places.snapshot(folder) == before
    assert found["tags"][0] == (0 if state == "log left" else ROWS)


def test_batches_are_smaller_where_rows_may_be_long(full_store: str) -> None:
    with snapshot(parse_store_uri(full_store)) as store:
        sizes = {name: stored.batch_rows for name, stored in store._stored.items()}
    assert sizes["metrics"] == reflection.BATCH_ROWS
    assert sizes["params"] < 1_100
    assert sizes["spans"] < 70
    assert min(sizes.values()) >= 10


@on_every_dialect
def test_no_more_than_a_batch_is_in_memory(
    head_store: Path, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when reading nor when writing: the source is asked for more only after a write."""
    monkeypatch.setattr(reflection, "BATCH_ROWS", 100)
    path = shutil.copyfile(head_store, tmp_path / "source.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        rows = [(f"key {number}", number) for number in range(1_000)]
        connection.executemany("INSERT INTO scheduler_leases VALUES (?, ?, 1)", rows)
        connection.commit()
    move(f"sqlite:///{path}", target)
    uri = parse_store_uri(target)
    with snapshot(uri) as store:
        table = next(table for table in store.tables if table.name == "scheduler_leases")
        assert [len(batch) for batch in store.rows(table)] == [100] * 10
        # Left before its end, a cursor is in nobody's way.
        next(iter(store.rows(table)))
        assert store.count(table) == 1_000


# All or nothing


@on_every_dialect
def test_an_error_leaves_the_target_as_it_was(full_store: str, target: str) -> None:
    before = content(target)
    source = parse_store_uri(full_store)
    with (
        pytest.raises(RuntimeError, match="archive"),
        snapshot(source) as store,
        filling(parse_store_uri(target), store.tables) as loader,
    ):
        for table in loader.brought:
            loader.load(table, chain.from_iterable(store.rows(table)))
        loader.finish()
        raise RuntimeError("the archive is damaged")
    assert read_store_status(parse_store_uri(target)).state is SchemaState.EMPTY
    if "sqlite" not in target:
        assert content(target) == before
    else:
        assert list(Path(target.removeprefix("sqlite:///")).parent.iterdir()) == []


HALF = """
import os, sys, warnings
warnings.simplefilter("ignore")
from itertools import chain
from mlflow_server.store.load import filling
from mlflow_server.store.snapshot import snapshot
from mlflow_server.uris import parse_store_uri
source, target = (parse_store_uri(os.environ[name]) for name in ("SOURCE", "TARGET"))
with snapshot(source) as store, filling(target, store.tables, replace=True) as loader:
    for number, table in enumerate(loader.brought):
        loader.load(table, chain.from_iterable(store.rows(table)))
        if number == len(loader.brought) // 2:
            print("half", flush=True)
            sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("target", "was"),
    [
        ("sqlite", "full"),
        ("psycopg2", "full"),
        pytest.param("mariadb", "empty", marks=pytest.mark.xdist_group("mariadb")),
    ],
    indirect=["target"],
)
def test_a_kill_leaves_the_target_as_it_was_and_the_next_call_succeeds(
    was: str, full_store: str, target: str, head_store: Path
) -> None:
    if was == "full":
        move(f"sqlite:///{head_store}", target)
    before = read_store_status(parse_store_uri(target))
    with forks.Popen(
        [sys.executable, "-c", HALF],
        env=clean_environment(SOURCE=full_store, TARGET=target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    after = read_store_status(parse_store_uri(target))
    if "mysql" in target:
        assert after.state is SchemaState.EMPTY, "DDL cannot be taken back"
    else:
        assert after == before
    move(full_store, target, replace=was == "full")
    assert read_store_status(parse_store_uri(target)).state is SchemaState.CURRENT
    assert query(target, "SELECT count(*) FROM spans") == [(ROWS,)]
    if target.startswith("sqlite"):
        folder = Path(target.removeprefix("sqlite:///")).parent
        assert [path.name for path in folder.iterdir()] == ["store.sqlite"]


@on_every_dialect
def test_a_store_is_replaced_only_when_that_is_asked_for(
    full_store: str, head_store: Path, target: str
) -> None:
    move(f"sqlite:///{head_store}", target)
    row = "INSERT INTO experiments (experiment_id, name) VALUES (3, 'old')"
    change(target, row, "CREATE TABLE tracking_server_gc_journal (entry_id INTEGER)")
    before = content(target)
    with pytest.raises(OpsError, match="1 experiments and 0 runs") as caught:
        move(full_store, target)
    assert caught.value.exit_code == ExitCode.FAILED
    assert content(target) == before
    move(full_store, target, replace=True)
    assert query(target, "SELECT count(*) FROM experiments WHERE name = 'old'") == [(0,)]
    with connected(target) as connection:
        assert not sqlalchemy.inspect(connection).has_table("tracking_server_gc_journal")


@on_every_dialect
def test_tables_of_another_application_are_never_dropped(full_store: str, target: str) -> None:
    path = parse_store_uri(target).path
    if path is not None:
        path.parent.mkdir()
    change(target, "CREATE TABLE invoices (number INTEGER)")
    with pytest.raises(SchemaError, match="another application"):
        move(full_store, target, replace=True)
    # As it is where they share a database.
    change(
        target,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('dc11669786a5')",
    )
    change(target, *(f"CREATE TABLE {name} (number INTEGER)" for name in ("experiments", "runs")))
    before = content(target)
    with pytest.raises(SchemaError, match="invoices") as caught:
        move(full_store, target, replace=True)
    assert caught.value.exit_code == ExitCode.SCHEMA
    assert content(target) == before


def test_the_log_of_a_replaced_file_does_not_get_into_the_new_one(
    full_store: str, head_store: Path, tmp_path: Path
) -> None:
    """As a kill leaves it: a log that SQLite would play into whatever file has its name."""
    old = tmp_path / "old"
    old.mkdir()
    shutil.copyfile(head_store, old / "store.sqlite")
    with closing(sqlite3.connect(old / "store.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE late (number INTEGER)")
        connection.execute("DROP TABLE late")
        connection.execute("INSERT INTO experiments (experiment_id, name) VALUES (1, 'late')")
        connection.commit()
        shutil.copytree(old, tmp_path / "left")
    target = f"sqlite:///{tmp_path}/left/store.sqlite"
    move(full_store, target, replace=True)
    assert sums(target) == sums(full_store)
    assert [path.name for path in (tmp_path / "left").iterdir()] == ["store.sqlite"]


def test_a_file_that_a_program_has_open_is_not_replaced(
    full_store: str, head_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copyfile(head_store, tmp_path / "store.sqlite")
    target = f"sqlite:///{path}"
    monkeypatch.setattr(empty, "_OPEN_TIMEOUT_S", 0.1)
    with locked(path, "BEGIN IMMEDIATE"), pytest.raises(BusyError):
        move(full_store, target, replace=True)
    assert path.read_bytes() == head_store.read_bytes()


@pytest.mark.parametrize("target", ["sqlite", "psycopg2"], indirect=True)
def test_what_does_not_read_back_is_noticed(full_store: str, target: str) -> None:
    with (
        pytest.raises(InternalError, match="table tags reads back different"),
        snapshot(parse_store_uri(full_store)) as store,
        filling(parse_store_uri(target), store.tables) as loader,
    ):
        tables = {table.name: table for table in loader.brought}
        for name in ("experiments", "runs", "tags"):
            loader.load(tables[name], chain.from_iterable(store.rows(tables[name])))
        given = Checksum(tables["tags"])
        given.add(chain.from_iterable(store.rows(tables["tags"])))
        loader.verify(tables["tags"], given)
        loader._connection.exec_driver_sql("UPDATE tags SET value = 'x' WHERE value IS NULL")
        assert loader.checksum(tables["tags"]).rows == ROWS
        given.add([])
        loader.verify(tables["tags"], given)


# Rows that a database refuses

REFUSED = {
    "longer": ("INSERT INTO tags VALUES (printf('%.251c', 'k'), 'v', 'r')", r"column tags\.key"),
    "NUL": ("INSERT INTO tags VALUES ('k' || char(0), 'v', 'r')", "NUL"),
    "without parent": ("INSERT INTO tags VALUES ('k', 'v', 'nobody')", "constraint tags_run_uuid"),
}


@pytest.mark.parametrize(
    ("driver", "case"), [("psycopg", "longer"), *(("psycopg2", case) for case in REFUSED)]
)
def test_a_row_that_the_database_refuses_is_told_without_its_values(
    case: str, driver: str, head_store: Path, tmp_path: Path, database_uri: str
) -> None:
    statement, words = REFUSED[case]
    path = shutil.copyfile(head_store, tmp_path / "source.sqlite")
    execute(
        path,
        "INSERT INTO experiments (experiment_id, name) VALUES (1, 'e')",
        "INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', 1)",
        statement,
    )
    target = database_uri.replace("postgresql:", f"postgresql+{driver}:")
    with pytest.raises(BadInputError, match=words) as caught:
        move(f"sqlite:///{path}", target)
    assert "kkk" not in caught.value.message
    assert "nobody" not in caught.value.message
    assert read_store_status(parse_store_uri(target)).state is SchemaState.EMPTY


def test_text_that_is_not_utf8_is_told(head_store: Path, tmp_path: Path) -> None:
    path = shutil.copyfile(head_store, tmp_path / "source.sqlite")
    execute(path, "INSERT INTO tags VALUES (CAST(x'ff' AS TEXT), 'v', 'r')")
    with pytest.raises(BadInputError, match="table tags has text that is not UTF-8"):
        sums(f"sqlite:///{path}")


def test_a_column_that_the_revision_lacks_is_told_before_anything_is_written(
    full_store: str, tmp_path: Path
) -> None:
    columns = (Column("key", Kind.TEXT), Column("colour", Kind.TEXT))
    tables = [Table("tags", columns)]
    with (
        pytest.raises(BadInputError, match="has no column 'colour'"),
        filling(parse_store_uri(f"sqlite:///{tmp_path}/new.sqlite"), tables),
    ):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_the_revision_lacks_is_told(tmp_path: Path) -> None:
    tables = [Table("spans", (Column("trace_id", Kind.TEXT),))]
    revision = next(step for step, before in migration_tree().items() if before is None)
    with (
        pytest.raises(SchemaError, match="has no table spans"),
        filling(parse_store_uri(f"sqlite:///{tmp_path}/new.sqlite"), tables, revision),
    ):
        raise AssertionError


def test_an_unknown_revision_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(SchemaError, match="0123456789ab is not known"),
        filling(parse_store_uri(f"sqlite:///{tmp_path}/new.sqlite"), [], "0123456789ab"),
    ):
        raise AssertionError


def test_sql_server_is_refused() -> None:
    uri = parse_store_uri("mssql+pyodbc://sa:secret@host/db")
    with pytest.raises(SettingsError, match="SQL Server"), snapshot(uri):
        raise AssertionError
    with pytest.raises(SettingsError, match="SQL Server"), filling(uri, []):
        raise AssertionError


@pytest.mark.parametrize(
    ("change_uri", "error"),
    [
        (lambda uri: uri.replace("test_", "missing_"), UnavailableError),
        (lambda uri: uri.replace("host=/", "host=/nowhere/"), UnavailableError),
    ],
)
def test_a_database_that_cannot_be_reached_is_told(
    change_uri: Callable[[str], str], error: type[OpsError], database_uri: str
) -> None:
    uri = parse_store_uri(change_uri(database_uri))
    with pytest.raises(error), snapshot(uri):
        raise AssertionError
    with pytest.raises(error), filling(uri, []):
        raise AssertionError


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_lost_connection_is_told(driver: str, head_store: Path, database_uri: str) -> None:
    uri = parse_store_uri(database_uri.replace("postgresql:", f"postgresql+{driver}:"))
    end = (
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    tables = [Table("tags", (Column("key", Kind.TEXT), Column("run_uuid", Kind.TEXT)))]
    with pytest.raises(UnavailableError, match="connection"), filling(uri, tables) as loader:
        query(database_uri, end)
        loader.load(tables[0], [["key", "run"]])
    assert read_store_status(uri).state is SchemaState.EMPTY
    move(f"sqlite:///{head_store}", uri.text)
    with pytest.raises(UnavailableError, match="connection"), snapshot(uri) as store:
        query(database_uri, end)
        list(store.rows(store.tables[0]))


def test_tables_in_use_are_told(
    head_store: Path, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(empty, "_LOCK_TIMEOUT_S", 1)
    move(f"sqlite:///{head_store}", database_uri)
    with connected(database_uri) as connection:
        connection.exec_driver_sql("SELECT * FROM runs")
        with pytest.raises(BusyError, match="locked"):
            move(f"sqlite:///{head_store}", database_uri, replace=True)


def test_no_space_for_the_copy_is_told(full_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlflow_server.store.snapshot._copy", full)
    with pytest.raises(UnavailableError, match="No space left on device") as caught:
        sums(full_store)
    assert "TMPDIR" in str(caught.value.hint)


def test_a_missing_file_has_no_snapshot(tmp_path: Path) -> None:
    with (
        pytest.raises(UnavailableError, match="does not exist"),
        snapshot(parse_store_uri(f"sqlite:///{tmp_path}/missing.sqlite")),
    ):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    uri = parse_store_uri(f"sqlite:///{tmp_path}/file/store.sqlite")
    with pytest.raises(OpsError) as caught, filling(uri, []):
        raise AssertionError
    assert caught.value.exit_code in (ExitCode.UNAVAILABLE, ExitCode.NOT_PERMITTED)


# Old stores


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("sqlite", "2.3.2"),
        *(("psycopg2", version) for version in OLD_STORES),
        pytest.param("mariadb", "3.1.4", marks=pytest.mark.xdist_group("mariadb")),
    ],
    indirect=["target"],
)
def test_an_old_store_moves_and_is_upgraded_as_it_would_be_in_place(
    version: str, target: str, tmp_path: Path
) -> None:
    path = shutil.copyfile(DATA / "old-stores" / f"mlflow-{version}.db", tmp_path / "old.sqlite")
    source = f"sqlite:///{path}"
    move(source, target, upgrade=True)
    assert read_store_status(parse_store_uri(target)).state is SchemaState.CURRENT
    with connected(source) as connection:
        schema.migrate(connection)
    assert sums(target) == sums(source)
    change(target, "INSERT INTO experiments (name) VALUES ('new')")


def test_an_old_store_stays_at_its_revision_unless_asked(tmp_path: Path, database_uri: str) -> None:
    path = shutil.copyfile(DATA / "old-stores" / "mlflow-2.3.2.db", tmp_path / "old.sqlite")
    source = f"sqlite:///{path}"
    move(source, database_uri)
    assert sums(database_uri) == sums(source)
    status = read_store_status(parse_store_uri(database_uri))
    assert (status.state, status.current) == (SchemaState.BEHIND, "3500859a5d39")
