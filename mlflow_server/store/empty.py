"""Have an empty database with MLflow's schema, whose content appears in one step at the end.

PostgreSQL does all in one transaction. A SQLite file is made beside its final name. MySQL cannot
take DDL back: a table marks what is there as unfinished until the end.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import mlflow_server.store.schema as schema
from mlflow_server.errors import OpsError, SchemaError
from mlflow_server.store.engine import create_engine, open_sqlite, sqlite_path
from mlflow_server.store.reflection import reflect
from mlflow_server.store.revision import (
    OWN_TABLE_PREFIX,
    UNFINISHED_TABLE,
    UPGRADING_TABLE,
    VERSION_TABLE,
    SchemaState,
    SchemaStatus,
    auth_tables_in,
    mlflow_tables,
    read_status,
    read_store_status,
    require_usable,
)
from mlflow_server.store.sqlite_file import appearing, create_unsynced_engine
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

# Makes the schema, without the rows that MLflow's migrations insert.
Make: TypeAlias = Callable[["Connection"], None]

_LOCK_TIMEOUT_S = 20
_OPEN_TIMEOUT_S = 5.0


@contextmanager
def empty_schema(
    uri: StoreUri,
    brought: Collection[str],
    revision: str | None,
    auth_revision: str | None = None,
    *,
    replace: bool,
) -> Iterator["Connection"]:
    """A connection to a database with the schema and no rows; committed at the end of the block.

    Args:
        uri: The target.
        brought: Names of tables that a store which is replaced may have besides MLflow's.
        revision: Of MLflow's schema; None for the newest.
        auth_revision: Of the tables of its basic authentication; None without them. With this one
            and no `revision` there is no other schema.
        replace: Drop the store that is there.

    Raises:
        OpsError: See `load.filling`.
    """
    places = {
        Dialect.SQLITE: _in_sqlite,
        Dialect.POSTGRESQL: _in_postgresql,
        Dialect.MYSQL: _in_mysql,
    }
    make = partial(_make_empty_schema, revision=revision, auth_revision=auth_revision)
    with places[uri.dialect](uri, brought, make, replace) as connection:
        yield connection


@contextmanager
def _in_sqlite(
    uri: StoreUri, brought: Collection[str], make: Make, replace: bool
) -> Iterator["Connection"]:
    status = read_store_status(uri)
    is_there = status.state is not SchemaState.EMPTY
    if is_there:
        engine = create_engine(uri)
        with _disposing(engine), engine.connect() as connection:
            _require_fillable(uri, connection, status, brought, replace)
    path = sqlite_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as new:
        engine = create_unsynced_engine(new)
        with _disposing(engine), engine.connect() as connection:
            make(connection)
            connection.commit()
            yield connection
            connection.commit()
        if path.exists():
            _retire(uri)


def _retire(uri: StoreUri) -> None:
    """Have an old file's log written into it: beside the new file it would be taken for its own.

    Raises:
        BusyError: Another program has the file open.
    """
    with closing(open_sqlite(uri, timeout_s=_OPEN_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")


@contextmanager
def _in_postgresql(
    uri: StoreUri, brought: Collection[str], make: Make, replace: bool
) -> Iterator["Connection"]:
    engine = create_engine(uri)
    with _disposing(engine), engine.connect() as connection, _one_transaction(connection):
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        connection.exec_driver_sql("SET LOCAL client_encoding = 'UTF8'")
        _require_fillable(uri, connection, read_status(connection), brought, replace)
        names = _table_names(connection)
        if names:
            quote = connection.dialect.identifier_preparer.quote
            connection.exec_driver_sql(f"DROP TABLE {', '.join(map(quote, names))}")
        make(connection)
        yield connection


@contextmanager
def _one_transaction(connection: "Connection") -> Iterator[None]:
    """Commit at the end of the block; what it raises is never hidden by a lost connection."""
    connection.begin()
    try:
        yield
    except BaseException:
        with suppress(Exception):
            connection.rollback()
        with suppress(Exception):
            connection.invalidate()
        raise
    connection.commit()


@contextmanager
def _in_mysql(
    uri: StoreUri, brought: Collection[str], make: Make, replace: bool
) -> Iterator["Connection"]:
    engine = create_engine(uri)
    with _disposing(engine), engine.connect() as connection:
        _require_fillable(uri, connection, read_status(connection), brought, replace)
        connection.exec_driver_sql(
            "SET SESSION foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00', "
            f"lock_wait_timeout = {_LOCK_TIMEOUT_S}, "
            # The Default experiment has the number 0, which MySQL would take for the next one.
            "sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'"
        )
        connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {UNFINISHED_TABLE} (started int)")
        schema.drop_unfinished(connection)
        try:
            make(connection)
            connection.commit()
            yield connection
            connection.commit()
        except BaseException:
            try:
                connection.rollback()
                schema.drop_unfinished(connection)
                connection.exec_driver_sql(f"DROP TABLE {UNFINISHED_TABLE}")
            except Exception as err:
                log.warning("what was written stays, marked as unfinished (%s)", type(err).__name__)
            raise
        # This one first: with the other alone, the store counts as half way, and not as empty.
        connection.exec_driver_sql(f"DROP TABLE {UNFINISHED_TABLE}")
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {UPGRADING_TABLE}")


@contextmanager
def _disposing(engine: "sqlalchemy.Engine") -> Iterator[None]:
    """Have an engine's connections closed at the end."""
    try:
        yield
    finally:
        engine.dispose()


