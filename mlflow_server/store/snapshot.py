"""Read all tables of a store as they were at one moment, while servers go on writing."""

import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlflow_server.errors import BadInputError, BusyError, SettingsError, UnavailableError
from mlflow_server.store.engine import (
    create_engine,
    explained,
    is_wal,
    open_sqlite_read_only,
    refuse_other_files,
    sqlite_path,
)
from mlflow_server.store.reflection import NOT_CARRIED, Stored, read_rows, reflect
from mlflow_server.store.revision import VERSION_TABLE, read_auth_revision, read_revisions
from mlflow_server.store.tables import Row, Table
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 30.0
_COPY_ATTEMPTS = 5


class Snapshot:
    """A store's tables at one moment.

    Args:
        uri: The store.
        connection: In a transaction that sees one moment.

    Attributes:
        revision: What `alembic_version` says; None without one.
        auth_revision: Of the tables of MLflow's basic authentication; None without any.
        tables: All but those of revisions and what is of no use elsewhere, parents before children.
    """

    def __init__(self, uri: StoreUri, connection: "Connection") -> None:
        self._uri = uri
        self._connection = connection
        found = reflect(connection)
        self._stored: dict[str, Stored] = {
            name: stored for name, stored in found.items() if name not in NOT_CARRIED
        }
        self.tables: tuple[Table, ...] = tuple(s.table for s in self._stored.values())
        self.revision: str | None = None
        if connection.dialect.has_table(connection, VERSION_TABLE):
            self.revision = ", ".join(sorted(read_revisions(connection))) or None
        self.auth_revision = read_auth_revision(connection)

    @property
    def dialect(self) -> Dialect:
        """The kind of database."""
        return self._uri.dialect

    def rows(self, table: Table) -> Iterator[list[Row]]:
        """All rows of a table, in no order, in batches of at most `reflection.BATCH_ROWS`.

        A batch is smaller where rows may be long, so that memory is bounded. One table at a time:
        MySQL has one cursor for each connection.

        Raises:
            BadInputError: SQLite has text that is not UTF-8.
            OpsError: The database failed.
        """
        batches = read_rows(self._connection, self._stored[table.name], table)
        with closing(batches):
            while True:
                with explained(self._uri):
                    try:
                        batch = next(batches, None)
                    except sqlite3.OperationalError as err:
                        raise _not_text(self._uri, table, err) from None
                if batch is None:
                    return
                yield batch

    def count(self, table: Table) -> int:
        """How many rows a table has; counted, which reads the table or an index of it."""
        quoted = self._connection.dialect.identifier_preparer.quote(table.name)
        with explained(self._uri):
            query = f"SELECT count(*) FROM {quoted}"  # noqa: S608 - quoted
            return int(self._connection.exec_driver_sql(query).scalar_one())

    def size_bytes(self) -> int:
        """About how many bytes the tables and their indexes take there; not what a backup takes.

        Cheap: what the database keeps about itself, on SQLite the size of the file.
        """
        queries = {
            Dialect.SQLITE: "SELECT page_count * page_size "
            "FROM pragma_page_count, pragma_page_size",
            Dialect.POSTGRESQL: "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind = 'r' AND n.nspname = current_schema()",
            Dialect.MYSQL: "SELECT sum(data_length + index_length) FROM information_schema.tables "
            "WHERE table_schema = DATABASE()",
        }
        with explained(self._uri):
            return int(self._connection.exec_driver_sql(queries[self.dialect]).scalar() or 0)


@contextmanager
def snapshot(uri: StoreUri) -> Iterator[Snapshot]:
    """Look at a store as it is at this moment, for as long as the block takes.

    Servers go on writing. Nothing is changed, and no file appears beside a SQLite store that nobody
    uses. A SQLite file that is not in WAL mode, or that nobody has open, is copied into the folder
    for temporary files first: a long read would keep writers out, or not see them.

    Args:
        uri: The store, at any revision.

    Raises:
        SettingsError: The dialect is SQL Server's.
        OpsError: The store cannot be reached or read; see `engine.explain_failure`.
    """
    if uri.dialect is Dialect.MSSQL:
        raise SettingsError(
            [f"{uri.setting}: {uri.shown}: stores on SQL Server cannot be copied by this program"],
            hint="use the database's own backup",
        )
    with ExitStack() as stack:
        with explained(uri):
            engine = stack.enter_context(_engine(uri))
            stack.callback(engine.dispose)
            connection = stack.enter_context(engine.connect())
            connection = _begin(connection)
            found = Snapshot(uri, connection)
        yield found


