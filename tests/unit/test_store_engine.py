"""What a driver's failure means for an operator, and how connections are made."""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from mlflow_server.errors import (
    BusyError,
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.store.engine import (
    connect,
    connect_defaults,
    driver_url,
    explain_failure,
    open_sqlite,
    require_driver,
)
from mlflow_server.uris import DRIVERS, Dialect, parse_store_uri
from tests.unit.making_stores import make_store

SECRET = "S3cr3tMarker"
POSTGRESQL = parse_store_uri(f"postgresql://ops:{SECRET}@db.example.com:5432/mlflow")


# Texts as psycopg 3, psycopg2 and pymysql write them.
@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            'connection failed: connection to server at "10.0.0.5", port 5432 failed: FATAL:  '
            f'password authentication failed for user "ops" ({SECRET})',
            PermissionDeniedError,
            "refuses these credentials",
        ),
        (
            'connection to server at "db", port 5432 failed: fe_sendauth: no password supplied',
            PermissionDeniedError,
            "refuses these credentials",
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "ops", database "mlflow"',
            PermissionDeniedError,
            "refuses these credentials",
        ),
        ('FATAL:  role "ops" does not exist', PermissionDeniedError, "refuses these credentials"),
        (
            "(1045, \"Access denied for user 'ops'@'10.0.0.9' (using password: YES)\")",
            PermissionDeniedError,
            "refuses these credentials",
        ),
        (
            "permission denied for table alembic_version",
            PermissionDeniedError,
            "refuses these credentials",
        ),
        (
            'connection to server at "db" failed: FATAL:  database "mlflow" does not exist',
            UnavailableError,
            "no such database",
        ),
        ("(1049, \"Unknown database 'mlflow'\")", UnavailableError, "no such database"),
        (
            'connection to server at "127.0.0.1", port 1 failed: Connection refused',
            UnavailableError,
            "connection refused",
        ),
        (
            "(2003, \"Can't connect to MySQL server on 'db' ([Errno 111] Connection refused)\")",
            UnavailableError,
            "connection refused",
        ),
        (
            'could not translate host name "db" to address: Name or service not known',
            UnavailableError,
            "unknown host name",
        ),
        (
            "[Errno -2] Name or service not known",
            UnavailableError,
            "unknown host name",
        ),
        ("connection timeout expired", UnavailableError, "no answer within 5 s"),
        (
            'connection to server at "db", port 5432 failed: timeout expired',
            UnavailableError,
            "no answer within 5 s",
        ),
        ("FATAL:  sorry, too many clients already", UnavailableError, "no free connection"),
        ("(1040, 'Too many connections')", UnavailableError, "no free connection"),
        (
            'connection to server on socket "/run/x" failed: No such file or directory',
            UnavailableError,
            "connection failed",
        ),
        ("server closed the connection unexpectedly", UnavailableError, "connection failed"),
        (f"something nobody has seen before: {SECRET}", UnavailableError, "answered with an error"),
    ],
)
def test_a_drivers_failure_becomes_a_sentence(text: str, kind: type[OpsError], words: str) -> None:
    failure = explain_failure(POSTGRESQL, OperationalError("SELECT 1", {}, Exception(text)))
    assert type(failure) is kind
    assert failure is not None
    assert words in failure.message
    assert failure.message.startswith("postgresql://ops:***@db.example.com:5432/mlflow: ")
    assert SECRET not in f"{failure.message} {failure.hint}"


def test_a_deadline_becomes_a_sentence() -> None:
    failure = explain_failure(POSTGRESQL, TimeoutError())
    assert isinstance(failure, UnavailableError)
    assert "no answer from the database within 5 s" in failure.message


@pytest.mark.parametrize("err", [KeyError("x"), ValueError("x"), KeyboardInterrupt()])
def test_a_mistake_of_ours_is_not_blamed_on_the_database(err: BaseException) -> None:
    assert explain_failure(POSTGRESQL, err) is None


def test_a_mistake_inside_a_connection_goes_on_as_it_is(tmp_path: Path) -> None:
    uri = make_store(tmp_path / "my.db")
    with pytest.raises(KeyError), connect(uri):
        raise KeyError


def test_a_locked_file_is_busy(tmp_path: Path) -> None:
    uri = make_store(tmp_path / "my.db")
    other = sqlite3.connect(tmp_path / "my.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        connection = open_sqlite(uri, timeout_s=0)
        try:
            with pytest.raises(sqlite3.OperationalError) as caught:
                connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.close()
    finally:
        other.close()
    assert isinstance(explain_failure(uri, caught.value), BusyError)


def test_looking_cannot_write(tmp_path: Path) -> None:
    import sqlalchemy

    uri = make_store(tmp_path / "my.db")
    with pytest.raises(PermissionDeniedError), connect(uri) as connection:
        connection.execute(sqlalchemy.text("DELETE FROM alembic_version"))


def test_opening_for_writing_makes_no_file(tmp_path: Path) -> None:
    uri = parse_store_uri(f"sqlite:///{tmp_path}/my.db")
    with pytest.raises(sqlite3.OperationalError):
        open_sqlite(uri, timeout_s=0)
    assert list(tmp_path.iterdir()) == []


# Drivers


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_named_driver_is_used(driver: str) -> None:
    uri = parse_store_uri(f"postgresql+{driver}://u:p%40@db/x?sslmode=require")
    assert require_driver(uri) == driver
    assert driver_url(uri) == uri.text


def test_without_a_name_the_first_installed_is_used() -> None:
    driver = next(iter(DRIVERS[Dialect.POSTGRESQL]))
    assert driver_url(parse_store_uri("postgresql://u:p%40@db/x")) == (
        f"postgresql+{driver}://u:p%40@db/x"
    )


@pytest.mark.parametrize(
    ("uri", "module", "package"),
    [
        ("mysql+mysqldb", "MySQLdb", "mysqlclient"),
        ("mysql+mysqlconnector", "mysql", "mysql-connector-python"),
        ("postgresql+pg8000", "pg8000", "pg8000"),
        ("mssql+pymssql", "pymssql", "pymssql"),
    ],
)
def test_a_missing_driver_is_said_in_one_line_with_what_to_install(
    uri: str, module: str, package: str
) -> None:
    assert importlib.util.find_spec(module) is None, "the test needs a driver that is not there"
    with pytest.raises(SettingsError) as caught:
        require_driver(parse_store_uri(f"{uri}://u:{SECRET}@db/x"))
    (problem,) = caught.value.problems
    assert "MLFLOW_BACKEND_STORE_URI" in problem
    assert "is not installed" in problem
    assert "\n" not in problem
    assert SECRET not in problem
    assert caught.value.hint == f"pip install '{package}'"


@pytest.mark.parametrize(
    ("dialect", "driver", "names"),
    [
        ("postgresql", "psycopg", {"connect_timeout", "application_name"}),
        ("postgresql", "psycopg2", {"connect_timeout", "application_name"}),
        ("mysql", "pymysql", {"connect_timeout"}),
        ("mysql", "mysqldb", {"connect_timeout"}),
        ("mssql", "pyodbc", {"timeout"}),
        ("sqlite", "pysqlite", set()),
    ],
)
def test_connections_have_deadlines(dialect: str, driver: str, names: set[str]) -> None:
    assert set(connect_defaults(dialect, driver, "me")) == names
