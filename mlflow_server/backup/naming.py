"""Which locations the rows of a store name."""

from collections.abc import Callable, Iterable
from typing import Protocol

from mlflow_server.backup.locations import places_of
from mlflow_server.store.snapshot import Snapshot
from mlflow_server.store.tables import Row, Table


class TakesLocations(Protocol):
    """Remembers them."""

    def note_location(self, location: str, *, is_container: bool) -> None:
        """See `Notes`."""
        ...


def noting(notes: TakesLocations, table: Table) -> Callable[[Iterable[Row]], None] | None:
    """What notes the locations in rows of a table; None for a table that has none."""
    find = places_of(table)
    if find is None:
        return None

    def note(rows: Iterable[Row]) -> None:
        for row in rows:
            for place in find(row):
                notes.note_location(place.location, is_container=place.is_container)

    return note


def note_all(notes: TakesLocations, shot: Snapshot) -> None:
    """Note the locations in all rows of a store."""
    for table in shot.tables:
        if (note := noting(notes, table)) is not None:
            for rows in shot.rows(table):
                note(rows)
