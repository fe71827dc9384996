"""Remove folders of a local disk: rename into `.gc-trash` first, purge from there."""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.place import Place
from mlflow_server.errors import BadInputError, OpsError

TRASH = ".gc-trash"
# More do not help: a disk removes one file after the other.
_THREADS = 8


class LocalRemover:
    """Removes folders of a local disk.

    A folder goes to the trash first, where nobody looks, under a name that a repetition finds
    again; renaming is a hundred times faster than removing.

    Args:
        root: Nothing above it is ever touched. The root of the file system means a place of its
            own: then the trash is beside the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trashes: set[Path] = set()
        self._pool = ThreadPoolExecutor(_THREADS)

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """See `Remover`."""
        for place in places:
            self._make_trash(self._trash_of(place))
        return list(self._pool.map(self._remove, places))

    def close(self) -> None:
        """Remove the trash folders; what a crash left in them stays for its journal entry."""
        self._pool.shutdown()
        for trash in self._trashes:
            with contextlib.suppress(OSError):  # not empty: that is what this asks
                trash.rmdir()
        self._trashes.clear()

    def _trash_of(self, place: Place) -> Path:
        if self._root != Path("/"):
            return self._root / TRASH
        return self._root.joinpath(*place.parts[:-1]) / TRASH

    def _make_trash(self, trash: Path) -> None:
        if trash not in self._trashes:
            with contextlib.suppress(OSError):  # told for the folder itself
                trash.mkdir(exist_ok=True)
                self._trashes.add(trash)

    def _remove(self, place: Place) -> Freed | str:
        folder = self._root.joinpath(*place.parts)
        aside = self._trash_of(place) / place.parts[-1]
        try:
            freed = purge(aside) if os.path.lexists(aside) else Freed()
            if not _is_there(self._root, place.parts):
                return freed
            try:
                folder.rename(aside)
            except OSError as err:
                # On another disk, or there is no trash: a full disk may have no room for a folder.
                if err.errno not in (errno.EXDEV, errno.ENOENT, errno.ENOSPC):
                    raise
                aside = folder
            return freed + purge(aside)
        except OpsError as err:
            return err.message
        except OSError as err:
            return f"{err.filename}: {err.strerror}"


def _is_there(root: Path, parts: tuple[str, ...]) -> bool:
    folder = root
    for part in parts:
        folder = folder / part
        try:
            mode = folder.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(mode):
            raise BadInputError(f"{folder} is a symbolic link; what it leads to may be another's")
    return True


def purge(folder: Path) -> Freed:
    """Remove a folder or file, following no link, however deep it is.

    Raises:
        OSError: Something cannot be removed; what could be is gone.
    """
    if not stat.S_ISDIR(folder.lstat().st_mode):
        size = folder.lstat().st_size
        folder.unlink()
        return Freed(1, size)
    files = size = 0
    waiting, folders = [os.fspath(folder)], []
    while waiting:
        current = waiting.pop()
        folders.append(current)
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                size += entry.stat(follow_symlinks=False).st_size
                Path(entry.path).unlink()
                files += 1
    for current in reversed(folders):
        Path(current).rmdir()
    return Freed(files, size)
