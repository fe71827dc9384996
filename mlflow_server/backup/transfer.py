"""How contents are moved: how much of them at a time, and who is told how far it is."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from mlflow_server.artifacts.files import Reader

# What is being done, how far it is, and how far it is at the end if that is known.
Progress: TypeAlias = Callable[[str, int, int | None], None]

# Up to this size a content is read as a whole: it may turn out to be stored already.
SMALL_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
# Files of an object store that are read or written at the same time, and that wait for it.
THREADS = 8
AHEAD = 32


def iter_chunks(reader: Reader) -> Iterator[bytes]:
    """What is left of a file, in pieces."""
    while chunk := reader.read(CHUNK_BYTES):
        yield chunk
