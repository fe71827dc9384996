"""Upgrade a store on PostgreSQL: all of it is one transaction."""

import contextlib
import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from mlflow_server.errors import BusyError, OpsError, PermissionDeniedError, UnavailableError
from mlflow_server.store.engine import connect, create_engine, driver_url
from mlflow_server.store.revision import UPGRADES_TABLE
from mlflow_server.store.schema import load_migrations
from mlflow_server.store.sqlite_file import sync_path
from mlflow_server.upgrade.archive import keep_archive, restore_archive
from mlflow_server.upgrade.keeping import BackupFolder, Kept, Record, digest_of, make_record, note
from mlflow_server.upgrade.migrating import (
    Stepping,
    count_rows,
    is_lock_timeout,
    migrate_all,
    require_all_there,
)
from mlflow_server.upgrade.sessions import postgresql_sessions, require_alone, session_name
from mlflow_server.upgrade.survey import Surveyed
from mlflow_server.upgrade.watch import Watch
from mlflow_server.uris import StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

# Whoever wants a table that we wait for waits behind us, so long at the most.
_LOCK_TIMEOUT_S = 5
_ATTEMPTS = 3
_PAUSE_S = 2.0
_ONLINE = "; they would be kept waiting with --online"


# As the C library says it.
_FULL = "No space left on device"


def find_pg_dump(server_version: int) -> str | None:
    """The `pg_dump` on PATH when it can dump a server of that major version."""
    program = shutil.which("pg_dump")
    if program is None:
        return None
    told = subprocess.run(  # noqa: S603 - found on PATH
        (program, "--version"), capture_output=True, text=True, check=False
    )
    found = re.search(r" (\d+)", told.stdout)
    # Older ones refuse newer servers.
    return program if found and int(found[1]) >= server_version else None


