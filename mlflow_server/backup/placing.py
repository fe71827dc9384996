"""Write the artifacts of a backup to where they are to be."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

from mlflow_server.artifacts.files import Files, LocalFiles, Reader
from mlflow_server.artifacts.locations import PROXIED, normalised
from mlflow_server.artifacts.shown import shown as shown_path
from mlflow_server.backup.catalogue import Catalogue, Content
from mlflow_server.backup.locations import Moves, is_proxied
from mlflow_server.backup.names import PACKS
from mlflow_server.backup.places import Places
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.transfer import AHEAD, CHUNK_BYTES, SMALL_BYTES, THREADS
from mlflow_server.errors import BadInputError, DamagedError
from mlflow_server.uris import mask_uri

# A gap that is read rather than skipped with another request.
_GAP_BYTES = 1024 * 1024


class Placing:
    """Writes contents out of packs.

    Args:
        shelf: Where the packs are.
        places: Where files may go.
        moves: What becomes of locations.
        progress: Called with the bytes so far, often.
        is_resumed: A file of the right size that is there already is one of these.
        wants: Says of a location and a path whether the file is restored.
    """

    def __init__(
        self,
        shelf: Shelf,
        places: Places,
        moves: Moves,
        progress: Callable[[int], None],
        *,
        is_resumed: bool,
        wants: Callable[[str, str], bool],
    ) -> None:
        self._shelf = shelf
        self._places = places
        self._moves = moves
        self._progress = progress
        self._is_resumed = is_resumed
        self._wants = wants
        self._allowed = [normalised(new, places.root) for new in moves.targets()]
        self.files = 0
        self.size_bytes = 0
        self._find = lru_cache(1_024)(self._find_place)
        self._waiting: deque[tuple[_Target, int, Future[None]]] = deque()
        # Locations whose files have nowhere to go, with how many they are.
        self.kept_back: Counter[str] = Counter()
        # Files that could not be written, with the reason.
        self.failed: list[tuple[str, str]] = []

    def run(self, catalogue: Catalogue) -> None:
        """Write everything.

        Raises:
            BadInputError: A content is not what it was.
            OpsError: Something cannot be reached, or the disk is full.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            self._pool = pool
            for pack, contents in catalogue.iter_packs():
                with _Pack(self._shelf, pack) as source:
                    for content in contents:
                        self._place(source, content)
            self._finish(0)

    def _place(self, source: "_Pack", content: Content) -> None:
        targets = list(self._targets(content))
        if not targets:
            return
        if content.size_bytes > SMALL_BYTES:
            for target in targets:
                chunks = source.chunks(content)
                self._end(target, content.size_bytes, partial(self._write, target, chunks))
            return
        body = b"".join(source.chunks(content))
        for target in targets:
            write = partial(self._write, target, body)
            if isinstance(target.files, LocalFiles):
                self._end(target, len(body), write)
            else:
                self._waiting.append((target, len(body), self._pool.submit(write)))
                self._finish(AHEAD)

    def _write(self, target: "_Target", source: bytes | Iterator[bytes]) -> None:
        target.files.write(target.path, source)

    def _finish(self, left: int) -> None:
        while len(self._waiting) > left:
            target, size_bytes, task = self._waiting.popleft()
            self._end(target, size_bytes, task.result)

    def _end(self, target: "_Target", size_bytes: int, act: Callable[[], None]) -> None:
        try:
            act()
        except DamagedError:
            raise
        except BadInputError as err:  # a name that cannot be there
            self.failed.append((target.shown, err.message))
            return
        self._count(size_bytes)

    def _count(self, size_bytes: int) -> None:
        self.files += 1
        self.size_bytes += size_bytes
        self._progress(self.size_bytes)

    def _targets(self, content: Content) -> Iterator["_Target"]:
        """Where a content has to go, as far as it is not there."""
        for location, path in content.files:
            if not self._wants(location, path):
                continue
            folder, _, name = path.rpartition("/")
            moved, place = self._find(location, folder)
            shown = f"{mask_uri(moved)}/{name}"
            if place is None:
                self.kept_back[mask_uri(location)] += 1
                continue
            if isinstance(place, BadInputError):
                self.failed.append((shown, place.message))
                continue
            files, below = place
            target = _Target(shown, files, f"{below}/{name}" if below else name)
            if self._is_resumed and _is_there(target, content.size_bytes):
                self._count(content.size_bytes)
            else:
                yield target

    def _find_place(
        self, location: str, folder: str
    ) -> tuple[str, tuple[Files, str] | BadInputError | None]:
        """What becomes of a folder, and what that lies in; None when it may not be written to."""
        plain = normalised(location)
        moved = self._moves.place(f"{plain}/{folder}" if folder else plain)
        if is_proxied(moved):
            moved = self._places.root + moved.removeprefix(PROXIED)
        if not self._may_write(moved):
            return moved, None
        if not {".", ".."}.isdisjoint(moved.split("/")) or "\0" in moved:
            return moved, BadInputError("the location leads elsewhere")
        try:
            return moved, self._places.find(moved)
        except BadInputError as err:
            return moved, err

    def _may_write(self, plain: str) -> bool:
        """Only at the destination and where somebody said so: an archive may name any folder."""
        return self._places.is_inside(plain) or any(
            plain == allowed or plain.startswith(allowed.rstrip("/") + "/")
            for allowed in self._allowed
        )


@dataclass(frozen=True)
class _Target:
    """Where a file is to be.

    Args:
        shown: For messages.
        files: What it will lie in.
        path: Where in there.
    """

    shown: str
    files: Files
    path: str


def _is_there(target: _Target, size_bytes: int) -> bool:
    try:
        there = target.files.find(target.path)
    except BadInputError:  # which is told where it cannot be written
        return False
    return there is not None and there.size_bytes == size_bytes


class _Pack:
    """A pack that is read from its beginning to its end, mostly."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self._files = shelf.files
        self._path = f"{PACKS}/{name}"
        self._shown = f"{shelf.shown}/{self._path}"
        self._reader: Reader | None = None
        self._at = 0

    def __enter__(self) -> "_Pack":
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def chunks(self, content: Content) -> Iterator[bytes]:
        """A content; the end of it comes only when it is what it was.

        Raises:
            BadInputError: It is not.
        """
        digest = hashlib.sha256()
        reader = self._seek(content.offset)
        left = content.size_bytes
        while left:
            chunk = reader.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise DamagedError(f"{self._shown}: is damaged: it ends too early")
            digest.update(chunk)
            left -= len(chunk)
            self._at += len(chunk)
            if not left and digest.hexdigest() != content.sha256:
                break
            yield chunk
        if digest.hexdigest() != content.sha256:
            wrong = shown_path(mask_uri("/".join(content.files[0])))
            raise DamagedError(f"{self._shown}: is damaged: the content of {wrong} is another one")

    def _seek(self, offset: int) -> Reader:
        gap = offset - self._at
        if self._reader is not None and 0 <= gap <= _GAP_BYTES:
            self._reader.read(gap)
        else:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._files.open(self._path, offset)
        self._at = offset
        return self._reader
