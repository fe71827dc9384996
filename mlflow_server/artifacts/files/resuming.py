"""Read an object of a bucket to its end, even when the connection breaks off now and then."""

import time
from types import TracebackType
from typing import Self

from mlflow_server.artifacts.buckets.bucket import ContentBucket
from mlflow_server.artifacts.files.files import File
from mlflow_server.errors import UnavailableError

# Between attempts to go on, as long as nothing comes; each of them is several for the library.
_PAUSES_S = (0.1, 0.5, 2.0)


class ResumingReader:
    """See `Reader`.

    What is read after a break is of the same content as before it, or it is an error.

    Args:
        bucket: Where it is.
        key: The object.
        path: What it is called below the prefix.
        start: The first byte that is wanted.
    """

    def __init__(self, bucket: ContentBucket, key: str, path: str, start: int) -> None:
        self._bucket = bucket
        self._key = key
        self._content = bucket.open(key, start)
        self._at = start
        self._is_whole = False
        self.file = file_of(path, self._content.size_bytes, self._content.stamp)

    def read(self, size: int = -1, /) -> bytes:
        """See `Reader`."""
        left = max(self.file.size_bytes - self._at, 0)
        if 0 <= size < left:
            left = size
        pieces = []
        while left:
            piece = self._read_some(left)
            self._at += len(piece)
            left -= len(piece)
            pieces.append(piece)
        if self._at >= self.file.size_bytes:
            self._finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """See `Reader`."""
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _read_some(self, size: int) -> bytes:
        """At least one byte, as there has to be one."""
        for pause_s in _PAUSES_S:
            try:
                if piece := self._content.read(size):
                    return piece
            except UnavailableError:
                pass
            self._content.close()
            time.sleep(pause_s)
            self._content = self._bucket.open(self._key, self._at, self._content.stamp or None)
        if piece := self._content.read(size):
            return piece
        raise UnavailableError(f"{self._key}: breaks off again and again at byte {self._at}")

    def _finish(self) -> None:
        """Read the end itself: some stores' libraries compare the checksum only there."""
        if not self._is_whole:
            self._is_whole = True
            try:
                self._content.read(1)
            except UnavailableError:
                return  # everything is there


def file_of(path: str, size_bytes: int, stamp: str) -> File:
    """A file in a bucket."""
    return File(path, size_bytes, f"{size_bytes}-{stamp}")
