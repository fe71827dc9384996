"""The files below a prefix of a bucket, whichever store it is in."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from mlflow_server.artifacts.buckets.bucket import ContentBucket
from mlflow_server.artifacts.buckets.deleting import delete_patiently
from mlflow_server.artifacts.content import Source
from mlflow_server.artifacts.files.files import (
    File,
    Folder,
    OnSkip,
    check_folder,
    check_path,
    is_path,
)
from mlflow_server.artifacts.files.resuming import ResumingReader, file_of
from mlflow_server.artifacts.removal.freed import Remover
from mlflow_server.artifacts.removal.objects import ObjectRemover
from mlflow_server.artifacts.removal.place import Place, root_of
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import BadInputError, UnavailableError
from mlflow_server.uris import ArtifactUri

# How many files of a folder come together at most: a folder may have millions.
_PART = 1000


class ObjectFiles:
    """See `Files`.

    Args:
        bucket: Where they are; closed with this.
        store: The prefix.
        subject: How messages begin.
        remover: Of whole folders, where they do not go with their last object; closed with this.
    """

    def __init__(
        self,
        bucket: ContentBucket,
        store: ArtifactUri,
        subject: str,
        remover: Remover | None = None,
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._subject = subject
        self._root = root_of(store)
        self._prefix = "".join(f"{part}/" for part in self._root)
        self._remover = remover or ObjectRemover(bucket)

    def walk(self, below: str = "", *, on_skip: OnSkip | None = None) -> Iterator[File]:
        """See `Files`."""
        prefix, more = self._folder(below), None
        while True:
            page = self._bucket.list(prefix, more=more)
            for each in page.objects:
                path = each.key[len(self._prefix) :]
                if each.is_folder or (path[-1:] in ("", "/") and not each.size_bytes):
                    continue  # stands for a folder
                if is_path(path):
                    yield file_of(path, each.size_bytes, each.stamp)
                elif on_skip is not None:
                    message = f"{self._subject}: {shown(path)!r} is a key that no path can name"
                    on_skip(path, BadInputError(message))
            if (more := page.more) is None:
                return

    def walk_folders(self, below: str = "", *, on_skip: OnSkip | None = None) -> Iterator[Folder]:
        """See `Files`."""
        for path, files in groupby(self.walk(below, on_skip=on_skip), _folder_of):
            while some := list(islice(files, _PART)):
                yield Folder(path, [file.path.rpartition("/")[2] for file in some], some)

    def find(self, path: str) -> File | None:
        """See `Files`."""
        found = self._bucket.find(self._key(path))
        if found is None or found.is_folder:
            return None
        return file_of(path, found.size_bytes, found.stamp)

    def folders(self, below: str = "") -> Iterator[str]:
        """See `Files`."""
        for name in self._bucket.list_folders(self._folder(below)):
            if is_path(name):
                yield name

    def open(self, path: str, start: int = 0) -> ResumingReader:
        """See `Files`."""
        return ResumingReader(self._bucket, self._key(path), path, start)

    def read(self, path: str) -> bytes:
        """See `Files`."""
        with self.open(path) as reader:
            return reader.read()

    def write(
        self, path: str, source: Source, size_bytes: int | None = None, *, durable: bool = False
    ) -> None:
        """See `Files`."""
        self._bucket.write(self._key(path), source, size_bytes)

    def remove(self, paths: Sequence[str]) -> None:
        """See `Files`."""
        keys = iter([self._key(path) for path in paths])
        reasons: list[str] = []
        while some := list(islice(keys, self._bucket.keys_per_request)):
            refusals = delete_patiently(self._bucket, some)
            reasons += (refusal.reason for refusal in refusals.values())
        if reasons:
            raise UnavailableError(reasons[0])

    def remove_tree(self, below: str) -> None:
        """See `Files`."""
        parts = (*self._root, *check_path(below).split("/"))
        (result,) = self._remover.remove([Place(self._store, parts)])
        if isinstance(result, str):
            raise UnavailableError(result)

    def close(self) -> None:
        """See `Files`."""
        self._remover.close()
        self._bucket.close()

    def _folder(self, below: str) -> str:
        return f"{self._prefix}{_encodable(check_folder(below))}/" if below else self._prefix

    def _key(self, path: str) -> str:
        return self._prefix + _encodable(check_path(path))


def _folder_of(file: File) -> str:
    return file.path.rpartition("/")[0]


def _encodable(path: str) -> str:
    """The same path.

    Raises:
        BadInputError: It has bytes in it that are no text; no store takes them.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadInputError(f"{shown(path)}: the name is not UTF-8") from None
    return path
