"""How many rows of two SQLite databases differ."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path


def count_different(
    connection: sqlite3.Connection, expected: Path, tables: Iterable[str]
) -> dict[str, int]:
    """Rows of each table that only one of two databases has; of those that differ.

    Args:
        connection: To the one.
        expected: The file of the other.
        tables: That both have.
    """
    connection.execute("ATTACH ? AS expected", (str(expected),))
    try:
        found = {name: _count(connection, name) for name in tables}
    finally:
        connection.execute("DETACH expected")
    return {name: rows for name, rows in found.items() if rows}


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = '"' + table.replace('"', '""') + '"'
    here, there = f"SELECT * FROM main.{quoted}", f"SELECT * FROM expected.{quoted}"  # noqa: S608
    counts = [
        int(connection.execute(f"SELECT count(*) FROM ({a} EXCEPT {b})").fetchone()[0])  # noqa: S608
        for a, b in ((here, there), (there, here))
    ]
    return max(counts)
