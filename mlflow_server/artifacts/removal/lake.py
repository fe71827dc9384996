"""Remove folders of a file system of Azure Data Lake, each by one request."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_server.artifacts.azure_client import AzureAccount
from mlflow_server.artifacts.buckets.azure import LIMITS
from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.place import Place
from mlflow_server.errors import OpsError
from mlflow_server.uris import ArtifactUri

_THREADS = 8
_PAGE_SIZE = 1_000
# Of the two interfaces that the library asks.
_MISSING = ("PathNotFound", "BlobNotFound")


class LakeRemover:
    """Removes folders of a file system, which has real ones; MLflow itself cannot.

    Args:
        uri: A place in it.
        environ: Where MLflow looks for credentials.
        subject: How messages begin.

    Raises:
        OpsError: The settings cannot be used.
    """

    def __init__(self, uri: ArtifactUri, environ: Mapping[str, str], subject: str) -> None:
        self._account = AzureAccount(uri, environ, subject, LIMITS)
        self._files = self._account.container
        self._pool = ThreadPoolExecutor(_THREADS)

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """See `Remover`."""
        return list(self._pool.map(self._remove, places))

    def measure(self, places: Sequence[Place]) -> list[Found | str]:
        """See `Remover`."""
        return list(self._pool.map(self._measure, places))

    def folders(self, parts: Sequence[str]) -> Iterator[str]:
        """See `Remover`."""
        for entry in self._list(parts, recursive=False):
            if entry.is_directory:
                yield entry.name.rpartition("/")[2]

    def remove_empty(self, folders: Sequence[tuple[str, ...]]) -> None:
        """See `Remover`: the library deletes folders with everything in them, or not at all."""

    def check(self, parts: Sequence[str]) -> bool:
        """See `Remover`."""
        is_there = any(True for _ in self._list(parts, recursive=False))
        name = "/".join((*parts, f".mlflow-server-gc-{uuid.uuid4().hex}"))
        with self._account.explained(), _may_be_missing():
            self._files.get_file_client(name).delete_file()
        return is_there

    def close(self) -> None:
        """See `Remover`."""
        self._pool.shutdown()
        self._account.close()

    def _remove(self, place: Place) -> Freed | str:
        try:
            found, parts = self._count(place)
            with self._account.explained(), _may_be_missing():
                self._files.get_directory_client("/".join(parts)).delete_directory()
        except OpsError as err:
            return err.message
        return Freed(found.files, found.size_bytes)

    def _measure(self, place: Place) -> Found | str:
        try:
            found, parts = self._count(place)
            return found if found.files else Found(newest_s=self._changed_s(parts))
        except OpsError as err:
            return err.message

    def _changed_s(self, parts: Sequence[str]) -> float | None:
        """When a folder was changed, in seconds since the epoch; None when it is not there."""
        changed_s: float | None = None
        with self._account.explained(), _may_be_missing():
            folder = self._files.get_directory_client("/".join(parts))
            changed_s = folder.get_directory_properties().last_modified.timestamp()
        return changed_s

    def _count(self, place: Place) -> tuple[Found, tuple[str, ...]]:
        """What is at a location; and the way to the folder that goes with it."""
        found, parts = Found(), place.parts
        end = _names("/".join(place.end))
        for entry in self._list(place.parts, recursive=True):
            names = _names(entry.name)
            if place.inside and names[: len(end)] != end:
                if not entry.is_directory or names != end[: len(names)]:
                    parts = place.end
            elif not entry.is_directory:
                written = entry.last_modified
                found = found.with_file(
                    entry.content_length or 0, written.timestamp() if written else None
                )
        return found, parts

    def _list(self, parts: Sequence[str], *, recursive: bool) -> Iterator[Any]:
        with self._account.explained(), _may_be_missing():
            yield from self._files.get_paths(
                "/".join(parts) or None, recursive=recursive, max_results=_PAGE_SIZE
            )


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


@contextlib.contextmanager
def _may_be_missing() -> Iterator[None]:
    """A path that is not there is no failure; a file system that is not there is one."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError as err:
        if err.error_code not in _MISSING:
            raise
