"""Upgrade a SQLite store: a copy of it is migrated, and takes its place in one step."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlflow_server.errors import UnavailableError
from mlflow_server.store.engine import open_sqlite, sqlite_path
from mlflow_server.store.sqlite_file import appearing, create_unsynced_engine
from mlflow_server.units import render_size
from mlflow_server.upgrade.differing import count_different
from mlflow_server.upgrade.keeping import BackupFolder, Kept, Record, keep_sqlite, make_record, note
from mlflow_server.upgrade.migrating import (
    Stepping,
    count_broken_references,
    count_rows,
    migrate_all,
    require_all_there,
)
from mlflow_server.upgrade.sessions import LOOKS_S, processes_with, require_alone
from mlflow_server.upgrade.survey import Surveyed
from mlflow_server.upgrade.watch import Watch
from mlflow_server.uris import StoreUri


@contextmanager
def guarded(uri: StoreUri) -> Iterator[sqlite3.Connection]:
    """Keep all others out of a SQLite file, without writing to it.

    Raises:
        BusyError: Somebody has it open.
    """
    with closing(open_sqlite(uri, timeout_s=LOOKS_S)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # The lock stays when the transaction has ended.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        require_alone(uri, processes_with)
        yield connection


def require_space(folder: Path, size_bytes: int, what: str) -> None:
    """Raise unless so much is free.

    Raises:
        UnavailableError: It is not.
    """
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise UnavailableError(
            f"{folder}: {render_size(free)} are free, {what} needs {render_size(size_bytes)}",
            hint="make room, or name another folder for backups: --backup-folder",
        )


def upgrade_sqlite(
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
        BusyError: Somebody has the file open.
        OpsError: It failed; the file is as it was.
    """
    path = sqlite_path(uri)
    require_alone(uri, processes_with)
    with guarded(uri) as guard:
        # Twice the size in the store's folder: the copy, in it a table beside its old self.
        require_space(path.parent, 2 * found.plan.size_bytes, "the copy that is migrated")
        require_space(folder.path, found.plan.size_bytes, "the backup")
        watch = Watch()
        with watch.part("backup"):
            kept = keep_sqlite(guard, path, folder.path)
        with appearing(path) as new:
            with watch.part("copy"):
                shutil.copyfile(kept.path, new)
            record = _migrate(new, found, kept, id_, step, watch)
            folder.need()
            # What is left beside the old file must not be taken for the new one's.
            guard.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return record


def _migrate(
    new: Path, found: Surveyed, kept: Kept, id_: str, step: Stepping, watch: Watch
) -> Record:
    engine = create_unsynced_engine(new)
    try:
        with engine.begin() as connection:
            with watch.part("verification"):
                before = count_rows(connection, found.plan.status.pending)
                broken = count_broken_references(connection)
            with watch.part("migration"):
                migrate_all(connection, found, step)
            with watch.part("verification"):
                rows = require_all_there(connection, found, before, broken)
            record = make_record(id_, found, kept, rows, watch)
            note(connection, record)
    finally:
        engine.dispose()
    return record


def undo_sqlite(
    uri: StoreUri, record: Record, found: Surveyed, agree: Callable[[dict[str, int]], None]
) -> None:
    """Put the backup of an upgrade in the place of the store, whose lock is held.

    Args:
        uri: The store.
        record: Of the upgrade.
        found: What the backup had to go through.
        agree: Told what would be lost, when nobody can write any more; raises when that may not be.

    Raises:
        BusyError: Somebody has the file open.
    """
    path = sqlite_path(uri)
    require_alone(uri, processes_with)
    with guarded(uri) as guard:
        agree(_count_written(guard, record, found))
        require_space(path.parent, record.kept.size_bytes, "the store as it was")
        with appearing(path) as new:
            shutil.copyfile(record.kept.path, new)
            guard.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def count_written_sqlite(uri: StoreUri, record: Record, found: Surveyed) -> dict[str, int]:
    """Rows of each table that were written or removed since an upgrade.

    The backup is upgraded once more, elsewhere, and compared.

    Args:
        uri: The store.
        record: Of the upgrade.
        found: What the backup has to go through.
    """
    with closing(open_sqlite(uri, timeout_s=30.0)) as connection:
        return _count_written(connection, record, found)


def _count_written(
    connection: sqlite3.Connection, record: Record, found: Surveyed
) -> dict[str, int]:
    with tempfile.TemporaryDirectory(prefix="mlflow-server-undo-") as folder:
        expected = Path(folder) / "expected.sqlite"
        shutil.copyfile(record.kept.path, expected)
        _migrate(expected, found, record.kept, record.id, lambda *_: None, Watch())
        return count_different(connection, expected, record.rows)
