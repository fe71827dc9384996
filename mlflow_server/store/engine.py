"""Connect to a backend store with deadlines, without MLflow.

Constructing an MLflow store migrates an old database silently, so whatever only wants to look goes
through here.
"""

import importlib
import importlib.util
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlflow_server.errors import (
    BadInputError,
    BusyError,
    InternalError,
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import DRIVERS, Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5
APPLICATION_NAME = "mlflow-tracking-server"


def require_driver(uri: StoreUri) -> str:
    """The name of the installed driver that will serve a URI.

    A URI that names no driver gets the first installed one, so `postgresql://` works with either
    psycopg 3 or psycopg2.

    Args:
        uri: The store.
        setting: The setting that holds it, for the message.

    Raises:
        SettingsError: No such driver is installed; says what to install.
    """
    known = DRIVERS[uri.dialect]
    wanted = [uri.driver] if uri.driver else list(known)
    for driver in wanted:
        module, _ = known[driver]
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue
        try:
            importlib.import_module(module)
        except ImportError as err:
            raise SettingsError(
                [f"{uri.setting}: the driver {module} for {uri.shown} cannot be loaded: {err}"],
                hint=f"install what it needs (pyodbc: the system package unixodbc), "
                f"or reinstall it: pip install --force-reinstall '{known[driver][1]}'",
            ) from None
        return driver
    module, package = known[wanted[0]]
    raise SettingsError(
        [f"{uri.setting}: the driver for {uri.shown} is not installed (no module {module!r})"],
        hint=f"pip install '{package}'",
    )


def driver_url(uri: StoreUri) -> str:
    """The URI with its driver spelled out, as SQLAlchemy and MLflow must be given it."""
    scheme, _, rest = uri.text.partition("://")
    return f"{scheme.partition('+')[0]}+{require_driver(uri)}://{rest}"


def connect_defaults(dialect: str, driver: str, application_name: str) -> dict[str, Any]:
    """Connection arguments that every connection of ours and of MLflow's pools should have.

    Args:
        dialect: SQLAlchemy's dialect name.
        driver: SQLAlchemy's driver name.
        application_name: What `pg_stat_activity` shows.

    Returns:
        Arguments for the driver's `connect`; the operator's URI is stronger.
    """
    match dialect, driver:
        case "postgresql", "psycopg" | "psycopg2":
            return {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": application_name}
        case "mysql", "pymysql" | "mysqldb":
            return {"connect_timeout": CONNECT_TIMEOUT_S}
        case "mssql", "pyodbc":
            return {"timeout": CONNECT_TIMEOUT_S}
        case _:
            return {}


def create_engine(uri: StoreUri, *, application_name: str = APPLICATION_NAME) -> "Engine":
    """An engine without a pool, for a command that opens few connections.

    A SQLite file is opened for reading only: looking must not create or change a file.
    """
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    if uri.is_sqlite:
        return sqlalchemy.create_engine(
            "sqlite://", creator=lambda: open_sqlite_read_only(uri), poolclass=NullPool
        )
    engine = sqlalchemy.create_engine(driver_url(uri), poolclass=NullPool)
    defaults = connect_defaults(engine.dialect.name, engine.dialect.driver, application_name)

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def _add_defaults(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> None:
        for name, value in defaults.items():
            parameters.setdefault(name, value)

    return engine


def create_write_engine(
    uri: StoreUri, *, application_name: str = APPLICATION_NAME, busy_timeout_s: float = 30.0
) -> "Engine":
    """An engine without a pool, for a command that changes an existing store.

    On SQLite each transaction takes the write lock at its beginning, so that what it has read still
    holds when it writes, and foreign keys are enforced. Elsewhere each statement sees what has been
    committed before it: MySQL would go on showing what was there at the transaction's first read,
    whatever it has locked since.

    Args:
        uri: The store; its SQLite file has to be there.
        application_name: What `pg_stat_activity` shows.
        busy_timeout_s: How long to wait for SQLite's write lock, seconds.
    """
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    if not uri.is_sqlite:
        engine = create_engine(uri, application_name=application_name)
        return engine.execution_options(isolation_level="READ COMMITTED")

    def open_file() -> sqlite3.Connection:
        connection = open_sqlite(uri, timeout_s=busy_timeout_s)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    engine = sqlalchemy.create_engine("sqlite://", creator=open_file, poolclass=NullPool)

    @sqlalchemy.event.listens_for(engine, "begin")
    def _take_write_lock(connection: "Connection") -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def open_sqlite(uri: StoreUri, *, timeout_s: float) -> sqlite3.Connection:
    """Open the existing file of a SQLite store for reading and writing, without making one.

    Args:
        uri: The store.
        timeout_s: How long to wait for a lock, seconds.
    """
    name = f"file:{quote(str(sqlite_path(uri)))}?mode=rw"
    return sqlite3.connect(name, uri=True, timeout=timeout_s, isolation_level=None)


def open_sqlite_read_only(uri: StoreUri) -> sqlite3.Connection:
    """Open the file of a SQLite store so that looking leaves no trace.

    A file in WAL mode without its `-wal` is complete in itself and opened as immutable: otherwise
    SQLite would leave `-wal` and `-shm` files beside it. One that a crash left with a journal is
    opened for writing, which is how SQLite takes the unfinished transaction back.
    """
    path = sqlite_path(uri)
    flag = "mode=ro"
    beside = [path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-shm")]
    if beside == [True, False]:
        # Nobody has it open; reading it here would leave a -shm behind.
        return _read_into_memory(path)
    if is_wal(path) and not path.with_name(path.name + "-wal").exists():
        flag = "immutable=1"
    elif path.with_name(path.name + "-journal").exists():
        flag = "mode=rw"
    name = f"file:{quote(str(path))}?{flag}"
    connection = sqlite3.connect(name, uri=True, timeout=1, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


def refuse_other_files(uri: StoreUri) -> None:
    """Raise when a SQLite store's file is something else, however short.

    SQLite itself takes a file of one byte for an empty database.

    Raises:
        BadInputError: The file does not begin as SQLite files do (sqlite.org/fileformat2).
    """
    try:
        with sqlite_path(uri).open("rb") as file:
            header = file.read(16)
    except OSError:
        return  # opening it as a database says what is wrong
    if header != b"SQLite format 3\0":
        raise _not_a_database(uri)


def _not_a_database(uri: StoreUri) -> OpsError:
    return BadInputError(
        f"{uri.shown}: the file is not a SQLite database",
        hint=f"point {uri.setting} at another file, or restore a backup",
    )


def _read_into_memory(path: Path) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory(prefix="mlflow-server-") as folder:
        copy = Path(folder) / "copy"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        connection = sqlite3.connect(copy)
        try:
            connection.backup(memory)
        finally:
            connection.close()
    return memory


def is_wal(path: Path) -> bool:
    """True when the file's header names WAL (bytes 18 and 19 are 2; sqlite.org/fileformat2)."""
    try:
        with path.open("rb") as file:
            return file.read(20)[18:20] == b"\x02\x02"
    except OSError:
        return False


def sqlite_path(uri: StoreUri) -> Path:
    """The absolute path of a SQLite store's file, links resolved."""
    if uri.path is None:
        raise ValueError("not a SQLite file")
    return uri.path.expanduser().resolve()


@contextmanager
def connect(uri: StoreUri, *, application_name: str = APPLICATION_NAME) -> Iterator["Connection"]:
    """A connection for looking; every failure comes out as an `OpsError` without credentials."""
    engine = create_engine(uri, application_name=application_name)
    try:
        with explained(uri), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def explained(uri: StoreUri) -> Iterator[None]:
    """What a database raises within comes out as an `OpsError` without credentials."""
    try:
        yield
    except OpsError:
        raise
    except Exception as err:
        failure = explain_failure(uri, err)
        if failure is None:
            raise
        raise failure from None


# Text of a driver's message (lower case) -> what it means. The first that fits counts.
_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "access denied for user",
    "login failed for user",
    "no pg_hba.conf entry",
    "permission denied",
    "insufficient privilege",
    "peer authentication failed",
    "role ",
)
_NO_DATABASE = ("unknown database", "cannot open database", "database ")
_BUSY = ("lock timeout", "lock wait timeout")
_UNREACHABLE = (
    "could not connect",
    "can't connect",
    "connection refused",
    "could not translate host name",
    "failed to resolve host",
    "name or service not known",
    "timeout expired",
    "timed out",
    "connection timeout",
    "no route to host",
    "server closed the connection",
    "terminating connection",
    "lost connection",
    "too many connections",
    "too many clients",
    "connection failed",
    "connection to server",
    "no such file or directory",
)


def explain_failure(uri: StoreUri, err: BaseException) -> OpsError | None:
    """What a driver's error means for an operator; None when it is none of the driver's.

    The driver's own words are used to judge, never repeated: some of them hold the URI.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    if uri.is_sqlite:
        original = err.orig if isinstance(err, DBAPIError) else err
        return _explain_sqlite(uri, original) if isinstance(original, sqlite3.Error) else None
    if isinstance(err, TimeoutError):
        return UnavailableError(
            f"{uri.shown}: no answer from the database within {CONNECT_TIMEOUT_S} s",
            hint="check host, port and firewall; mlflow-server doctor looks again",
        )
    if not isinstance(err, SQLAlchemyError | OSError) and not _is_of_driver(uri, err):
        return None
    text = str(getattr(err, "orig", None) or err).lower()
    if any(words in text for words in _NO_DATABASE) and (
        "does not exist" in text or "unknown database" in text or "cannot open database" in text
    ):
        return UnavailableError(
            f"{uri.shown}: the server has no such database",
            hint="create it first (CREATE DATABASE …), empty; serve then fills it",
        )
    if any(words in text for words in _BUSY):
        return BusyError(
            f"{uri.shown}: another program keeps tables of the database locked",
            hint="stop servers and other clients of this database, then try again",
        )
    if any(words in text for words in _REFUSED):
        return PermissionDeniedError(
            f"{uri.shown}: the database refuses these credentials",
            hint=f"check user and password in {uri.setting}, and the user's privileges",
        )
    if any(words in text for words in _UNREACHABLE):
        timed_out = "timeout" in text or "timed out" in text
        reason = (
            f"no answer within {CONNECT_TIMEOUT_S} s" if timed_out else _reason_unreachable(text)
        )
        return UnavailableError(
            f"{uri.shown}: cannot reach the database: {reason}",
            hint="check host, port and firewall; mlflow-server doctor looks again",
        )
    kind = type(getattr(err, "orig", None) or err).__name__
    return UnavailableError(f"{uri.shown}: the database answered with an error ({kind})")


def _is_of_driver(uri: StoreUri, err: BaseException) -> bool:
    """True for what a driver raises when SQLAlchemy is not in between."""
    modules = {module.partition(".")[0] for module, _ in DRIVERS[uri.dialect].values()}
    return any(
        kind.__name__ == "Error" and kind.__module__.partition(".")[0] in modules
        for kind in type(err).__mro__
    )


def _reason_unreachable(text: str) -> str:
    if "refused" in text:
        return "connection refused"
    if "resolve" in text or "translate host" in text or "not known" in text:
        return "unknown host name"
    if "too many" in text:
        return "it has no free connection left"
    return "connection failed"


def _explain_sqlite(uri: StoreUri, err: sqlite3.Error) -> OpsError:
    if sqlite_path(uri).is_dir():
        return BadInputError(
            f"{uri.shown}: this is a folder, not a SQLite file",
            hint=f"name a file in {uri.setting}",
        )
    code = getattr(err, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    match primary:
        case sqlite3.SQLITE_NOTADB:
            return _not_a_database(uri)
        case sqlite3.SQLITE_CORRUPT:
            return BadInputError(
                f"{uri.shown}: the SQLite file is damaged", hint="restore it from a backup"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return BusyError(
                f"{uri.shown}: another program keeps the SQLite file locked",
                hint="stop that program (fuser FILE names it), then try again",
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return PermissionDeniedError(f"{uri.shown}: the SQLite file is not writable")
        case sqlite3.SQLITE_CANTOPEN:
            return _explain_cannot_open(uri)
        case sqlite3.SQLITE_FULL:
            return UnavailableError(f"{uri.shown}: the disk is full")
        case _:
            return InternalError(f"{uri.shown}: SQLite failed ({type(err).__name__})")


def _explain_cannot_open(uri: StoreUri) -> OpsError:
    path = sqlite_path(uri)
    if not path.exists():
        return UnavailableError(f"{uri.shown}: the file does not exist")
    return PermissionDeniedError(f"{uri.shown}: the SQLite file cannot be opened")


def is_dialect(connection: "Connection", dialect: Dialect) -> bool:
    """True when a connection leads to that kind of database."""
    return connection.dialect.name == dialect.value
