"""Make a SQLite file appear under its name in one step, and remove what a killed run left."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name in a folder beside a file; what is there at the end replaces the file in one step.

    After an exception, or a kill, the file is as it was. The owner and mode of an existing file are
    kept. The caller holds the store's lock: leftovers of others are removed.

    Args:
        path: The SQLite file; must have no `-wal` or `-journal` at the end, which would be taken
            for the new file's.
    """
    leftovers = f".{path.name}.new-"
    for stale in path.parent.glob(f"{leftovers}*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=leftovers, dir=path.parent) as folder:
        new = Path(folder) / path.name
        yield new
        if path.exists():
            shutil.copystat(path, new)
            owner = path.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(new, owner.st_uid, owner.st_gid)
        sync_path(new)
        new.replace(path)
        sync_path(path.parent)


def create_unsynced_engine(path: Path) -> "Engine":
    """An engine for a file that is not there yet and is synced when it is complete.

    Sixty-seven migrations need not reach the disk one by one.
    """
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    url = sqlalchemy.URL.create("sqlite", database=str(path))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    sqlalchemy.event.listen(engine, "connect", _without_syncing)
    return engine


def _without_syncing(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def sync_path(path: Path) -> None:
    """Let a file, or the entries of a folder, outlive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
