"""The tables of a backup, as rows again."""

from collections.abc import Iterator
from itertools import chain

from mlflow_server.backup.fill import Content
from mlflow_server.backup.format import DatabaseEntry, TableEntry
from mlflow_server.backup.shelf import Shelf
from mlflow_server.errors import BadInputError
from mlflow_server.store.tables import Checksum, Column, Row, Table

_SCALARS = {bool, int, float, str, bytes, type(None)}


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
    shown = f"{shelf.shown}/{backup_id}/{entry.file}"
    for some in shelf.lines(backup_id, entry.file):
        if checksum.rows + len(some) > entry.rows:
            break
        try:
            rows = checksum.add_lines(some)
        except BadInputError as err:
            raise BadInputError(f"{shown}: is damaged: {err.message}") from None
        if not set(map(type, chain.from_iterable(rows))) <= _SCALARS:
            raise BadInputError(f"{shown}: is damaged: a value is no scalar")
        yield rows
    if (checksum.rows, checksum.text) != (entry.rows, entry.checksum):
        raise BadInputError(f"{shown}: has other rows than the manifest says")


def content_of(shelf: Shelf, backup_id: str, entry: DatabaseEntry) -> Content:
    """What a backup has of a database."""
    entries = {table.name: table for table in entry.tables}
    return Content(
        entry.revision,
        tuple(map(table_of, entry.tables)),
        lambda table: iter_rows(shelf, backup_id, entries[table.name]),
        entry.auth_revision,
        lambda table: Checksum.of(table, entries[table.name].rows, entries[table.name].checksum),
    )
