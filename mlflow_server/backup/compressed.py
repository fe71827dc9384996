"""Write lines to a compressed file, in a thread of its own where that is worth while."""

import gzip
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from mlflow_server.backup.behind import Behind

# Compressing less takes no longer than to tell somebody else.
_WORTH_BYTES = 64 * 1024


class Compressed:
    """A file that is being written.

    Args:
        lines: Compresses.
        behind: Does it: it takes as long to compress lines as to make them.

    Attributes:
        sha256: Of the compressed file, hexadecimal, once it is closed.
    """

    def __init__(self, lines: gzip.GzipFile, behind: Behind) -> None:
        self._lines = lines
        self._behind = behind
        self.sha256 = ""

    def write(self, content: bytes) -> None:
        """Add lines.

        Raises:
            OSError: These, or those before, cannot be written.
        """
        if len(content) < _WORTH_BYTES:
            self._behind.wait()
            self._lines.write(content)
        else:
            self._behind.do(self._lines.write, content)


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
            closing(Behind()) as behind,
            gzip.GzipFile("", "wb", level, hashing, mtime=0) as lines,
        ):
            found = Compressed(lines, behind)
            try:
                yield found
            finally:
                behind.wait()
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
