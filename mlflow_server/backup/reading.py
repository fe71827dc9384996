"""Read what an archive has, and believe nothing of it."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import Protocol

from mlflow_server.errors import BadInputError

# A row is never that long; what somebody makes up to fill the memory may be.
LONGEST_LINE = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


class Readable(Protocol):
    """Something to read from."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, fewer at the end."""
        ...


class _Hashed(io.RawIOBase):
    """What is read, and its digest."""

    def __init__(self, reader: Readable) -> None:
        self._reader = reader
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        content = self._reader.read(size)
        self.digest.update(content)
        return content


def read_lines(reader: Readable, digest: str, shown: str) -> Iterator[list[bytes]]:
    """The lines of a compressed file, in lists of about a mebibyte.

    Args:
        reader: The file.
        digest: What its SHA-256 has to be, hexadecimal.
        shown: What it is called in messages.

    Raises:
        BadInputError: It is damaged; at the end of the lines at the latest.
    """
    hashed = _Hashed(reader)
    begun: list[bytes] = []  # of a line whose end is still to come
    length = 0
    try:
        with gzip.GzipFile(fileobj=hashed) as file:
            while chunk := file.read(_CHUNK_BYTES):
                whole, end, rest = chunk.rpartition(b"\n")
                if end:
                    text = b"".join((*begun, whole, end))
                    begun, length = [], 0
                    yield text.splitlines(keepends=True)
                if not rest:
                    continue
                begun.append(rest)
                length += len(rest)
                if begun[0][:1] not in b"[{":
                    raise BadInputError(f"{shown}: is damaged: a line is no JSON")
                if length >= LONGEST_LINE:
                    raise BadInputError(f"{shown}: is damaged: a line has no end")
        if length:
            raise BadInputError(f"{shown}: is damaged: a line has no end")
        while hashed.read(_CHUNK_BYTES):
            pass
    except (OSError, EOFError, zlib.error):
        raise BadInputError(f"{shown}: is damaged: it cannot be decompressed") from None
    if hashed.digest.hexdigest() != digest:
        raise BadInputError(f"{shown}: is damaged: its checksum is another one")
