"""Find the files that rows name."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlflow_server.artifacts.files import File, Files, OnSkip
from mlflow_server.artifacts.shown import shown
from mlflow_server.backup.index import FILES_IN_A_LINE
from mlflow_server.backup.notes import Notes, Root
from mlflow_server.backup.places import Places
from mlflow_server.errors import BadInputError, OpsError


class FoundFolder(NamedTuple):
    """Files of an entity that are directly in one folder: all of them, or a part.

    Args:
        root: The location that they lie below.
        files: What can read them.
        path: The folder, in there.
        folder: The folder, from the location on.
        names: Of the files.
        listed: The files, in the same order, with their paths in there.
    """

    root: Root
    files: Files
    path: str
    folder: str
    names: Sequence[str]
    listed: Sequence[File]

    def shown(self, name: str) -> str:
        """A file, for messages."""
        return "/".join(filter(None, (self.root.shown, self.folder, name)))


class Found(NamedTuple):
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


def iter_folders(
    notes: Notes, places: Places, failed: list[tuple[str, str]]
) -> Iterator[FoundFolder]:
    """Every file in the location of something that has files, folder by folder.

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
            start = len(f"{below}/") if below else 0
            is_whole = notes.is_wanted(root.plain)
            for path, names, listed in files.walk_folders(below, on_skip=_skipping(root, failed)):
                folder = path[start:]
                where = f"{root.plain}/{folder}" if folder else root.plain
                if not (is_whole or notes.is_wanted(where)):
                    continue
                if not _is_text("".join((folder, *names))):
                    names, listed = _only_text(root, folder, names, listed, failed)
                for at in range(0, len(names), FILES_IN_A_LINE):
                    part = slice(at, at + FILES_IN_A_LINE)
                    yield FoundFolder(root, files, path, folder, names[part], listed[part])
        except OpsError as err:
            # A location that cannot be meant is that of one entity; a destination is everybody's.
            if places.is_inside(root.plain) and not isinstance(err, BadInputError):
                raise
            failed.append((root.shown, err.message))


def iter_files(notes: Notes, places: Places, failed: list[tuple[str, str]]) -> Iterator[Found]:
    """The same, file by file."""
    for part in iter_folders(notes, places, failed):
        start = f"{part.folder}/" if part.folder else ""
        for name, file in zip(part.names, part.listed, strict=True):
            yield Found(part.root, part.files, file.path, file._replace(path=start + name))


def _only_text(
    root: Root,
    folder: str,
    names: Sequence[str],
    listed: Sequence[File],
    failed: list[tuple[str, str]],
) -> tuple[list[str], list[File]]:
    """The files that have a name which can be written down."""
    kept = []
    start = f"{folder}/" if folder else ""
    for name, file in zip(names, listed, strict=True):
        if _is_text(start + name):
            kept.append((name, file))
        else:
            failed.append((f"{root.shown}: {shown(start + name)}", "its name is not UTF-8"))
    return [name for name, _ in kept], [file for _, file in kept]


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