def _begin(connection: "Connection") -> "Connection":
    """Open the transaction that sees one moment."""
    match connection.dialect.name:
        case Dialect.POSTGRESQL:
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            # A batch is written elsewhere between two statements, however long that takes.
            for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
        case Dialect.MYSQL:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
            connection.exec_driver_sql("SET SESSION net_write_timeout = 3600, time_zone = '+00:00'")
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        case _:
            connection.exec_driver_sql("BEGIN")
            # The moment is that of the first read.
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    return connection


@contextmanager
def _engine(uri: StoreUri) -> Iterator["Engine"]:
    """An engine for reading the store, or a copy of its SQLite file."""
    if not uri.is_sqlite:
        yield create_engine(uri)
        return
    refuse_other_files(uri)
    path = sqlite_path(uri)
    with ExitStack() as stack:
        for _ in range(_COPY_ATTEMPTS):
            if not path.is_file() or _is_live_wal(path):
                yield create_engine(uri)
                return
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="mlflow-server-snapshot-")
            )
            copy = Path(folder) / "copy.sqlite"
            try:
                is_of_one_moment = _copy(uri, path, copy)
            except (OSError, sqlite3.Error) as err:
                if isinstance(err, sqlite3.Error) and err.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                raise UnavailableError(
                    f"{uri.shown}: cannot be copied to {Path(folder).parent} for reading: "
                    + (getattr(err, "strerror", None) or "no space left"),
                    hint="free space there, or set TMPDIR to another folder",
                ) from None
            if is_of_one_moment:
                yield _engine_of_file(copy)
                return
            stack.close()
            time.sleep(0.2)
        raise BusyError(
            f"{uri.shown}: programs open and close the SQLite file while it is copied",
            hint="try again while the server runs, or while nothing does",
        )


def _engine_of_file(path: Path) -> "Engine":
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    url = f"file:{quote(str(path))}"
    return sqlalchemy.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(url, uri=True, isolation_level=None),
        poolclass=NullPool,
    )


def _is_live_wal(path: Path) -> bool:
    """True when a program has the file open in WAL mode: reading it keeps no writer out."""
    beside = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    return is_wal(path) and all(file.exists() for file in beside)


def _copy(uri: StoreUri, path: Path, copy: Path) -> bool:
    """Copy a SQLite file that nobody uses, or that is not in WAL mode; False if it changed.

    SQLite's own backup has the file locked for the copy's time. A file in WAL mode that nobody has
    open is copied as files are, because SQLite would leave files beside it; writers that begin
    meanwhile show in the files' times.
    """
    if not is_wal(path):
        with (
            closing(open_sqlite_read_only(uri)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")
            target.execute("PRAGMA synchronous = OFF")
            source.backup(target)
        return True
    before = _state(path)
    shutil.copyfile(path, copy)
    had_log = before[1] is not None
    if had_log:
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    after = _state(path)
    # A log that appeared meanwhile holds what came after this moment.
    return after == before if had_log else after[0] == before[0]


def _state(path: Path) -> list[tuple[int, int, int] | None]:
    """What tells that a file or its log was written to."""
    found: list[tuple[int, int, int] | None] = []
    for suffix in ("", "-wal"):
        try:
            status = path.with_name(path.name + suffix).stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found


def _not_text(uri: StoreUri, table: Table, err: sqlite3.OperationalError) -> Exception:
    if "decode to UTF-8" not in str(err):
        return err
    return BadInputError(f"{uri.shown}: table {table.name} has text that is not UTF-8")
