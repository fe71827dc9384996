"""Find the files that rows name."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mlflow_server.artifacts.files import File, Files, OnSkip
from mlflow_server.artifacts.shown import shown
from mlflow_server.backup.locations import places_of
from mlflow_server.backup.notes import Notes, Root
from mlflow_server.backup.places import Places
from mlflow_server.errors import BadInputError, OpsError
from mlflow_server.store.snapshot import Snapshot
from mlflow_server.store.tables import Row, Table


@dataclass(frozen=True, slots=True)
class Found:
    """A file of an entity.

    Args:
        root: The location that it lies below.
        files: What can read it.
        path: Where in there.
        file: With its path from the location on.
    """

    root: Root
    files: Files
    path: str
    file: File

    @property
    def shown(self) -> str:
        """For messages."""
        return f"{self.root.shown}/{self.file.path}"


def noting(notes: Notes, table: Table) -> Callable[[Iterable[Row]], None] | None:
    """What notes the locations in rows of a table; None for a table that has none."""
    find = places_of(table)
    if find is None:
        return None

    def note(rows: Iterable[Row]) -> None:
        for row in rows:
            for place in find(row):
                notes.note_location(place.location, is_container=place.is_container)

    return note


def note_all(notes: Notes, shot: Snapshot) -> None:
    """Note the locations in all rows of a store."""
    for table in shot.tables:
        if (note := noting(notes, table)) is not None:
            for rows in shot.rows(table):
                note(rows)


def iter_files(notes: Notes, places: Places, failed: list[tuple[str, str]]) -> Iterator[Found]:
    """Every file in the location of something that has files.

    Args:
        notes: The locations.
        places: What they lie in.
        failed: Takes what cannot be read, with the reason; at the destination itself that ends it.

    Raises:
        OpsError: The destination cannot be listed.
    """
    for root in notes.iter_roots():
        try:
            files, below = places.find(root.plain)
            start = f"{below}/" if below else ""
            is_whole = notes.is_wanted(root.plain)
            for file in files.walk(below, on_skip=_skipping(root, failed)):
                path = file.path[len(start) :]
                if not _is_text(path):
                    failed.append((f"{root.shown}: {shown(path)}", "its name is not UTF-8"))
                    continue
                folder = path.rpartition("/")[0]
                where = f"{root.plain}/{folder}" if folder else root.plain
                if is_whole or notes.is_wanted(where):
                    below_root = File(path, file.size_bytes, file.stamp)
                    yield Found(root, files, file.path, below_root)
        except OpsError as err:
            # A location that cannot be meant is that of one entity; a destination is everybody's.
            if places.is_inside(root.plain) and not isinstance(err, BadInputError):
                raise
            failed.append((root.shown, err.message))


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _skipping(root: Root, failed: list[tuple[str, str]]) -> OnSkip:
    def note(path: str, reason: OpsError) -> None:
        failed.append((f"{root.shown}: {shown(path)}", reason.message))

    return note
