"""Put the artifacts that rows name into packs, each content once, and write down where it is."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from mlflow_server.artifacts.files import ChangedError, File, Files, LocalFiles, VanishedError
from mlflow_server.backup.index import FileEntry, FolderEntry
from mlflow_server.backup.notes import KnownFolder, Notes, Stored
from mlflow_server.backup.packs import PackWriter
from mlflow_server.backup.places import Places
from mlflow_server.backup.transfer import AHEAD, SMALL_BYTES, THREADS, iter_chunks
from mlflow_server.backup.wanted import FoundFolder, iter_folders
from mlflow_server.errors import BadInputError, PermissionDeniedError

# Of the index, what is written at once.
_LINES_BYTES = 256 * 1024
# At a file that is changed meanwhile.
_ATTEMPTS = 3


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
        for part in iter_folders(self._notes, self._places, self.result.failed):
            stamps = [file.stamp for file in part.listed]
            stored_before = _Before(self._notes, part, stamps)
            is_same = stored_before.line is not None
            for name, file in zip(part.names, part.listed, strict=True):
                self.result.files += 1
                self.result.size_bytes += file.size_bytes
                if not is_same and stored_before.find(name, file.stamp) is None:
                    self.result.stored_files += 1
                    self.result.stored_bytes += file.size_bytes
        return self.result

    def collect(self, packs: PackWriter, index: Index) -> Collected:
        """Store what is not stored yet.

        Args:
            packs: Where it is stored.
            index: Where it is written down.
        """
        self._packs = packs
        writer = _IndexWriter(index, self.result)
        with ThreadPoolExecutor(THREADS) as pool:
            for item in self._read_ahead(pool):
                if isinstance(item, KnownFolder):
                    writer.copy(item)
                else:
                    self._collect_file(item, writer)
                self._progress(self.result.size_bytes)
        writer.close()
        return self.result

    def _collect_file(self, item: "_Item", writer: "_IndexWriter") -> None:
        part, name, file, known, content = item
        try:
            stamp, stored = file.stamp, known
            if stored is None:
                stamp, stored = self._store(part, name, file, content)
        except VanishedError:
            self.result.passing.append((part.shown(name), "vanished while it was read"))
        except ChangedError:
            reason = "changes again and again while it is read"
            self.result.failed.append((part.shown(name), reason))
        except (PermissionDeniedError, BadInputError) as err:
            self.result.failed.append((part.shown(name), err.message))
        else:
            writer.add(part, name, stamp, stored)

    def _read_ahead(self, pool: ThreadPoolExecutor) -> "Iterator[_Item | KnownFolder]":
        """Every file; the small ones of object stores are being read already."""
        waiting: deque[_Item | KnownFolder] = deque()
        for part in iter_folders(self._notes, self._places, self.result.failed):
            stamps = [file.stamp for file in part.listed]
            before = _Before(self._notes, part, stamps)
            is_remote = not isinstance(part.files, LocalFiles)
            if before.line is not None:
                waiting.append(before.line)
            else:
                for name, file in zip(part.names, part.listed, strict=True):
                    known, content = before.find(name, file.stamp), None
                    if is_remote and known is None and file.size_bytes <= SMALL_BYTES:
                        content = pool.submit(part.files.read, file.path)
                    waiting.append((part, name, file, known, content))
                    while len(waiting) > (AHEAD if is_remote else 0):
                        yield waiting.popleft()
            while len(waiting) > (AHEAD if is_remote else 0):
                yield waiting.popleft()
        yield from waiting

    def _store(
        self, part: FoundFolder, name: str, file: File, content: Future[bytes] | None
    ) -> tuple[str, Stored]:
        """Store a file; gives its stamp as well, because another one may have come meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                if file.size_bytes > SMALL_BYTES:
                    return self._store_large(part.files, file)
                if content is not None:
                    whole, content = content.result(), None
                elif isinstance(part.files, LocalFiles):
                    whole = part.files.read_listed(part.path, name, file)
                else:
                    whole = part.files.read(file.path)
                return file.stamp, self._store_small(whole)
            except ChangedError:
                if attempt == _ATTEMPTS - 1:
                    raise
                # Once more, as it is now: whoever wrote it may be done.
                again = part.files.find(file.path)
                if again is None:
                    raise VanishedError(part.shown(name)) from None
                file = again
        raise AssertionError("the last attempt returns or raises")

    def _store_small(self, content: bytes) -> Stored:
        digest = hashlib.sha256(content).hexdigest()
        self.result.read_bytes += len(content)
        stored = self._notes.find_content(digest)
        if stored is None:
            pack, offset = self._packs.add_whole(content)
            stored = self._remember(Stored(len(content), digest, pack, offset))
        return stored

    def _store_large(self, files: Files, file: File) -> tuple[str, Stored]:
        digest = hashlib.sha256()
        stamp = file.stamp

        def chunks() -> Iterator[bytes]:
            nonlocal stamp
            with files.open(file.path) as reader:
                stamp = reader.file.stamp
                for chunk in iter_chunks(reader):
                    digest.update(chunk)
                    self.result.read_bytes += len(chunk)
                    self._progress(self.result.size_bytes)
                    yield chunk

        try:
            pack, offset = self._packs.add(chunks(), file.size_bytes)
        except ValueError:
            raise ChangedError(file.path) from None
        stored = Stored(file.size_bytes, digest.hexdigest(), pack, offset)
        if self._notes.find_content(stored.sha256) is None:
            self._remember(stored)
        return stamp, stored

    def _remember(self, stored: Stored) -> Stored:
        self._notes.note_content(stored)
        self.result.stored_files += 1
        self.result.stored_bytes += stored.size_bytes
        return stored


