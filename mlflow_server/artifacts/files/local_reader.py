"""Read a file of a local disk, and notice when somebody writes to it meanwhile."""

import os
import stat
from types import TracebackType
from typing import Self

from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.artifacts.files.files import File
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import BadInputError, ChangedError

# The most that one call reads on Linux is 2 GiB; a part of it keeps what is asked for together.
_MOST_AT_ONCE = 1 << 30


def file_of(path: str, status: os.stat_result) -> File:
    """A file on a disk.

    The time of its content can be set to anything, as copying tools do; the time of its entry
    cannot, and renaming another file over it changes that, too.
    """
    return File(path, status.st_size, stamp_of(status))


def stamp_of(status: os.stat_result) -> str:
    """See `File`."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def read_whole(descriptor: int, full: str, subject: str) -> bytes:
    """The content of a file that is open, at once.

    Args:
        descriptor: Of the file.
        full: The path in full.
        subject: How messages begin.

    Raises:
        ChangedError: Somebody wrote to it meanwhile.
        BadInputError: It is no file.
    """
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise BadInputError(f"{subject}: {shown(full)} is no file")
    content = os.read(descriptor, before.st_size)
    now = os.fstat(descriptor)
    if len(content) != before.st_size or now.st_mtime_ns != before.st_mtime_ns:
        raise ChangedError(f"{subject}: {shown(full)} was changed while it was read")
    return content


class LocalReader:
    """See `Reader`.

    Args:
        descriptor: Of the open file; closed with this.
        path: Below the folder that was opened.
        start: The first byte that is wanted.
        full: The path in full.
        subject: How messages begin.

    Raises:
        BadInputError: It is no file.
    """

    def __init__(
        self,
        descriptor: int,
        path: str,
        start: int,
        full: str,
        subject: str,
    ) -> None:
        self._descriptor = descriptor
        self._full = full
        self._subject = subject
        self._status = os.fstat(descriptor)
        if not stat.S_ISREG(self._status.st_mode):
            raise BadInputError(f"{subject}: {shown(full)} is no file")
        self._at = min(start, self._status.st_size)
        if start:
            os.lseek(descriptor, self._at, os.SEEK_SET)
        self.file = file_of(path, self._status)

    def read(self, size: int = -1, /) -> bytes:
        """See `Reader`."""
        left = self._status.st_size - self._at
        if 0 <= size < left:
            left = size
        pieces = []
        try:
            while left:
                piece = os.read(self._descriptor, min(left, _MOST_AT_ONCE))
                if not piece:
                    raise self._changed()
                pieces.append(piece)
                left -= len(piece)
                self._at += len(piece)
            # Also for those who do not ask again when they have all that was told.
            if self._at == self._status.st_size and self._is_changed():
                raise self._changed()
        except OSError as err:
            raise explain(self._subject, self._full, err) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """See `Reader`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _is_changed(self) -> bool:
        now = os.fstat(self._descriptor)
        then = self._status
        return now.st_size != then.st_size or now.st_mtime_ns != then.st_mtime_ns

    def _changed(self) -> ChangedError:
        return ChangedError(f"{self._subject}: {shown(self._full)} was changed while it was read")
