"""The tables of a backup, as rows again."""

from collections.abc import Iterator
from itertools import islice

from mlflow_server.backup.fill import Content
from mlflow_server.backup.format import DatabaseEntry, TableEntry
from mlflow_server.backup.shelf import Shelf
from mlflow_server.errors import BadInputError
from mlflow_server.store.tables import Checksum, Column, Row, Table

ROWS_AT_ONCE = 5_000


def table_of(entry: TableEntry) -> Table:
    """The table that an entry of a manifest means."""
    columns = tuple(Column(column.name, column.kind) for column in entry.columns)
    return Table(entry.name, columns, entry.key, entry.known)


def iter_rows(shelf: Shelf, backup_id: str, entry: TableEntry) -> Iterator[list[Row]]:
    """The rows of a table, in batches.

    Raises:
        BadInputError: They are not what they were; at the end at the latest.
    """
    checksum = Checksum(table_of(entry))
    lines = shelf.lines(backup_id, entry.file)
    while some := list(islice(lines, ROWS_AT_ONCE)):
        yield checksum.add_lines(some)
    if (checksum.rows, checksum.text) != (entry.rows, entry.checksum):
        raise BadInputError(
            f"{shelf.shown}/{backup_id}/{entry.file}: has other rows than the manifest says"
        )


def content_of(shelf: Shelf, backup_id: str, entry: DatabaseEntry) -> Content:
    """What a backup has of a database."""
    entries = {table.name: table for table in entry.tables}
    return Content(
        entry.revision,
        tuple(map(table_of, entry.tables)),
        lambda table: iter_rows(shelf, backup_id, entries[table.name]),
    )
