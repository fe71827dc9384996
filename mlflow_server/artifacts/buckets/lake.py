"""A file system of Azure Data Lake, as a bucket."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_server.artifacts.azure_client import AzureAccount
from mlflow_server.artifacts.buckets.azure import (
    LIMITS,
    PART_BYTES,
    AzureContent,
    bare,
    is_missing,
    open_content,
)
from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.content import Source, chunks_of, parts_of
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import OpsError
from mlflow_server.uris import ArtifactUri

_PAGE_SIZE = 1_000
_THREADS = 8
# What is being written, and what a killed writer has left, is called so and listed nowhere.
_ASIDE = ".mlflow-server-part-"


class LakeBucket:
    """A file system, whose folders are real.

    Args:
        uri: A place in it.
        environ: Where MLflow looks for credentials.
        subject: How messages begin.

    Raises:
        OpsError: The settings cannot be used.
    """

    # Each of them takes a request of its own, some at a time.
    keys_per_request = 64
    can_skip = False
    has_folders = True

    def __init__(self, uri: ArtifactUri, environ: Mapping[str, str], subject: str) -> None:
        self._subject = subject
        self._account = AzureAccount(uri, environ, subject, LIMITS)
        self._files = self._account.container
        self._pool = ThreadPoolExecutor(_THREADS)

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        """See `Bucket`; the prefix has to be a folder, with the slash, or empty."""
        found = Page([], None)
        with self._account.explained(), _may_be_missing():
            pages = self._paths(prefix, recursive=True).by_page(more)
            objects = [
                Object(
                    entry.name,
                    entry.content_length or 0,
                    entry.last_modified and entry.last_modified.timestamp(),
                    is_folder=entry.is_directory,
                    stamp=bare(entry.etag),
                )
                for entry in next(pages)
                if not entry.name.rpartition("/")[2].startswith(_ASIDE)
            ]
            found = Page(objects, pages.continuation_token or None)
        return found

    def list_folders(self, prefix: str) -> Iterator[str]:
        """See `Bucket`."""
        with self._account.explained(), _may_be_missing():
            for entry in self._paths(prefix, recursive=False):
                if entry.is_directory:
                    yield entry.name.rpartition("/")[2]

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        """See `Bucket`."""
        refusals = zip(keys, self._pool.map(self._delete, keys), strict=True)
        return {key: refusal for key, refusal in refusals if refusal is not None}

    def check(self, prefix: str) -> bool:
        """See `Bucket`."""
        is_there = bool(self.list(prefix).objects)
        with self._account.explained(), _may_be_missing():
            self._files.get_file_client(f"{prefix}{_new_name()}").delete_file()
        return is_there

    def find(self, key: str) -> Object | None:
        """See `ContentBucket`."""
        found: Object | None = None
        with self._account.explained(), _may_be_missing():
            told = self._files.get_file_client(key).get_file_properties()
            found = Object(
                key,
                told.size,
                told.last_modified.timestamp(),
                is_folder=(told.metadata or {}).get("hdi_isfolder") == "true",
                stamp=bare(told.etag),
            )
        return found

    def open(self, key: str, start: int = 0, stamp: str | None = None) -> AzureContent:
        """See `ContentBucket`."""
        file = self._files.get_file_client(key)
        return open_content(
            self._account,
            self._show(key),
            lambda **options: file.download_file(**options),
            lambda: self.find(key),
            start,
            stamp,
        )

    def write(self, key: str, source: Source, size_bytes: int | None) -> None:
        """See `ContentBucket`.

        A file of Data Lake is there, and empty, before anything is written to it; so it is written
        under another name, and renamed at the end.
        """
        parts = parts_of(chunks_of(source, size_bytes, self._show(key)), PART_BYTES)
        with self._account.explained():
            aside = self._files.get_file_client(_beside(key))
            aside.create_file()
        try:
            written = 0
            for part in parts:
                with self._account.explained():
                    aside.append_data(part, written, len(part))
                written += len(part)
            with self._account.explained():
                aside.flush_data(written)
                aside.rename_file(f"{self._files.file_system_name}/{key}")
        except BaseException:
            with contextlib.suppress(OpsError), self._account.explained():
                aside.delete_file()
            raise

    def close(self) -> None:
        """See `Bucket`."""
        self._pool.shutdown()
        self._account.close()

    def _show(self, key: str) -> str:
        return f"{self._subject}: {shown(key)}"

    def _delete(self, key: str) -> Refusal | None:
        try:
            with self._account.explained(), _may_be_missing():
                self._files.get_file_client(key).delete_file()
        except OpsError as err:
            return Refusal(err.message)
        return None

    def _paths(self, prefix: str, *, recursive: bool) -> Any:
        return self._files.get_paths(
            prefix.rstrip("/") or None, recursive=recursive, max_results=_PAGE_SIZE
        )


def _beside(key: str) -> str:
    """A name that nobody looks at, in the folder of a key or above it.

    azure-storage-file-datalake 12.26 decodes the name that it renames, which a `%` does not
    survive.
    """
    folder = key.rpartition("/")[0].partition("%")[0]
    if "%" in key.rpartition("/")[0]:
        folder = folder.rpartition("/")[0]
    return f"{folder}/{_new_name()}".lstrip("/")


def _new_name() -> str:
    return f"{_ASIDE}{uuid.uuid4().hex}"


@contextlib.contextmanager
def _may_be_missing() -> Iterator[None]:
    """A path that is not there is no failure; a file system that is not there is one."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError as err:
        if not is_missing(err):
            raise
