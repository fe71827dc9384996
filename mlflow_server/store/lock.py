"""One operation at a time per store: an advisory lock of the database, or `flock` beside SQLite.

The lock ends with the process that holds it, however that ends.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.errors import BusyError, UnavailableError
from mlflow_server.report import render_time
from mlflow_server.store.engine import connect, sqlite_path
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Two fixed 32-bit numbers ("mlfl", "ow-s" as ASCII): the pair that names our lock in PostgreSQL.
_PG_CLASS, _PG_OBJECT = 0x6D6C666C, 0x6F772D73
_LOCK_NAME = "mlflow-tracking-server"
_POLL_S = 0.1


@contextmanager
def exclusive(uri: StoreUri, command: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the store's exclusive lock.

    Args:
        uri: The store; a SQLite lock file is made beside the database file.
        command: What holds it, shown to whoever finds it busy.
        wait_s: How long to wait for another holder, seconds.

    Raises:
        BusyError: Another operation holds it; says which, and since when.
        OpsError: The store cannot be reached.
    """
    if uri.is_sqlite:
        with _flock(sqlite_path(uri), command, wait_s):
            yield
        return
    holder = f"{_LOCK_NAME} {command} {socket.gethostname()}:{os.getpid()}"[:63]
    with connect(uri, application_name=holder) as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        if connection.dialect.name == Dialect.MYSQL:
            _scalar(connection, f"SELECT GET_LOCK({mysql_mark('CONNECTION_ID()')}, 0)")
        deadline = time.monotonic() + wait_s
        while not _try_lock(connection):
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"{uri.shown}: another operation holds the lock: {_holder(connection)}",
                    hint="wait until it has ended, then try again",
                )
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            _unlock(connection)


@contextmanager
def _flock(database: Path, command: str, wait_s: float) -> Iterator[None]:
    path = database.with_name(database.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise UnavailableError(
            f"{path}: cannot be made to lock the store: {err.strerror}"
        ) from None
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        f"{database}: another operation holds the lock: {_read_holder(path)}",
                        hint="wait until it has ended, then try again",
                    ) from None
                time.sleep(_POLL_S)
        holder = {
            "command": command,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": render_time(datetime.now(UTC)),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text("utf-8"))
        return f"{holder['command']} (pid {holder['pid']} on {holder['host']}) since " + str(
            holder["since"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "not known which"


def _scalar(connection: "Connection", statement: str, **parameters: Any) -> Any:
    import sqlalchemy

    return connection.execute(sqlalchemy.text(statement), parameters).scalar()


def _try_lock(connection: "Connection") -> bool:
    match connection.dialect.name:
        case Dialect.POSTGRESQL:
            return bool(
                _scalar(
                    connection,
                    "SELECT pg_try_advisory_lock(:a, :b)",
                    a=_PG_CLASS,
                    b=_PG_OBJECT,
                )
            )
        case Dialect.MYSQL:
            return bool(_scalar(connection, f"SELECT GET_LOCK({_MYSQL_NAME}, 0)", n=_LOCK_NAME))
        case _:
            code = _scalar(
                connection,
                "DECLARE @r int; EXEC @r = sp_getapplock @Resource = :n, @LockMode = 'Exclusive', "
                "@LockOwner = 'Session', @LockTimeout = 0; SELECT @r",
                n=_LOCK_NAME,
            )
            return code is not None and int(code) >= 0


def _unlock(connection: "Connection") -> None:
    match connection.dialect.name:
        case Dialect.POSTGRESQL:
            _scalar(connection, "SELECT pg_advisory_unlock(:a, :b)", a=_PG_CLASS, b=_PG_OBJECT)
        case Dialect.MYSQL:
            _scalar(connection, f"SELECT RELEASE_LOCK({_MYSQL_NAME})", n=_LOCK_NAME)
        case _:
            connection.invalidate()


def mysql_mark(session: str) -> str:
    """The name of a lock that sessions which hold or wait for ours have beside it: each its own.

    MySQL has no other way to say what a session is for that everybody may read.

    Args:
        session: Its number, as SQL.
    """
    return f"CONCAT('{_LOCK_NAME} ', {session})"


# GET_LOCK names belong to the whole MySQL server and are at most 64 characters long.
_MYSQL_NAME = "LEFT(CONCAT(:n, ':', DATABASE()), 64)"


def _holder(connection: "Connection") -> str:
    """Who holds the lock and since when, as far as the database tells."""
    import sqlalchemy

    if connection.dialect.name == Dialect.POSTGRESQL:
        query = (
            "SELECT a.application_name, a.pid, a.backend_start FROM pg_locks l "
            "JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' "
            "AND l.granted AND l.classid = :a AND l.objid = :b "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        parameters = {"a": _PG_CLASS, "b": _PG_OBJECT}
        row = connection.execute(sqlalchemy.text(query), parameters).first()
        if row is not None:
            return f"{row[0]} (backend {row[1]}) since {render_time(row[2])}"
    if connection.dialect.name == Dialect.MYSQL:
        owner = _scalar(connection, f"SELECT IS_USED_LOCK({_MYSQL_NAME})", n=_LOCK_NAME)
        if owner is not None:
            return f"connection {owner} of the database"
    return "not known which"