def upgrade_postgresql(
    uri: StoreUri,
    found: Surveyed,
    folder: BackupFolder,
    id_: str,
    step: Stepping,
    *,
    is_online: bool,
) -> Record:
    """Upgrade a store whose lock is held.

    Args:
        uri: The store.
        found: What is to be done.
        folder: Takes the backup.
        id_: Of the upgrade.
        step: Told after each revision.
        is_online: Others may be connected; they wait, for their tables, until it has ended.

    Raises:
        BusyError: Somebody else is connected, or keeps tables locked.
        PermissionDeniedError: The database is read-only.
        OpsError: It failed; the database is as it was.
    """
    load_migrations()
    engine = create_engine(uri, application_name=session_name())
    try:
        if not is_online:
            require_alone(uri, postgresql_sessions, hint=_ONLINE)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _upgrade(uri, engine, found, folder, id_, step)
            except BusyError:
                if attempt == _ATTEMPTS:
                    raise
                log.warning("tables of the store are locked; trying again")
                time.sleep(_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")
    finally:
        engine.dispose()


def _upgrade(
    uri: StoreUri, engine: "Engine", found: Surveyed, folder: BackupFolder, id_: str, step: Stepping
) -> Record:
    with engine.connect() as connection, connection.begin():
        if connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on":
            raise PermissionDeniedError(
                f"{uri.shown}: the database is read-only",
                hint="name the primary server; or set default_transaction_read_only to off",
            )
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        tables = _tables(connection)
        # Others may read until the backup is made, and nobody writes what would not be in it.
        with _waiting_for_tables(uri):
            _lock(connection, tables, "SHARE ROW EXCLUSIVE")
        watch = Watch()
        with watch.part("backup"):
            kept = keep_postgresql(uri, connection, folder.path)
        with _waiting_for_tables(uri):
            _lock(connection, tables, "ACCESS EXCLUSIVE")
            with watch.part("verification"):
                before = count_rows(connection, found.plan.status.pending)
            with watch.part("migration"):
                migrate_all(connection, found, step)
        with watch.part("verification"):
            rows = require_all_there(connection, found, before, 0)
        record = make_record(id_, found, kept, rows, watch)
        note(connection, record)
        folder.need()
    return record


def _tables(connection: "Connection") -> list[str]:
    quote = connection.dialect.identifier_preparer.quote
    names = connection.dialect.get_table_names(connection)
    return [quote(name) for name in sorted(names)]


def _lock(connection: "Connection", tables: Sequence[str], mode: str) -> None:
    if tables:
        connection.exec_driver_sql(_lock_statement(tables, mode))


def _lock_statement(tables: Sequence[str], mode: str) -> str:
    return f"LOCK TABLE {', '.join(tables)} IN {mode} MODE"


@contextmanager
def _waiting_for_tables(uri: StoreUri) -> Iterator[None]:
    """Say who keeps us waiting for tables."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as err:
        if not is_lock_timeout(err):
            raise
        raise BusyError(
            f"{uri.shown}: another session keeps tables of the store locked for more than "
            f"{_LOCK_TIMEOUT_S} s",
            hint="look for 'idle in transaction' in pg_stat_activity, and end that session",
        ) from None


def keep_postgresql(uri: StoreUri, connection: "Connection", folder: Path) -> Kept:
    """Dump a database, or make an archive of it where there is no `pg_dump` that can.

    Raises:
        OpsError: It failed.
    """
    version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    program = find_pg_dump(version)
    if program is None:
        log.info("there is no pg_dump of PostgreSQL %s or newer: an archive is made", version)
        return keep_archive(uri, folder)
    path = folder / "store.dump"
    run_client((program, "-Fc", "--no-password", "-f", str(path)), uri, "pg_dump")
    sync_path(path)
    sync_path(folder)
    return Kept("pg_dump", str(path), path.stat().st_size, digest_of(path))


def count_written_postgresql(connection: "Connection", record: Record) -> dict[str, int]:
    """Rows of each table that were written since an upgrade, or removed.

    Rows that are newer than the note of the upgrade were written by later transactions.
    """
    queries = _written_queries(connection, record)
    counted = {n: int(connection.exec_driver_sql(q).scalar_one()) for n, q in queries.items()}
    return {name: rows for name, rows in counted.items() if rows}


def _written_queries(connection: "Connection", record: Record) -> dict[str, str]:
    quote = connection.dialect.identifier_preparer.quote
    note = f"SELECT age(xmin) FROM {UPGRADES_TABLE} ORDER BY id DESC LIMIT 1"  # noqa: S608
    since = f"count(*) FILTER (WHERE age(xmin) < ({note}))"
    return {
        name: f"SELECT greatest({since}, {before} - count(*)) FROM {quote(name)}"  # noqa: S608
        for name, before in record.rows.items()
    }


def undo_postgresql(uri: StoreUri, record: Record, written: Mapping[str, int]) -> None:
    """Put the backup of an upgrade in the place of the store, whose lock is held, in one step.

    Args:
        uri: The store.
        record: Of the upgrade.
        written: What `count_written_postgresql` gave; when more was written, nothing is done.

    Raises:
        BusyError: Somebody else is connected.
        OpsError: It failed; the database is as it was.
    """
    require_alone(uri, postgresql_sessions)
    with connect(uri, application_name=session_name()) as connection:
        tables = _tables(connection)
        queries = _written_queries(connection, record)
    if record.kept.kind == "archive":
        restore_archive(uri, record.kept)
        return
    programs = [shutil.which(name) for name in ("pg_restore", "psql")]
    if None in programs:
        raise UnavailableError("undoing needs PostgreSQL's programs pg_restore and psql on PATH")
    head = [f"SET lock_timeout = '{_LOCK_TIMEOUT_S}s'", _lock_statement(tables, "ACCESS EXCLUSIVE")]
    # A division by zero ends it: somebody has written since it was asked.
    head += [f"SELECT 1 / (({q}) = {written.get(name, 0)})::int" for name, q in queries.items()]
    head += [f"DROP TABLE {table} CASCADE" for table in tables]
    # All there is besides tables: of a trigger of `secrets` (revision 1bd49d398cd23).
    head.append("DROP FUNCTION IF EXISTS prevent_secrets_aad_mutation()")
    environment = {**os.environ, **client_environment(uri), "PGAPPNAME": session_name()}
    load = (str(programs[1]), "-X", "-q", "--no-password", "--single-transaction")
    with (
        subprocess.Popen(  # noqa: S603 - found on PATH
            (str(programs[0]), "-f", "-", record.kept.path), stdout=subprocess.PIPE, env=environment
        ) as reading,
        subprocess.Popen(  # noqa: S603 - found on PATH
            (*load, "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-f", "-"),
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        ) as loading,
    ):  # fmt: skip
        script, target = cast(IO[bytes], reading.stdout), cast(IO[bytes], loading.stdin)
        with contextlib.suppress(BrokenPipeError):
            target.write(";\n".join((*head, "")).encode())
            shutil.copyfileobj(script, target)
            if reading.wait():
                # Whatever came before is taken back.
                target.write(b"\nSELECT 1 / 0;\n")
            target.close()
    if reading.returncode or loading.returncode:
        raise OpsError(
            f"{uri.shown}: the dump {record.kept.path} could not be loaded, or somebody wrote to "
            "the store meanwhile; it is as it was",
            hint="see to it that nobody is on the store, then try again",
        )


def run_client(command: Sequence[str], uri: StoreUri, program: str) -> None:
    """Run a program of PostgreSQL's on the store; it gets the password by its environment.

    Raises:
        UnavailableError: The disk it writes to is full.
        OpsError: It failed.
    """
    # Its words are read, whatever language the machine speaks.
    environment = {**os.environ, **client_environment(uri), "LC_ALL": "C"}
    done = subprocess.run(  # noqa: S603 - found on PATH
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        if _FULL in done.stderr:
            raise UnavailableError(
                f"{uri.shown}: {program} cannot write the backup: the disk is full",
                hint="another folder: --backup-folder",
            )
        # Its own words may have a value of a row in them, and where the database is.
        reason = done.stderr.strip().splitlines()[:1]
        log.debug("%s: %s", program, reason)
        raise OpsError(f"{uri.shown}: {program} failed with exit code {done.returncode}")


def client_environment(uri: StoreUri) -> dict[str, str]:
    """What tells PostgreSQL's programs where a store is, without a word on a command line."""
    import sqlalchemy

    url = sqlalchemy.make_url(driver_url(uri))
    named = {
        "PGHOST": url.host or _first(url.query.get("host")),
        "PGPORT": str(url.port) if url.port else _first(url.query.get("port")),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": _first(url.query.get("sslmode")),
        "PGSSLROOTCERT": _first(url.query.get("sslrootcert")),
        "PGSSLCERT": _first(url.query.get("sslcert")),
        "PGSSLKEY": _first(url.query.get("sslkey")),
        "PGOPTIONS": _first(url.query.get("options")),
    }
    return {name: str(value) for name, value in named.items() if value}


def _first(value: object) -> str | None:
    if isinstance(value, tuple):
        value = value[0]
    return str(value) if value else None
