"""Put the artifacts that rows name into packs, each content once, and write down where it is."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from mlflow_server.artifacts.files import (
    ChangedError,
    LocalFiles,
    VanishedError,
)
from mlflow_server.backup.format import INDEX, read_entries
from mlflow_server.backup.notes import Notes, Stored
from mlflow_server.backup.packs import PackWriter
from mlflow_server.backup.places import Places
from mlflow_server.backup.transfer import AHEAD, SMALL_BYTES, THREADS, iter_chunks
from mlflow_server.backup.wanted import Found, iter_files
from mlflow_server.errors import BadInputError, PermissionDeniedError

# Of the index: to compress one line takes longer than to make it.
_LINES_AT_ONCE = 500
# At a file that is changed meanwhile.
_ATTEMPTS = 3

_quoted = json.encoder.encode_basestring_ascii


@dataclass
class Collected:
    """What was found of artifacts, and what became of it.

    Args:
        files: How many there are.
        size_bytes: Of all of them.
        stored_files: How many were read and are in packs of this backup now.
        stored_bytes: How much that is; less where a content occurs twice.
        read_bytes: How much was read.
        passing: Files that vanished before they were read, with what happened.
        failed: Files and locations that could not be read, with the reason.
        packs: Names of all packs that something is in.
    """

    files: int = 0
    size_bytes: int = 0
    stored_files: int = 0
    stored_bytes: int = 0
    read_bytes: int = 0
    passing: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    packs: set[str] = field(default_factory=set)


class Index(Protocol):
    """Takes lines of the index."""

    def write(self, lines: bytes, /) -> object:
        """Add some."""
        ...


class Collector:
    """Goes through all locations.

    Args:
        notes: The locations, and what the backup before has.
        places: What they lie in.
        progress: Called with the bytes so far, often.
    """

    def __init__(self, notes: Notes, places: Places, progress: Callable[[int], None]) -> None:
        self._notes = notes
        self._places = places
        self._progress = progress
        self.result = Collected()

    def survey(self) -> Collected:
        """Only count: what there is, and what would be read and stored."""
        for found in iter_files(self._notes, self._places, self.result.failed):
            self.result.files += 1
            self.result.size_bytes += found.file.size_bytes
            if self._find_known(found) is None:
                self.result.stored_files += 1
                self.result.stored_bytes += found.file.size_bytes
        return self.result

    def collect(self, packs: PackWriter, index: Index) -> Collected:
        """Store what is not stored yet.

        Args:
            packs: Where it is stored.
            index: Where it is written down.
        """
        self._packs = packs
        lines: list[bytes] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for found, content in self._read_ahead(pool):
                try:
                    size_bytes, stored = self._store(found, content)
                except VanishedError:
                    self.result.passing.append((found.shown, "vanished while it was read"))
                except ChangedError:
                    reason = "changes again and again while it is read"
                    self.result.failed.append((found.shown, reason))
                except (PermissionDeniedError, BadInputError) as err:
                    self.result.failed.append((found.shown, err.message))
                else:
                    self.result.files += 1
                    self.result.size_bytes += size_bytes
                    self.result.packs.add(stored.pack)
                    self._progress(self.result.size_bytes)
                    lines.append(_line(found, size_bytes, stored))
                    if len(lines) == _LINES_AT_ONCE:
                        index.write(b"".join(lines))
                        lines.clear()
        index.write(b"".join(lines))
        return self.result

    def _read_ahead(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Found, Future[bytes] | None]]:
        """Every file; the small ones of object stores are being read already."""
        waiting: deque[tuple[Found, Future[bytes] | None]] = deque()
        for found in iter_files(self._notes, self._places, self.result.failed):
            is_remote = not isinstance(found.files, LocalFiles)
            is_small = found.file.size_bytes <= SMALL_BYTES
            content = None
            if is_remote and is_small and self._find_known(found) is None:
                content = pool.submit(found.files.read, found.path)
            waiting.append((found, content))
            while len(waiting) > (AHEAD if is_remote else 0):
                yield waiting.popleft()
        yield from waiting

    def _find_known(self, found: Found) -> tuple[int, Stored] | None:
        return self._notes.find_known(found.root.location, found.file.path, found.file.stamp)

    def _store(self, found: Found, content: Future[bytes] | None) -> tuple[int, Stored]:
        if (known := self._find_known(found)) is not None:
            return known
        size_bytes = found.file.size_bytes
        for _ in range(_ATTEMPTS):
            try:
                if size_bytes > SMALL_BYTES:
                    return self._store_large(found, size_bytes)
                whole = content.result() if content else found.files.read(found.path)
                return self._store_small(whole)
            except ChangedError:
                # Once more, as it is now: whoever wrote it may be done.
                again = found.files.find(found.path)
                if again is None:
                    raise VanishedError(found.shown) from None
                size_bytes, content = again.size_bytes, None
        raise ChangedError(found.shown)

    def _store_small(self, content: bytes) -> tuple[int, Stored]:
        digest = hashlib.sha256(content).hexdigest()
        self.result.read_bytes += len(content)
        stored = self._notes.find_content(digest)
        if stored is None:
            pack, offset = self._packs.add_whole(content)
            stored = self._remember(Stored(digest, pack, offset), len(content))
        return len(content), stored

    def _store_large(self, found: Found, size_bytes: int) -> tuple[int, Stored]:
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            with found.files.open(found.path) as reader:
                for chunk in iter_chunks(reader):
                    digest.update(chunk)
                    self.result.read_bytes += len(chunk)
                    self._progress(self.result.size_bytes)
                    yield chunk

        try:
            pack, offset = self._packs.add(chunks(), size_bytes)
        except ValueError:
            raise ChangedError(found.shown) from None
        stored = Stored(digest.hexdigest(), pack, offset)
        if self._notes.find_content(stored.sha256) is None:
            self._remember(stored, size_bytes)
        return size_bytes, stored

    def _remember(self, stored: Stored, size_bytes: int) -> Stored:
        self._notes.note_content(stored)
        self.result.stored_files += 1
        self.result.stored_bytes += size_bytes
        return stored


def _line(found: Found, size_bytes: int, stored: Stored) -> bytes:
    """An `ArtifactEntry`; what is written here is faster than `json` at so many."""
    return (
        f'{{"location":{_quoted(found.root.location)},"path":{_quoted(found.file.path)},'
        f'"size_bytes":{size_bytes},"sha256":"{stored.sha256}",'
        f'"stamp":{_quoted(found.file.stamp)},"pack":"{stored.pack}","offset":{stored.offset}}}\n'
    ).encode()


def read_index(
    index: Iterable[Sequence[bytes]],
) -> Iterator[tuple[str, str, str, int, str, str, int]]:
    """The files of an index, as `Notes.note_known` takes them.

    Args:
        index: Its lines, some at a time.

    Raises:
        BadInputError: One is no such line.
    """
    for lines in index:
        for entry in read_entries(lines, INDEX):
            yield (
                entry.location,
                entry.path,
                entry.stamp,
                entry.size_bytes,
                entry.sha256,
                entry.pack,
                entry.offset,
            )
