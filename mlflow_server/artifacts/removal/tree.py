"""Walk down a tree of folders, however deep: count it, or remove it.

No link is followed, and no way to another disk that is mounted inside.

Names are taken relative to open folders: so no path is too long, and nobody can slip a link in
between looking and removing.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from types import TracebackType

from mlflow_server.artifacts.removal.freed import Found, Freed

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# More of a way down are closed and found again by "..": a process may have 1,024 files open.
_OPEN_FOLDERS = 32
# How often folders may be found not empty after everything in them was removed: some network
# file systems leave names out while others are being removed, and somebody may be writing.
_REPETITIONS = 100


class _Way:
    """The way from an open folder down into a tree.

    Args:
        start: The folder, of which nothing but the entry in question is looked at.
        insists: Give ourselves the permission to look into our own folders.
    """

    def __init__(self, start: int, *, insists: bool) -> None:
        self._start = start
        self._device = os.fstat(start).st_dev
        self._insists = insists
        self._names: list[str] = []
        self._open: list[int] = []
        # Of those that are closed again, by depth.
        self._identities: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> "_Way":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close everything, and tell an error where it happened."""
        for depth, folder in enumerate(self._open):
            if depth not in self._identities:
                os.close(folder)
        if isinstance(err, OSError):
            name = [err.filename] if isinstance(err.filename, str) else []
            err.filename = "/".join((*self._names, *name))

    @property
    def folder(self) -> int:
        """The folder that the way has come to."""
        return self._open[-1] if self._open else self._start

    @property
    def is_at_start(self) -> bool:
        """True in the folder that the way began in, which is not ours to change."""
        return not self._open

    def enter(self, name: str) -> None:
        """Go on to a folder in this one."""
        try:
            below = os.open(name, _FOLDER, dir_fd=self.folder)
        except PermissionError:
            if not self._insists:
                raise
            make_accessible(name, self.folder)
            below = os.open(name, _FOLDER, dir_fd=self.folder)
        if os.fstat(below).st_dev != self._device:
            os.close(below)
            raise OSError(errno.EXDEV, "another disk is mounted there", name)
        self._open.append(below)
        self._names.append(name)
        far = len(self._open) - 1 - _OPEN_FOLDERS
        if far >= 0:
            self._identities[far] = _identity(self._open[far])
            os.close(self._open[far])

    def leave(self) -> str:
        """Go back to the folder above; the name of the one that was left."""
        left, depth = self.folder, len(self._open) - 2
        if depth in self._identities:
            above = os.open("..", _FOLDER, dir_fd=left)
            if _identity(above) != self._identities[depth]:
                os.close(above)
                raise OSError(errno.ESTALE, "it was moved meanwhile")
            self._open[depth] = above
            del self._identities[depth]
        self._open.pop()
        os.close(left)
        return self._names.pop()


def _identity(folder: int) -> tuple[int, int]:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


def make_accessible(name: str, parent: int) -> None:
    """Let ourselves read, write and enter a folder, if it is ours.

    Raises:
        OSError: It is not.
    """
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        os.chmod(name, stat.S_IMODE(mode) | stat.S_IRWXU, dir_fd=parent)


def purge(name: str, parent: int) -> Freed:
    """Remove a folder or file.

    Args:
        name: In `parent`.
        parent: An open folder.

    Raises:
        OSError: Something cannot be removed; its path from `name` on is the `filename`. What could
            be removed is gone.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return Freed(1, _unlink(name, parent))
    files = size = repeated = 0
    with _Way(parent, insists=True) as way:

        def is_removed(folder: str) -> bool:
            nonlocal repeated
            try:
                _insist(_rmdir, folder, way)
            except OSError as err:
                repeated += 1
                if err.errno != errno.ENOTEMPTY or repeated > _REPETITIONS:
                    raise
                return False
            return True

        for file in _walk(way, name, is_removed):
            with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                size += _insist(_unlink, file, way)
                files += 1
    return Freed(files, size)


def measure(name: str, parent: int) -> Found:
    """Count what a folder or file has.

    Args:
        name: In `parent`.
        parent: An open folder.

    Raises:
        OSError: Something cannot be looked at; its path from `name` on is the `filename`.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return Found(1, status.st_size, status.st_mtime)
    files, size, newest = 0, 0, 0.0
    with _Way(parent, insists=False) as way:
        for file in _walk(way, name, lambda _: True):
            with contextlib.suppress(FileNotFoundError):
                one = os.stat(file, dir_fd=way.folder, follow_symlinks=False)
                files, size, newest = files + 1, size + one.st_size, max(newest, one.st_mtime)
    return Found(files, size, newest if files else status.st_mtime)


def _walk(way: _Way, name: str, is_done: Callable[[str], bool]) -> Iterator[str]:
    """The names of all that is no folder, in a folder and below.

    Args:
        way: Leads to where each is while it is yielded.
        name: Of the folder.
        is_done: Asked for each folder that the way has just left; False to go there anew.
    """
    waiting = [[name]]
    while waiting:
        if waiting[-1]:
            way.enter(waiting[-1].pop())
            below = []
            with os.scandir(way.folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    else:
                        yield entry.name
            waiting.append(below)
            continue
        waiting.pop()
        if waiting and not is_done(left := way.leave()):
            waiting[-1].append(left)


def _insist(remove: Callable[[str, int], int], name: str, way: _Way) -> int:
    """Remove an entry; when that is forbidden in a folder below the start, allow it first."""
    try:
        return remove(name, way.folder)
    except PermissionError:
        if way.is_at_start:
            raise
        os.fchmod(way.folder, stat.S_IMODE(os.fstat(way.folder).st_mode) | stat.S_IRWXU)
        return remove(name, way.folder)


def _unlink(name: str, folder: int) -> int:
    """Remove a file; its size in bytes."""
    size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    os.unlink(name, dir_fd=folder)
    return size


def _rmdir(name: str, folder: int) -> int:
    os.rmdir(name, dir_fd=folder)
    return 0
