"""A database and two folders that stores described in `gc_random_store` are put into."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy

from tests.conftest import Postgres
from tests.support.gc_random_store import DESTINATION, SECOND, Store
from tests.support.gc_rows import Row, rows_of
from tests.support.mariadb import MariaDb
from tests.support.stores import make_head_store, open_store

# Table -> primary key -> row.
Tables = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
# Path -> content, None for a folder.
Files = dict[str, str | None]
_OURS = "tracking_server_"


@dataclass(frozen=True)
class Yard:
    """Where a store is built and collected in.

    Args:
        uri: An initialised, empty store, with the driver in it.
        root: A folder of its own.
    """

    uri: str
    root: Path
    _keys: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def make(cls, root: Path, server: Postgres | MariaDb | None) -> Yard:
        """On SQLite, or on a new database of a server."""
        uri = f"sqlite:///{root}/store.sqlite"
        if server is not None:
            uri = server.new_database().replace("postgresql:", "postgresql+psycopg2:")
        make_head_store(uri)
        return cls(uri, root)

    @property
    def places(self) -> Mapping[str, Path]:
        """The real folders."""
        return {DESTINATION: self.root / "destination", SECOND: self.root / "second"}

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a command that works here."""
        return {
            "MLFLOW_BACKEND_STORE_URI": self.uri,
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.places[DESTINATION]),
            "TRACKING_SERVER_SECRETS_DIR": str(self.root / "no-secrets"),
        }

    def connect(self) -> sqlalchemy.Engine:
        """To the database, without a pool."""
        return open_store(self.uri)

    def build(self, store: Store, now_ms: int | None = None) -> None:
        """Put rows and files there, instead of all that was there.

        Args:
            store: What shall be there.
            now_ms: What ages are counted from; the host's clock by default.
        """
        tables: dict[str, list[Row]] = defaultdict(list)
        for row in rows_of(store, now_ms or round(time.time() * 1000)):
            tables[row.table].append(row)
        with self.connect().begin() as connection:
            self._clear(connection)
            for table, members in tables.items():
                columns = members[0].values
                names = ", ".join(f'"{column}"' for column in columns)
                values = ", ".join(f":{column}" for column in columns)
                connection.execute(
                    sqlalchemy.text(f'INSERT INTO "{table}" ({names}) VALUES ({values})'),  # noqa: S608
                    [{key: self.real(each) for key, each in row.values.items()} for row in members],
                )
        for place in self.places.values():
            shutil.rmtree(place, ignore_errors=True)
        for file in store.files():
            path = Path(self.real(file.path))
            folder = path if file.is_folder else path.parent
            folder.mkdir(parents=True, exist_ok=True)
            if not file.is_folder:
                path.write_text(file.path)

    def real(self, value: Any) -> Any:
        """The same with the real folders in it."""
        if isinstance(value, str):
            for name, place in self.places.items():
                value = value.replace(name, str(place))
        return value

    def tables(self) -> Tables:
        """All rows of all tables, but of those that are ours."""
        found: Tables = {}
        with self.connect().connect() as connection:
            for table, key in self._primary_keys(connection).items():
                rows = connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')).mappings()  # noqa: S608
                plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
                found[table] = {tuple(row[name] for name in key): row for row in plain}
            if self.uri.startswith("sqlite"):
                broken = connection.execute(sqlalchemy.text("PRAGMA foreign_key_check")).all()
                assert broken == []
        return found

    def expected_tables(self, before: Tables, store: Store, gone: frozenset[str]) -> Tables:
        """What is left of all rows when these ids have gone."""
        left = {
            table: {key: dict(row) for key, row in rows.items()} for table, rows in before.items()
        }
        for row in rows_of(store, 0):
            key = tuple(row.values[name] for name in self._keys[row.table])
            if row.needs & gone or (row.used_by and row.used_by <= gone):
                del left[row.table][key]
            for column in (name for name, named in row.forgets.items() if named in gone):
                if key in left[row.table]:
                    left[row.table][key][column] = None
        return left

    def files(self) -> Files:
        """All files with their content, and all folders with None, by `/DESTINATION/…`."""
        return {
            f"{name}/{path.relative_to(place)}": None if path.is_dir() else path.read_text()
            for name, place in self.places.items()
            for path in place.rglob("*")
        }

    def journal(self) -> int:
        """How many locations our own journal has."""
        with self.connect().connect() as connection:
            if f"{_OURS}gc_journal" not in sqlalchemy.inspect(connection).get_table_names():
                return 0
            statement = sqlalchemy.text(f"SELECT COUNT(*) FROM {_OURS}gc_journal")  # noqa: S608
            return int(connection.execute(statement).scalar_one())

    def _primary_keys(self, connection: sqlalchemy.Connection) -> Mapping[str, tuple[str, ...]]:
        if not self._keys:
            found = sqlalchemy.inspect(connection).get_multi_pk_constraint()
            for (_, table), key in found.items():
                if not table.startswith(_OURS):
                    self._keys[table] = tuple(key["constrained_columns"] if key else ())
        return self._keys

    def _clear(self, connection: sqlalchemy.Connection) -> None:
        """Delete what a store left there, and our own tables; nobody looks at foreign keys."""
        kept = {"alembic_version", "workspaces"}
        tables = self._primary_keys(connection).keys() - kept
        there = sqlalchemy.inspect(connection).get_table_names()
        statements = [f'DELETE FROM "{table}"' for table in tables]  # noqa: S608
        statements += [f"DROP TABLE {table}" for table in there if table.startswith(_OURS)]
        if self.uri.startswith("postgresql"):
            role = "SET LOCAL session_replication_role"
            statements = [f"{role} = replica", *statements, f"{role} = origin"]
        if self.uri.startswith("mysql"):
            # Before what is dropped: that ends the transaction.
            statements = ["SET foreign_key_checks = 0", *statements, "SET foreign_key_checks = 1"]
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))


def differences(found: Tables, expected: Tables) -> list[str]:
    """What is wrong with tables, a line for each row, at most ten of each table."""
    lines = []
    for table, rows in expected.items():
        wrong = [
            f"{table} {key}: {_told(found[table].get(key))} instead of {_told(rows.get(key))}"
            for key in found[table].keys() | rows.keys()
            if found[table].get(key) != rows.get(key)
        ]
        lines += wrong[:10]
    return lines


def _told(row: Mapping[str, Any] | None) -> str:
    return "no row" if row is None else str(dict(row))


def _plain(value: Any) -> Any:
    """Dates as SQLite has them."""
    return value.isoformat() if isinstance(value, date) else value
