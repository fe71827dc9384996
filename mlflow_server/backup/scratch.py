"""Databases to remember things in while a command works; they may grow, and are gone at its end."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_server.errors import UnavailableError


def open_scratch(tables: str) -> sqlite3.Connection:
    """A database in a file that has no name, in the folder for temporary files.

    Its disk space is free again when the process ends, however that ends.

    Args:
        tables: Statements that make its tables.
    """
    database = sqlite3.connect("", isolation_level=None)
    database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
    database.executescript(tables)
    return database


@contextmanager
def scratch_failures() -> Iterator[None]:
    """Say it in our words when such a database cannot grow.

    Raises:
        UnavailableError: The disk is full.
    """
    try:
        yield
    except sqlite3.OperationalError as err:
        if err.sqlite_errorname not in ("SQLITE_FULL", "SQLITE_CANTOPEN") and (
            not err.sqlite_errorname.startswith("SQLITE_IOERR")
        ):
            raise
        raise UnavailableError(
            "the folder for temporary files cannot be written to: the disk may be full",
            hint="make room, or set TMPDIR to another folder",
        ) from None
