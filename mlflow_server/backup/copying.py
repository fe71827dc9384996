"""Copy the artifacts that rows name from one destination to another."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from mlflow_server.artifacts.files import ChangedError, Files, LocalFiles, VanishedError
from mlflow_server.artifacts.locations import normalised
from mlflow_server.backup.locations import Moves
from mlflow_server.backup.notes import Notes
from mlflow_server.backup.places import Places
from mlflow_server.backup.transfer import AHEAD, SMALL_BYTES, THREADS, iter_chunks
from mlflow_server.backup.wanted import Found, iter_files
from mlflow_server.errors import BadInputError, PermissionDeniedError


@dataclass
class Copied:
    """What was copied.

    Args:
        files: How many files are there now, copied in this run or before.
        size_bytes: Of all of them.
        elsewhere: Files outside the source's destination; they stay where they are.
        passing: Files that vanished before they were read, with what happened.
        failed: Files and locations that could not be copied, with the reason.
    """

    files: int = 0
    size_bytes: int = 0
    elsewhere: int = 0
    passing: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class Copying:
    """Copies files, again and again until there is nothing new.

    Args:
        notes: Locations that rows name; remembers what was copied.
        source: What the locations lie in.
        target: Where they go.
        moves: What becomes of locations.
        progress: Called with the bytes so far, often.
        is_resumed: A file of the right size that is there already was copied before.
    """

    def __init__(
        self,
        notes: Notes,
        source: Places,
        target: Places,
        moves: Moves,
        progress: Callable[[int], None],
        *,
        is_resumed: bool,
    ) -> None:
        self._notes = notes
        self._source = source
        self._target = target
        self._moves = moves
        self._progress = progress
        self._is_resumed = is_resumed
        self.result = Copied()

    def run(self) -> Copied:
        """Copy what has not been copied yet.

        Raises:
            OpsError: A destination cannot be reached, or the disk is full.
        """
        self.result = Copied()
        waiting: deque[tuple[Found, Callable[[], None] | None]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for found in iter_files(self._notes, self._source, self.result.failed):
                try:
                    place = self._find(found)
                    is_there = place is not None and self._is_there(found, *place)
                except BadInputError as err:  # a name that cannot be there
                    self.result.failed.append((found.shown, err.message))
                    continue
                if place is None:
                    self.result.elsewhere += 1
                    continue
                files, path = place
                is_local = isinstance(files, LocalFiles) and isinstance(found.files, LocalFiles)
                if is_there:
                    waiting.append((found, None))
                elif is_local:
                    waiting.append((found, partial(_copy, found, files, path)))
                else:
                    task = pool.submit(_copy, found, files, path)
                    waiting.append((found, task.result))
                while len(waiting) > (0 if is_local else AHEAD):
                    self._end(*waiting.popleft())
            while waiting:
                self._end(*waiting.popleft())
        return self.result

    def survey(self) -> Copied:
        """Only count."""
        for found in iter_files(self._notes, self._source, self.result.failed):
            if self._find(found) is None:
                self.result.elsewhere += 1
            else:
                self._count(found)
        return self.result

    def _find(self, found: Found) -> tuple[Files, str] | None:
        """Where a file goes; None when it stays."""
        moved = self._moves(found.root.location)
        plain = normalised(moved, self._target.root)
        if not self._target.is_inside(plain):
            return None
        files, below = self._target.find(plain)
        return files, f"{below}/{found.file.path}" if below else found.file.path

    def _is_there(self, found: Found, files: Files, path: str) -> bool:
        location, file = found.root.location, found.file
        if self._notes.is_copied(location, file.path, file.stamp):
            return True
        if not self._is_resumed:
            return False
        there = files.find(path)
        return there is not None and there.size_bytes == file.size_bytes

    def _end(self, found: Found, finish: Callable[[], None] | None) -> None:
        try:
            if finish is not None:
                finish()
        except VanishedError:
            self.result.passing.append((found.shown, "vanished while it was read"))
        except ChangedError:
            self.result.failed.append((found.shown, "changed while it was read"))
        except (PermissionDeniedError, BadInputError) as err:
            self.result.failed.append((found.shown, err.message))
        else:
            self._notes.note_copied(found.root.location, found.file.path, found.file.stamp)
            self._count(found)

    def _count(self, found: Found) -> None:
        self.result.files += 1
        self.result.size_bytes += found.file.size_bytes
        self._progress(self.result.size_bytes)


def _copy(found: Found, files: Files, path: str) -> None:
    if found.file.size_bytes <= SMALL_BYTES:
        content = found.files.read(found.path)
        files.write(path, content, len(content))
        return
    with found.files.open(found.path) as reader:
        files.write(path, iter_chunks(reader), reader.file.size_bytes)
