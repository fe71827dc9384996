"""The content of a file on its way from one place to another: what it is taken from, in pieces."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

from mlflow_server.errors import ChangedError

_CHUNK_BYTES = 1024 * 1024


@runtime_checkable
class Readable(Protocol):
    """What can be read from, such as an open file."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        ...


# Where the content of a file comes from.
Source: TypeAlias = bytes | Readable | Iterable[bytes]


def chunks_of(source: Source, size_bytes: int | None, subject: str) -> Iterator[bytes]:
    """A content as it comes, in chunks of any size but none.

    Args:
        source: Where it comes from.
        size_bytes: How much it has to be; None when nobody knows.
        subject: How the message begins.

    Raises:
        ChangedError: It was more or less than that.
        Exception: Whatever the source raises.
    """
    seen = 0
    for chunk in _raw_chunks(source):
        seen += len(chunk)
        if size_bytes is not None and seen > size_bytes:
            raise ChangedError(f"{subject}: its content is more than the {size_bytes} bytes told")
        if chunk:
            yield chunk
    if size_bytes is not None and seen < size_bytes:
        raise ChangedError(f"{subject}: its content ended after {seen} of {size_bytes} bytes")


def parts_of(chunks: Iterable[bytes], part_bytes: int) -> Iterator[bytes]:
    """The same content in parts of one size; only the last one is smaller, and none is empty."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size < part_bytes:
            continue
        whole = memoryview(b"".join(waiting))
        while len(whole) >= part_bytes:
            yield bytes(whole[:part_bytes])
            whole = whole[part_bytes:]
        waiting, size = [bytes(whole)], len(whole)
    if size:
        yield b"".join(waiting)


def _raw_chunks(source: Source) -> Iterable[bytes]:
    if isinstance(source, bytes):
        return (source,)
    if isinstance(source, Readable):
        return iter(lambda: source.read(_CHUNK_BYTES), b"")
    return source
