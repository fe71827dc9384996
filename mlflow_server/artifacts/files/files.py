"""What can be done with files, wherever they are."""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

from mlflow_server.artifacts.content import Source
from mlflow_server.errors import BadInputError, OpsError


class File(NamedTuple):
    """One file.

    Args:
        path: Below what was opened, with `/` between folders. No part of it is `.` or `..`, and it
            does not begin with a slash; in a bucket a part may be empty (`a//b`). Bytes of a local
            name that are no UTF-8 are surrogates.
        size_bytes: Of its content.
        stamp: Another one whenever the content may be another one; says nothing in itself. Only
            those of the same place can be compared.
    """

    path: str
    size_bytes: int
    stamp: str


class Folder(NamedTuple):
    """Files that are directly in one folder.

    Args:
        path: Of the folder, below what was opened; empty for that itself.
        names: Of the files.
        files: The files, in the same order.
    """

    path: str
    names: Sequence[str]
    files: Sequence[File]


# Told of what is left out: its path, and why. It is a `BadInputError` for what is no file (a link,
# a socket, a key that no path can name), anything else for a folder that cannot be looked into.
OnSkip: TypeAlias = Callable[[str, OpsError], None]


class Reader(Protocol):
    """A file that is being read, by one thread; closed by `with`.

    Args:
        file: As it was when reading began: what is read is the content that has this stamp.
    """

    @property
    def file(self) -> File:
        """See above."""
        ...

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, or all that are left; fewer at the end only.

        Raises:
            ChangedError: The file was changed since reading began.
            VanishedError: It was removed.
            OpsError: It cannot be read.
        """
        ...

    def close(self) -> None:
        """Stop reading; idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Files(Protocol):
    """The files of a folder or of a prefix of a bucket; may be used from many threads.

    A path leads to a file below it, see `File`; a folder is a path, or empty for all of it.
    Whatever takes one raises `BadInputError` for a path that cannot be.
    """

    def walk(self, below: str = "", *, on_skip: OnSkip | None = None) -> Iterator[File]:
        """All files in a folder and its folders; none when it is not there.

        Nothing is kept in memory but a page, or the files of one folder. No link is followed.

        Args:
            below: The folder.
            on_skip: Told of what is left out. Without it, a folder that cannot be looked into
                raises.

        Raises:
            OpsError: They cannot be listed.
        """
        ...

    def walk_folders(self, below: str = "", *, on_skip: OnSkip | None = None) -> Iterator[Folder]:
        """The same files, those of a folder together.

        No folder is there without files, and the files of one may come in several parts. On a local
        disk and in most buckets they are sorted by name.
        """
        ...

    def find(self, path: str) -> File | None:
        """Look for one file; None when it is not there, or is a link or a folder.

        Raises:
            OpsError: Nobody can tell.
        """
        ...

    def folders(self, below: str = "") -> Iterator[str]:
        """The names of the folders directly in a folder; none when it is not there.

        Raises:
            OpsError: They cannot be listed.
        """
        ...

    def open(self, path: str, start: int = 0) -> Reader:
        """Begin to read a file.

        Args:
            path: Which.
            start: The first byte that is wanted; from the end on, there are none.

        Raises:
            VanishedError: It is not there.
            PermissionDeniedError: It may not be read.
            OpsError: It cannot be read.
        """
        ...

    def read(self, path: str) -> bytes:
        """The whole content of a small file.

        Raises:
            OpsError: As for `open` and `Reader.read`.
        """
        ...

    def write(
        self, path: str, source: Source, size_bytes: int | None = None, *, durable: bool = False
    ) -> None:
        """Write a file, whole or not at all, in the place of one that is there.

        Folders above it come into being. Memory is bounded, however large it is.

        Args:
            path: Which.
            source: Its content: bytes, something to read from, or chunks.
            size_bytes: How much it has to be, when that is known. A bucket of S3 takes no more than
                78 GiB of what has no known size.
            durable: Return only when it would outlive a power failure. Buckets always do.

        Raises:
            ChangedError: The content was more or less than `size_bytes`.
            BadInputError: The name is too long, or something that is no folder is in the way.
            PermissionDeniedError: It may not be written.
            UnavailableError: The disk is full, or the store cannot be reached.
            Exception: Whatever the source raises.
        """
        ...

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files, in any number; those that are not there are removed.

        Raises:
            OpsError: Some could not be removed; the others are.
        """
        ...

    def remove_tree(self, below: str) -> None:
        """Remove a folder and everything in it; may be repeated after a crash.

        Raises:
            OpsError: Something could not be removed.
        """
        ...

    def close(self) -> None:
        """Give back what was opened; idempotent."""
        ...


def is_path(path: str) -> bool:
    """True for the path of a file in a bucket.

    The parts `.` and `..` would be resolved on the way, by the libraries of the stores too.
    """
    parts = path.split("/")
    return bool(parts[0] and parts[-1]) and {".", ".."}.isdisjoint(parts) and "\0" not in path


def check_path(path: str) -> str:
    """The same path.

    Raises:
        BadInputError: It leads out of what was opened, or nowhere.
    """
    if not is_path(path):
        raise BadInputError(f"{path[:200]!r} is no path below a folder")
    return path


def check_folder(below: str) -> str:
    """The same folder; empty for all.

    Raises:
        BadInputError: See `check_path`.
    """
    return check_path(below) if below else below
