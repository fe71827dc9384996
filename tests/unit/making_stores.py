"""SQLite files that stand for MLflow stores of several kinds, made without importing MLflow."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mlflow_server.store.revision import head_revision
from mlflow_server.uris import StoreUri, parse_store_uri


def make_store(
    path: Path,
    *,
    revisions: Sequence[str] | None = None,
    tables: Sequence[str] = ("experiments", "runs"),
    wal: bool = False,
) -> StoreUri:
    """A file with empty tables and these rows in `alembic_version`; by default one at head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for table in tables:
            connection.execute(f"CREATE TABLE {table} (x int)")
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32))")
        for revision in [head_revision()] if revisions is None else revisions:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.execute("COMMIT")
    finally:
        connection.close()
    return parse_store_uri(f"sqlite:///{path}")
