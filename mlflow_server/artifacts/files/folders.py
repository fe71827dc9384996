"""Open folders of a local disk one in another, none of them through a link.

So nothing outside a root is ever reached, whatever somebody puts there meanwhile, and no path is
too long.
"""

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

# To look for entries in, which takes no permission to list them.
_PASSAGE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# How many folders are kept open at most.
_NEAR = 32
_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_folder(root: str, folder: str) -> int:
    """Open a folder to look for entries in.

    Args:
        root: May be a link.
        folder: Below it; empty for itself.

    Raises:
        OSError: It is not there, or cannot be reached; ELOOP when a link is on the way.
        ValueError: No folder can be called so.
    """
    opened = os.open(root, _ROOT)
    if folder:
        for part in folder.split("/"):
            above = opened
            try:
                opened = _enter(part, above)
            finally:
                os.close(above)
    return opened


def make_folder(root: str, folder: str, *, durable: bool) -> int:
    """The same, and make what is missing on the way.

    Args:
        root: See `open_folder`.
        folder: See there.
        durable: What is made outlives a power failure.
    """
    with contextlib.suppress(FileNotFoundError):
        return open_folder(root, folder)
    _make_root(Path(root), durable=durable)
    opened = os.open(root, _ROOT)
    for part in folder.split("/") if folder else ():
        above = opened
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=above)
                if durable:
                    sync_folder(above)
            opened = _enter(part, above)
        finally:
            os.close(above)
    return opened


def sync_folder(folder: int) -> None:
    """Let the entries of an open folder outlive a power failure."""
    readable = open_to_list(folder)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


def open_to_list(folder: int) -> int:
    """Open a folder that is open to look for entries in once more, to list them."""
    return os.open(".", _READABLE, dir_fd=folder)


class Passages:
    """Folders below a root, opened to look for entries in, and kept open as long as they are near.

    Files that are read one after the other mostly lie in one folder, and folders that are listed
    one in another. One thread's.

    Args:
        root: See `open_folder`.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._opened: OrderedDict[str, int] = OrderedDict()

    def find(self, folder: str) -> int:
        """A folder, open until others were found; see `open_folder`."""
        if (found := self._opened.get(folder)) is not None:
            return found
        at, missing = folder, []
        while at and at not in self._opened:
            at, _, name = at.rpartition("/")
            missing.append(name)
        if at not in self._opened:
            self._keep("", os.open(self._root, _ROOT))
        opened = self._opened[at]
        while missing:
            name = missing.pop()
            at = f"{at}/{name}" if at else name
            opened = _enter(name, opened)
            self._keep(at, opened)
        return opened

    def forget(self) -> None:
        """Close them all: what is called so may be another folder by now."""
        while self._opened:
            os.close(self._opened.popitem()[1])

    def __del__(self) -> None:
        self.forget()

    def _keep(self, folder: str, descriptor: int) -> None:
        self._opened[folder] = descriptor
        if len(self._opened) > _NEAR:
            os.close(self._opened.popitem(last=False)[1])


@contextlib.contextmanager
def opened(root: str, folder: str) -> Iterator[int]:
    """See `open_folder`; closed at the end."""
    descriptor = open_folder(root, folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(part: str, above: int) -> int:
    try:
        return os.open(part, _PASSAGE, dir_fd=above)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from None
        raise


def _make_root(root: Path, *, durable: bool) -> None:
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        if durable:
            with opened(os.fspath(folder.parent), "") as above:
                sync_folder(above)
