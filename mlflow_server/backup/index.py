"""The index of an archive: which file is where; a line for each folder. Pure.

See `docs/design/backup.md`. Reading is not left to pydantic: the process that collects artifacts
would take as long to import it as to collect a thousand files.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from mlflow_server.errors import BadInputError

# How many files are in a line at most: a folder may have millions.
FILES_IN_A_LINE = 1000

# Name, size in bytes, SHA-256 in hexadecimal digits, stamp, number of the pack in the line, and
# where in the pack the content begins, bytes.
FileEntry: TypeAlias = tuple[str, int, str, str, int, int]

_is_digest = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch
_TYPES = [str, int, str, str, int, int]
# What databases and disks count up to.
_LARGEST = 2**63 - 1


class FolderEntry(NamedTuple):
    """Files of one folder, as a line of the index.

    Args:
        location: What the folder lies below, as a row has it.
        folder: The way from there to it; empty for the location itself.
        packs: Which packs the contents are in.
        files: See `FileEntry`. The stamp tells that a file was not changed since; it means nothing
            anywhere else.
    """

    location: str
    folder: str
    packs: Sequence[str]
    files: Sequence[FileEntry]

    def as_line(self) -> bytes:
        """The line, with its end."""
        return f"{_encode(self._asdict())}\n".encode()


class ArtifactEntry(NamedTuple):
    """A file.

    Args:
        location: What it lies below, as a row has it.
        path: From there to the file.
        size_bytes: How long it is.
        sha256: Of its content.
        pack: Which pack has the content.
        offset: From where on, bytes.
    """

    location: str
    path: str
    size_bytes: int
    sha256: str
    pack: str
    offset: int


def read_folders(lines: Sequence[bytes], shown: str) -> list[FolderEntry]:
    """Understand lines of an index, whoever wrote it.

    Args:
        lines: Some.
        shown: Which file, for messages.

    Raises:
        BadInputError: One is no such line.
    """
    try:
        found = json.loads(b"[%s]" % b",".join(lines))
        entries = [_folder(each) for each in found]
    except (ValueError, TypeError, KeyError, RecursionError):
        entries = []
    if len(entries) != len(lines):
        raise BadInputError(f"{shown}: a line is damaged")
    return entries


def read_files(lines: Sequence[bytes], shown: str) -> Iterator[ArtifactEntry]:
    """The files in lines of an index, whoever wrote it.

    Raises:
        BadInputError: See `read_folders`.
    """
    for location, folder, packs, files in read_folders(lines, shown):
        start = f"{folder}/" if folder else ""
        for name, size_bytes, digest, _, pack, offset in files:
            yield ArtifactEntry(location, start + name, size_bytes, digest, packs[pack], offset)


def _folder(found: Any) -> FolderEntry:
    """A line's document, if it is what a line has."""
    location, folder, packs, files = (found[name] for name in FolderEntry._fields)
    texts = [location, folder, *packs]
    if not files or not isinstance(files, list) or not isinstance(packs, list):
        raise ValueError("a folder without files")
    count = len(packs)
    for file in files:
        if [type(value) for value in file] != _TYPES:
            raise ValueError("no file")
        name, size_bytes, digest, stamp, pack, offset = file
        if not (0 <= size_bytes <= _LARGEST and 0 <= pack < count and 0 <= offset <= _LARGEST):
            raise ValueError("out of range")
        if not _is_digest(digest):
            raise ValueError("no digest")
        texts += name, stamp
    "".join(texts).encode()  # text, and none that cannot be written
    return FolderEntry(location, folder, packs, [tuple(file) for file in files])


_encode: Callable[[object], str] = json.JSONEncoder(separators=(",", ":")).encode
