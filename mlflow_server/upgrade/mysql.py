"""Upgrade a store on MySQL or MariaDB, which cannot take DDL back: after a verified archive.

A table marks the store as half way until all is done, or as it was before. No server starts on a
store that is marked; whoever finds it so goes back to the archive that the mark names.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_server.errors import InternalError, OpsError, SchemaError
from mlflow_server.store.engine import connect, explained
from mlflow_server.store.revision import OWN_TABLE_PREFIX, VERSION_TABLE, mlflow_tables
from mlflow_server.upgrade.archive import keep_archive, restore_archive
from mlflow_server.upgrade.keeping import (
    BackupFolder,
    Kept,
    Record,
    make_record,
    mark_half_way,
    note,
    read_mark,
    remove_mark,
)
from mlflow_server.upgrade.migrating import Stepping, count_rows, migrate_all, require_all_there
from mlflow_server.upgrade.sessions import mysql_sessions, require_alone, session_name
from mlflow_server.upgrade.survey import Surveyed
from mlflow_server.upgrade.watch import Watch
from mlflow_server.uris import StoreUri

log = logging.getLogger(__name__)

# Nobody else should be there; who comes all the same keeps its tables so long at the most.
_LOCK_TIMEOUT_S = 60


def upgrade_mysql(
    uri: StoreUri, found: Surveyed, folder: BackupFolder, id_: str, step: Stepping
) -> Record:
    """Upgrade a store whose lock is held.

    Args:
        uri: The store.
        found: What is to be done.
        folder: Takes the backup.
        id_: Of the upgrade.
        step: Told after each revision.

    Raises:
        BusyError: Somebody else is connected.
        InternalError: It failed, and the store could not be put back.
        OpsError: It failed; the store is as it was.
    """
    require_only_ours(uri)
    require_alone(uri, mysql_sessions)
    watch = Watch()
    with watch.part("backup"):
        kept = keep_archive(uri, folder.path)
    mark = make_record(id_, found, kept, {}, watch)
    with _put_back_unless_done(uri, kept, folder), connect(uri) as connection:
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_LOCK_TIMEOUT_S}")
        with watch.part("verification"):
            before = count_rows(connection, found.plan.status.pending)
        folder.need()
        mark_half_way(connection, mark)
        with watch.part("migration"):
            migrate_all(connection, found, step)
        # What was read before is no more: the tables are others.
        connection.commit()
        with watch.part("verification"):
            rows = require_all_there(connection, found, before, 0)
        record = make_record(id_, found, kept, rows, watch)
        note(connection, record)
        connection.commit()
        remove_mark(connection)
    return record


@contextmanager
def _put_back_unless_done(uri: StoreUri, kept: Kept, folder: BackupFolder) -> Iterator[None]:
    try:
        with explained(uri):
            yield
    except BaseException as err:
        if folder.is_needed:
            log.warning("the upgrade has failed: going back to the backup")
            put_back(uri, kept, err)
            folder.release()
        raise


def put_back(uri: StoreUri, kept: Kept, reason: BaseException | None = None) -> None:
    """Make a store that is half way, and whose lock is held, what it was.

    Args:
        uri: The store.
        kept: The backup that its mark names.
        reason: Why, for the message.

    Raises:
        InternalError: It cannot be done now; the store stays marked.
    """
    try:
        restore_archive(uri, kept)
    except OpsError as err:
        why = reason.message if isinstance(reason, OpsError) else type(reason).__name__
        before = f"the upgrade failed ({why}), and " if reason is not None else ""
        raise InternalError(
            f"{uri.shown}: {before}the store is half way, and could not be put back: {err.message}",
            hint="mend that, then: mlflow-server upgrade --undo goes back to the backup; or by "
            f"hand: mlflow-server restore {kept.path} --replace --no-artifacts",
        ) from None


def finish_interrupted(uri: StoreUri) -> Record:
    """Go back to the backup of an upgrade that was interrupted half way; the lock is held.

    Returns:
        What its mark said.

    Raises:
        BusyError: Somebody else is connected.
        InternalError: It cannot be done now; the store stays marked.
    """
    require_alone(uri, mysql_sessions)
    with connect(uri, application_name=session_name()) as connection:
        mark = read_mark(connection)
    log.warning("an upgrade was interrupted half way: going back to its backup %s", mark.kept.path)
    put_back(uri, mark.kept)
    return mark


def undo_mysql(uri: StoreUri, record: Record) -> None:
    """Put the archive of an upgrade in the place of a store whose lock is held.

    Raises:
        BusyError: Somebody else is connected.
        InternalError: It failed; the store stays marked, and the same again goes on.
    """
    require_only_ours(uri)
    require_alone(uri, mysql_sessions)
    with connect(uri) as connection:
        mark_half_way(connection, record)
    put_back(uri, record.kept)


def require_only_ours(uri: StoreUri) -> None:
    """Raise when a database has tables that an archive would not bring back as they are.

    Raises:
        SchemaError: It has; says which.
    """
    import sqlalchemy

    ours = mlflow_tables() | {VERSION_TABLE}
    with connect(uri) as connection:
        names = sqlalchemy.inspect(connection).get_table_names()
    others = sorted(n for n in names if n not in ours and not n.startswith(OWN_TABLE_PREFIX))
    if others:
        raise SchemaError(
            f"{uri.shown}: has tables that are none of MLflow's: {', '.join(others[:5])}",
            hint="move them into a database of their own: they could not be put back as they are",
        )
