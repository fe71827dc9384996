"""Backend stores that cannot be used: `serve` gets one or two
lines that say what to do, the documented exit code, and leaves everything as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psycopg
import pytest

from tests.standins.network import http_listener, silent_listener
from tests.support.passwords import PasswordServer
from tests.support.places import Place, snapshot
from tests.support.programs import STORE, free_port
from tests.support.refusals import parse_refusal, refusal
from tests.support.stores import OLD_STORE, copy_store, execute, locked

# --- SQLite files ------------------------------------------------------------------------------


SQLITE = pytest.mark.xdist_group("bad-input-sqlite")


@SQLITE
@pytest.mark.parametrize("keep", ["50", "100", "1000", "4096", "half", "all but a page"])
def test_truncated_sqlite_file_is_65(place: Place, head_store: Path, keep: str) -> None:
    content = head_store.read_bytes()
    size = {"half": len(content) // 2, "all but a page": len(content) - 4096}.get(keep)
    place.store.write_bytes(content[: int(keep) if size is None else size])
    assert refusal(place, plain=keep == "half").code == 65


@SQLITE
def test_sqlite_file_with_an_overwritten_schema_is_65(place: Place, head_store: Path) -> None:
    content = bytearray(head_store.read_bytes())
    content[100:4096] = b"\xa5" * 3996
    place.store.write_bytes(content)
    assert refusal(place).code == 65


@SQLITE
def test_read_only_sqlite_file_is_77(common_place: Place, head_store: Path) -> None:
    copy_store(head_store, common_place.store).chmod(0o444)
    found = refusal(common_place)
    assert found.code == 77
    assert str(common_place.store) in found.errors[0]


@SQLITE
def test_unreadable_sqlite_file_is_77(common_place: Place, head_store: Path) -> None:
    copy_store(head_store, common_place.store).chmod(0)
    found = refusal(common_place)
    assert found.code == 77


@SQLITE
def test_sqlite_file_in_a_folder_that_is_not_writable_is_77(
    common_place: Place, head_store: Path
) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    path = copy_store(head_store, folder / "mlflow.sqlite")
    folder.chmod(0o555)
    found = refusal(common_place, environment={STORE: f"sqlite:///{path}"})
    assert found.code == 77
    assert str(folder) in found.errors[0]


def test_sqlite_file_to_be_made_in_a_folder_that_is_not_writable_is_77(common_place: Place) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    folder.chmod(0o555)
    path = folder / "new" / "mlflow.sqlite"
    found = refusal(common_place, environment={STORE: f"sqlite:///{path}"})
    assert found.code == 77
    assert str(folder) in found.errors[0]


def test_sqlite_file_in_a_folder_that_may_not_be_entered_is_77(common_place: Place) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    folder.chmod(0)
    found = refusal(common_place, environment={STORE: f"sqlite:///{folder}/mlflow.sqlite"})
    assert found.code == 77


def test_folder_instead_of_a_sqlite_file_is_78(place: Place) -> None:
    place.store.mkdir()
    found = refusal(place)
    assert found.code == 78
    assert "folder" in found.errors[0]


def test_sqlite_file_below_a_file_is_78(place: Place) -> None:
    (place.project / "file").write_text("precious")
    found = refusal(place, environment={STORE: f"sqlite:///{place.project}/file/mlflow.sqlite"})
    assert found.code == 78
    assert str(place.project / "file") in found.errors[0]


@SQLITE
@pytest.mark.parametrize("statement", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_locked_sqlite_file_is_75(place: Place, head_store: Path, statement: str) -> None:
    copy_store(head_store, place.store)
    with locked(place.store, statement):
        found = refusal(place)
    assert found.code == 75
    assert "lock" in found.errors[0]


@SQLITE
def test_locked_sqlite_file_in_wal_mode_is_75(place: Place, head_store: Path) -> None:
    copy_store(head_store, place.store)
    with locked(place.store, "PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE"):
        # Where readers stand is written into this file, which holds nothing that lasts.
        shared = "project/store.sqlite-shm"
        before = snapshot(place.root)
        ended = place.run("serve", environment={"MLFLOW_PORT": str(free_port())})
        after = snapshot(place.root)
    errors, _ = parse_refusal(ended)
    assert ended.returncode == 75
    assert "lock" in errors[0]
    assert before.pop(shared)[:2] == after.pop(shared)[:2]
    assert after == before


def test_old_schema_is_4(place: Place) -> None:
    copy_store(OLD_STORE, place.store)
    found = refusal(place)
    assert found.code == 4
    assert "bda7b8c39065" in found.errors[0]
    assert "upgrade" in found.hints[0]


@SQLITE
def test_newer_schema_is_4(place: Place, head_store: Path) -> None:
    copy_store(head_store, place.store)
    execute(place.store, "UPDATE alembic_version SET version_num = 'feedfacecafe'")
    found = refusal(place)
    assert found.code == 4
    assert "feedfacecafe" in found.errors[0]
    assert "newer" in found.text
    assert "upgrade" not in found.text


@SQLITE
@pytest.mark.parametrize(
    "statements",
    [
        ("INSERT INTO alembic_version VALUES ('bda7b8c39065')",),
        ("DELETE FROM alembic_version",),
        ("DROP TABLE alembic_version",),
        ("DROP TABLE alembic_version", "CREATE TABLE alembic_version (number INTEGER)"),
    ],
    ids=["two rows", "no row", "no table", "another column"],
)
def test_store_with_a_damaged_revision_is_4(
    place: Place, head_store: Path, statements: Sequence[str]
) -> None:
    copy_store(head_store, place.store)
    execute(place.store, *statements)
    found = refusal(place)
    assert found.code == 4
    assert len(found.hints) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE invoices (id INTEGER)",),
        ("CREATE TABLE invoices (id INTEGER)", "CREATE TABLE alembic_version (version_num TEXT)"),
        (
            "CREATE TABLE invoices (id INTEGER)",
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('feedfacecafe')",
        ),
        ("CREATE TABLE runs (id INTEGER)",),
        ("CREATE VIEW invoices AS SELECT 1 AS id",),
    ],
    ids=["a table", "with alembic", "with a revision", "called as MLflow's", "a view"],
)
def test_tables_of_another_application_are_4(place: Place, statements: Sequence[str]) -> None:
    execute(place.store, *statements)
    found = refusal(place, plain=False)
    assert found.code == 4
    assert len(found.hints) == 1


@SQLITE
def test_registry_with_an_old_schema_is_4_and_the_other_store_is_not_initialised(
    place: Place,
) -> None:
    registry = copy_store(OLD_STORE, place.project / "registry.sqlite")
    found = refusal(place, environment={"MLFLOW_REGISTRY_STORE_URI": f"sqlite:///{registry}"})
    assert found.code == 4
    assert "registry.sqlite" in found.errors[0]


# --- PostgreSQL and MySQL over the network -----------------------------------------------------

POSTGRES = pytest.mark.xdist_group("bad-input-postgres")
PSYCOPGS = pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2"])


@POSTGRES
@PSYCOPGS
def test_wrong_password_is_77(place: Place, database: PasswordServer, scheme: str) -> None:
    role = database.new_role("right-4711")
    name = database.new_database(role)
    uri = database.uri(role, "wrong-0815", name, scheme)
    found = refusal(place, environment={STORE: uri})
    assert found.code == 77
    assert len(found.errors) == 1
    assert "wrong-0815" not in found.text
    assert database.tables(name) == []


@POSTGRES
def test_missing_password_is_77(place: Place, database: PasswordServer) -> None:
    role = database.new_role("right-4711")
    uri = f"postgresql://{role}@127.0.0.1:{database.relay.port}/postgres"
    assert refusal(place, environment={STORE: uri}).code == 77


@POSTGRES
def test_unknown_user_is_77(place: Place, database: PasswordServer) -> None:
    found = refusal(
        place, environment={STORE: database.uri("nobody_of_that_name", "x", "postgres")}
    )
    assert found.code == 77


@POSTGRES
@pytest.mark.parametrize("setting", ["MLFLOW_REGISTRY_STORE_URI"])
def test_wrong_password_of_another_store_names_its_setting(
    place: Place, database: PasswordServer, setting: str
) -> None:
    role = database.new_role("right-4711")
    uri = database.uri(role, "wrong-0815", "postgres")
    found = refusal(place, environment={setting: uri})
    assert found.code == 77
    assert setting in found.text
    assert STORE not in found.text


@POSTGRES
@PSYCOPGS
def test_missing_database_is_69(place: Place, database: PasswordServer, scheme: str) -> None:
    role = database.new_role("right-4711")
    found = refusal(
        place, environment={STORE: database.uri(role, "right-4711", "not_there", scheme)}
    )
    assert found.code == 69
    assert "no such database" in found.errors[0]
    with database.administer() as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = 'not_there'"
        assert connection.execute(query).fetchone() is None


@POSTGRES
def test_database_without_the_right_to_connect_is_77(
    place: Place, database: PasswordServer
) -> None:
    role = database.new_role("right-4711")
    name = database.new_database("postgres")
    with database.administer() as connection:
        connection.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    found = refusal(place, environment={STORE: database.uri(role, "right-4711", name)})
    assert found.code == 77
    assert database.tables(name) == []


@POSTGRES
def test_empty_database_without_the_right_to_create_tables_is_77(
    place: Place, database: PasswordServer
) -> None:
    role = database.new_role("right-4711")
    name = database.new_database("postgres")
    found = refusal(place, environment={STORE: database.uri(role, "right-4711", name)})
    assert found.code == 77
    assert database.tables(name) == []


@POSTGRES
@pytest.mark.parametrize(
    ("statements", "word"),
    [
        (("INSERT INTO alembic_version VALUES ('bda7b8c39065')",), "upgrade"),
        (("INSERT INTO alembic_version VALUES ('feedfacecafe')",), "newer"),
        (("INSERT INTO alembic_version VALUES ('bda7b8c39065'), ('feedfacecafe')",), "backup"),
        ((), "another application"),
        (("DROP TABLE alembic_version",), "another application"),
    ],
    ids=["old", "newer", "two rows", "no row", "no revision"],
)
def test_schema_that_does_not_fit_is_4_on_postgresql(
    place: Place, database: PasswordServer, statements: Sequence[str], word: str
) -> None:
    role = database.new_role("right-4711")
    name = database.new_database(role)
    uri = database.uri(role, "right-4711", name)
    tables = (
        "CREATE TABLE experiments (experiment_id INTEGER)",
        "CREATE TABLE runs (run_uuid TEXT)",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
    )
    with psycopg.connect(uri, autocommit=True) as connection:
        for statement in (*tables, *statements):
            connection.execute(statement)
    before = database.tables(name)
    found = refusal(place, environment={STORE: uri})
    assert found.code == 4
    assert word in found.text
    assert database.tables(name) == before


UNREACHABLE_SCHEMES = pytest.mark.parametrize(
    "scheme", ["postgresql", "postgresql+psycopg2", "mysql+pymysql"]
)


@UNREACHABLE_SCHEMES
def test_refused_port_of_the_database_is_69(place: Place, scheme: str) -> None:
    uri = f"{scheme}://ada:hidden@127.0.0.1:{free_port()}/mlflow"
    found = refusal(place, environment={STORE: uri}, plain=scheme == "postgresql")
    assert found.code == 69
    assert "refused" in found.errors[0]
    assert "hidden" not in found.text


@UNREACHABLE_SCHEMES
def test_database_that_accepts_and_never_answers_is_69_in_time(place: Place, scheme: str) -> None:
    with silent_listener() as port:
        uri = f"{scheme}://ada:hidden@127.0.0.1:{port}/mlflow"
        found = refusal(place, environment={STORE: uri})
    assert found.code == 69
    assert "no answer" in found.errors[0]
    assert "hidden" not in found.text


@UNREACHABLE_SCHEMES
def test_unknown_host_of_the_database_is_69(place: Place, scheme: str) -> None:
    uri = f"{scheme}://ada:hidden@no-such-host.invalid/mlflow"
    found = refusal(place, environment={STORE: uri}, plain=scheme == "postgresql")
    assert found.code == 69
    assert "no-such-host.invalid" in found.errors[0]


def test_database_on_a_machine_that_is_not_there_is_69_in_time(place: Place) -> None:
    """192.0.2.0/24 is for documentation (RFC 5737): packets are lost, or the router says no."""
    found = refusal(place, environment={STORE: "postgresql://ada:hidden@192.0.2.1/mlflow"})
    assert found.code == 69


class _NoDatabase(BaseHTTPRequestHandler):
    """Something that talks, but not as expected."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.settimeout(10)
            self.connection.recv(1024)
            self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@UNREACHABLE_SCHEMES
def test_something_else_in_place_of_the_database_is_69(place: Place, scheme: str) -> None:
    with http_listener(_NoDatabase) as port:
        uri = f"{scheme}://ada:hidden@127.0.0.1:{port}/mlflow"
        found = refusal(place, environment={STORE: uri}, plain=scheme == "postgresql")
    assert found.code == 69
    assert "hidden" not in found.text
