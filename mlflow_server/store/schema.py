"""Make the schema of an empty store, through MLflow's own migrations, all or nothing."""

import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.store.engine import create_engine, sqlite_path
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import (
    UNFINISHED_TABLE,
    SchemaState,
    read_store_status,
    require_usable,
)
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

INITIALISE_TIMEOUT_S = 60.0


def initialise(uri: StoreUri, finish: Callable[[], None] = lambda: None) -> bool:
    """Fill an empty store with this release's schema.

    Any number of servers may call this at once: one does it, the others wait for it. A kill at any
    moment leaves the store empty or complete, or marked as unfinished where the database cannot
    take DDL back (MySQL, SQL Server); the next call then starts over.

    Args:
        uri: The store.
        finish: Called under the lock once the schema is there, by the one that made it.

    Returns:
        True when this call did it.

    Raises:
        SchemaError: Meanwhile the store holds something that does not fit.
        BusyError: Another process holds the lock for longer than a minute.
    """
    if uri.is_sqlite:
        sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
    with exclusive(uri, "serve", wait_s=INITIALISE_TIMEOUT_S):
        status = read_store_status(uri)
        require_usable(status, uri)
        if status.state is not SchemaState.EMPTY:
            return False
        if uri.is_sqlite:
            _create_sqlite_file(sqlite_path(uri))
        else:
            _create_in_database(uri)
        finish()
        return True


def _create_in_database(uri: StoreUri) -> None:
    import sqlalchemy

    engine = create_engine(uri)
    try:
        if uri.dialect is Dialect.POSTGRESQL:
            with engine.begin() as connection:
                migrate_to_head(connection)
            return
        with engine.begin() as connection:
            _remove_unfinished(connection)
            connection.execute(sqlalchemy.text(f"CREATE TABLE {UNFINISHED_TABLE} (started int)"))
        with engine.begin() as connection:
            migrate_to_head(connection)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"DROP TABLE {UNFINISHED_TABLE}"))
    finally:
        engine.dispose()


def _remove_unfinished(connection: "Connection") -> None:
    """Drop the tables of an initialisation that was killed; nobody can have used them."""
    import sqlalchemy

    tables = sqlalchemy.MetaData()
    tables.reflect(connection)
    if UNFINISHED_TABLE not in tables.tables:
        return
    log.warning("an initialisation was interrupted; starting over")
    tables.drop_all(connection)


def migrate_to_head(connection: "Connection") -> None:
    """Run MLflow's migrations on an empty database, in the transaction of `connection`.

    MLflow's own `_initialize_tables` commits the first tables before it migrates; killed in
    between, it leaves a store that nobody can open. Here both are one transaction.

    Source: MLflow 3.17.2 `store/db/utils.py` `_initialize_tables`, `store/db_migrations/env.py`.
    """
    import mlflow.store.db.utils as mlflow_db
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    mlflow_db.InitialBase.metadata.create_all(connection)
    config = mlflow_db._get_alembic_config("")
    scripts = ScriptDirectory.from_config(config)
    environment = EnvironmentContext(
        config, scripts, fn=lambda revision, _: scripts._upgrade_revs("heads", revision)
    )
    with environment:
        environment.configure(
            connection=connection,
            target_metadata=mlflow_db.Base.metadata,
            render_as_batch=True,
        )
        with environment.begin_transaction():
            environment.run_migrations()


def _create_sqlite_file(path: Path) -> None:
    """Make the schema in a folder beside the file and move it into place in one step.

    The migrations commit step by step on SQLite, so the file under its final name is never one of
    them half way. An existing file is known to be empty; its owner and mode are kept.
    """
    import sqlalchemy

    leftovers = f".{path.name}.new-"
    for stale in path.parent.glob(f"{leftovers}*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=leftovers, dir=path.parent) as folder:
        new = Path(folder) / path.name
        engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(new)))
        sqlalchemy.event.listen(engine, "connect", _without_syncing)
        try:
            with engine.begin() as connection:
                migrate_to_head(connection)
        finally:
            engine.dispose()
        if path.exists():
            shutil.copystat(path, new)
            owner = path.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(new, owner.st_uid, owner.st_gid)
        _fsync(new)
        new.replace(path)
        _fsync(path.parent)


def _without_syncing(connection: sqlite3.Connection, _record: object) -> None:
    """Sixty-seven migrations need not reach the disk one by one; the finished file is synced."""
    connection.execute("PRAGMA synchronous = OFF")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
