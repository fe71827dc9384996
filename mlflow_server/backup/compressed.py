"""Write lines to a compressed file, in a thread of its own where that is worth while."""

import gzip
import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Compressing less takes no longer than to tell somebody else.
_WORTH_BYTES = 64 * 1024


class Compressed:
    """A file that is being written.

    Args:
        lines: Compresses.
        pool: Of one thread: it takes as long to compress lines as to make them.

    Attributes:
        sha256: Of the compressed file, hexadecimal, once it is closed.
    """

    def __init__(self, lines: gzip.GzipFile, pool: ThreadPoolExecutor) -> None:
        self._lines = lines
        self._pool = pool
        self._writing: Future[object] | None = None
        self.sha256 = ""

    def write(self, content: bytes) -> None:
        """Add lines.

        Raises:
            OSError: These, or those before, cannot be written.
        """
        self.wait()
        if len(content) < _WORTH_BYTES:
            self._lines.write(content)
        else:
            self._writing = self._pool.submit(self._lines.write, content)

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            OSError: It cannot be.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


@contextmanager
def compressed(path: Path, level: int) -> Iterator[Compressed]:
    """Begin a file; its folder comes into being.

    Args:
        path: Which.
        level: From 1, fast, to 9, small.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        hashing = _Hashing(file)
        with (
            ThreadPoolExecutor(1) as pool,
            gzip.GzipFile("", "wb", level, hashing, mtime=0) as lines,
        ):
            found = Compressed(lines, pool)
            try:
                yield found
            finally:
                found.wait()
    found.sha256 = hashing.digest.hexdigest()


class _Hashing:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()