# A file, with its name in the folder, its content if that is known, and what reads it otherwise.
_Item: TypeAlias = tuple[FoundFolder, str, File, Stored | None, Future[bytes] | None]


class _Before:
    """What the backup before has of the files of a folder.

    Attributes:
        line: All of it, when nothing was changed.
    """

    def __init__(self, notes: Notes, part: FoundFolder, stamps: list[str]) -> None:
        self._notes = notes
        self._part = part
        self._known = self._look(part.names[0])
        self.line = None
        if self._known is not None and self._known.is_same(part.names, stamps):
            self.line = self._known

    def find(self, name: str, stamp: str) -> Stored | None:
        """The content of a file that was not changed."""
        if self._known is None:
            return None
        if self._known.until is not None and name >= self._known.until:
            self._known = self._look(name)
        return self._known.find(name, stamp) if self._known is not None else None

    def _look(self, name: str) -> KnownFolder | None:
        return self._notes.find_folder(self._part.root.location, self._part.folder, name)


class _IndexWriter:
    """Writes down where files are, those of a folder together.

    Args:
        index: Where to.
        result: Counts them.
    """

    def __init__(self, index: Index, result: Collected) -> None:
        self._index = index
        self._result = result
        self._part: FoundFolder | None = None
        self._packs: dict[str, int] = {}
        self._files: list[FileEntry] = []
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, part: FoundFolder, name: str, stamp: str, stored: Stored) -> None:
        """Add a file; those of a part come one after the other."""
        if part is not self._part:
            self._end_folder()
            self._part = part
        size_bytes, digest, pack, offset = stored
        number = self._packs.setdefault(pack, len(self._packs))
        self._files.append((name, size_bytes, digest, stamp, number, offset))
        self._result.size_bytes += size_bytes

    def copy(self, known: KnownFolder) -> None:
        """Add a folder as it is in the index of the backup before."""
        self._end_folder()
        self._result.files += known.files
        self._result.size_bytes += known.size_bytes
        self._result.packs.update(known.packs)
        self._write(known.line)

    def close(self) -> None:
        """Write what is left."""
        self._end_folder()
        self._index.write(b"".join(self._lines))

    def _end_folder(self) -> None:
        if self._part is not None and self._files:
            self._result.files += len(self._files)
            self._result.packs.update(self._packs)
            root, folder = self._part.root, self._part.folder
            self._write(
                FolderEntry(root.location, folder, list(self._packs), self._files).as_line()
            )
        self._part, self._packs, self._files = None, {}, []

    def _write(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= _LINES_BYTES:
            self._index.write(b"".join(self._lines))
            self._lines, self._bytes = [], 0