def _require_fillable(
    uri: StoreUri,
    connection: "Connection",
    status: SchemaStatus,
    brought: Collection[str],
    replace: bool,
) -> None:
    """Raise unless the database is empty, or may be replaced and holds nothing else."""
    if status.state is SchemaState.EMPTY:
        return
    names = _table_names(connection)
    of_auth = auth_tables_in(names)
    is_auth = status.state is SchemaState.FOREIGN and of_auth.issuperset(names)
    if status.state in (SchemaState.FOREIGN, SchemaState.BROKEN) and not is_auth:
        require_usable(status, uri)
    ours = mlflow_tables() | of_auth | set(brought) | {VERSION_TABLE}
    foreign = sorted(
        name for name in names if name not in ours and not name.startswith(OWN_TABLE_PREFIX)
    )
    if foreign:
        raise SchemaError(
            f"{uri.shown}: besides a store, the database holds tables of another application: "
            + ", ".join(foreign[:5])
            + (" …" if foreign[5:] else ""),
            hint="give MLflow an empty database of its own",
        )
    if is_auth and not replace:
        raise OpsError(
            f"{uri.shown}: the database is not empty: it holds users",
            hint="name an empty database, or say that this one is to be replaced",
        )
    if not replace:
        experiments = connection.exec_driver_sql("SELECT count(*) FROM experiments").scalar()
        runs = connection.exec_driver_sql("SELECT count(*) FROM runs").scalar()
        raise OpsError(
            f"{uri.shown}: the database is not empty: it holds a store with "
            f"{experiments} experiments and {runs} runs",
            hint="name an empty database, or say that this store is to be replaced",
        )


def _table_names(connection: "Connection") -> list[str]:
    import sqlalchemy

    return sorted(sqlalchemy.inspect(connection).get_table_names())


def _make_empty_schema(
    connection: "Connection", revision: str | None, auth_revision: str | None
) -> None:
    if revision is not None or auth_revision is None:
        schema.make_schema(connection, revision)
    if auth_revision is not None:
        schema.make_auth_schema(connection, auth_revision)
    for stored in reversed(reflect(connection).values()):
        quoted = connection.dialect.identifier_preparer.quote(stored.table.name)
        if stored.table.known:
            connection.exec_driver_sql(f"DELETE FROM {quoted}")  # noqa: S608 - quoted
