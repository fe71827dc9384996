"""A container of Azure Blob Storage."""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

from mlflow_server.artifacts.azure_client import AzureAccount
from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.content import (
    Source,
    chunks_of,
    parts_of,
)
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import ChangedError, OpsError, UnavailableError, VanishedError
from mlflow_server.uris import ArtifactUri

PART_BYTES = 8 * 1024 * 1024
_MOST_BLOCKS = 50_000
# Of one request, in seconds; further attempts come about 2, 6 and 15 s after the first.
LIMITS = {
    "connection_timeout": 5,
    "read_timeout": 60,
    "retry_total": 3,
    "initial_backoff": 0.2,
    "increment_base": 2,
    "random_jitter_range": 0.2,
    "max_single_get_size": PART_BYTES,
    "max_chunk_get_size": PART_BYTES,
}
_PAGE_SIZE = 1_000
_NOTHING_THERE = 416
# Of the two interfaces, that of blobs and that of Data Lake.
_MISSING = ("BlobNotFound", "PathNotFound")
_GONE = 404
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


class AzureBucket:
    """A container of Azure Blob Storage.

    Blobs go with their snapshots. What versioning and soft delete keep of them stays as long as
    the account says.

    Args:
        uri: A place in it.
        environ: Where MLflow looks for credentials.
        subject: How messages begin.

    Raises:
        OpsError: The settings cannot be used.
    """

    # The most that Azure takes in one batch.
    keys_per_request = 256
    can_skip = False

    def __init__(self, uri: ArtifactUri, environ: Mapping[str, str], subject: str) -> None:
        self._subject = subject
        self._account = AzureAccount(uri, environ, subject, LIMITS)
        self._container = self._account.container

    @cached_property
    def has_folders(self) -> bool:
        """See `Bucket`: in an account with a hierarchical namespace."""
        from azure.core.exceptions import AzureError

        try:
            return bool(self._container.get_account_information().get("is_hns_enabled"))
        except AzureError:  # not everybody may know
            return False

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        """See `Bucket`; folders are told by what Azure notes of them."""
        with self._account.explained():
            pages = self._container.list_blobs(
                name_starts_with=prefix, include=["metadata"], results_per_page=_PAGE_SIZE
            ).by_page(more)
            objects = [_object(blob) for blob in next(pages)]
        return Page(objects, pages.continuation_token or None)

    def list_folders(self, prefix: str) -> Iterator[str]:
        """See `Bucket`."""
        from azure.storage.blob import BlobPrefix

        with self._account.explained():
            for entry in self._container.walk_blobs(name_starts_with=prefix, delimiter="/"):
                if isinstance(entry, BlobPrefix):
                    yield entry.name[len(prefix) : -1]

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        """See `Bucket`."""
        refused = {}
        try:
            with self._account.explained():
                answers = self._container.delete_blobs(
                    *keys, delete_snapshots="include", raise_on_any_failure=False
                )
                for key, answer in zip(keys, answers, strict=True):
                    status = answer.status_code
                    if status >= 300 and status != _GONE:
                        code = str(answer.headers.get("x-ms-error-code") or status)[:40]
                        reason = f"{self._subject}: Azure refuses to delete ({code})"
                        refused[key] = Refusal(reason, status in _TEMPORARY)
        except OpsError as err:
            return dict.fromkeys(keys, Refusal(err.message))
        return refused

    def check(self, prefix: str) -> bool:
        """See `Bucket`."""
        from azure.core.exceptions import ResourceNotFoundError

        is_there = bool(self.list(prefix).objects)
        with self._account.explained(), contextlib.suppress(ResourceNotFoundError):
            self._container.delete_blob(f"{prefix}.mlflow-server-gc-{uuid.uuid4().hex}")
        return is_there

    def find(self, key: str) -> Object | None:
        """See `ContentBucket`."""
        from azure.core.exceptions import ResourceNotFoundError

        with self._account.explained():
            try:
                return _object(self._container.get_blob_client(key).get_blob_properties())
            except ResourceNotFoundError as err:
                if not is_missing(err):
                    raise
        return None

    def open(self, key: str, start: int = 0, stamp: str | None = None) -> "AzureContent":
        """See `ContentBucket`."""
        blob = self._container.get_blob_client(key)
        return open_content(
            self._account,
            self._show(key),
            lambda **options: blob.download_blob(**options),
            lambda: self.find(key),
            start,
            stamp,
        )

    def write(self, key: str, source: Source, size_bytes: int | None) -> None:
        """See `ContentBucket`; what is larger than one part goes up in several blocks.

        Blocks that come to no end are seen by nobody; Azure forgets them after a week.
        """
        part_bytes = max(PART_BYTES, -(-(size_bytes or 0) // _MOST_BLOCKS))
        parts = parts_of(chunks_of(source, size_bytes, self._show(key)), part_bytes)
        first, second = next(parts, b""), next(parts, None)
        blob = self._container.get_blob_client(key)
        if second is None:
            with self._account.explained():
                blob.upload_blob(first, overwrite=True)
            return
        blocks = []
        # Names of one length, as Azure asks for, and no other writer's.
        writer = uuid.uuid4().hex
        for number, part in enumerate(chain((first, second), parts)):
            blocks.append(f"{writer}{number:08}")
            with self._account.explained():
                blob.stage_block(blocks[-1], part)
        with self._account.explained():
            blob.commit_block_list(blocks)

    def close(self) -> None:
        """See `Bucket`."""
        self._account.close()

    def _show(self, key: str) -> str:
        return f"{self._subject}: {shown(key)}"


class AzureContent:
    """See `Content`, of a blob or of a file of Data Lake.

    Args:
        account: Where it is.
        name: How messages begin.
        download: The library's; None when there is nothing more from the start on.
        size_bytes: Of the whole.
        stamp: See `Content`.
    """

    def __init__(
        self, account: AzureAccount, name: str, download: Any, size_bytes: int, stamp: str
    ) -> None:
        self._account = account
        self._name = name
        self._download = download
        self.size_bytes = size_bytes
        self.stamp = stamp

    def read(self, size: int) -> bytes:
        """See `Content`."""
        if self._download is None:
            return b""
        with self._account.explained(), _may_break_off(self._name):
            return bytes(self._download.read(size))

    def close(self) -> None:
        """See `Content`: the library has read what it has asked for."""


def open_content(
    account: AzureAccount,
    name: str,
    download: Callable[..., Any],
    find: Callable[[], Object | None],
    start: int,
    stamp: str | None,
) -> AzureContent:
    """Begin to read, see `ContentBucket.open`.

    Args:
        account: Where it is.
        name: How messages begin.
        download: The library's way to do it.
        find: Looks for the object.
        start: See there.
        stamp: See there.
    """
    from azure.core import MatchConditions
    from azure.core.exceptions import (
        HttpResponseError,
        ResourceModifiedError,
        ResourceNotFoundError,
    )

    # Asked for a range from 0 on, Azure refuses an empty blob.
    options: dict[str, Any] = {"offset": start} if start else {}
    if stamp is not None:
        options |= {"etag": f'"{stamp}"', "match_condition": MatchConditions.IfNotModified}
    with account.explained(), _may_break_off(name):
        try:
            found = download(**options)
        except ResourceNotFoundError as err:
            if not is_missing(err):
                raise
            raise VanishedError(f"{name} is not there") from None
        except ResourceModifiedError:
            if find() is None:
                raise VanishedError(f"{name} is not there") from None
            raise ChangedError(f"{name} was changed meanwhile") from None
        except HttpResponseError as err:
            if err.status_code != _NOTHING_THERE:
                raise
            found = None
    if found is None:
        there = find()
        if there is None:
            raise VanishedError(f"{name} is not there")
        return AzureContent(account, name, None, there.size_bytes, there.stamp)
    return AzureContent(account, name, found, start + found.size, bare(found.properties.etag))


def bare(etag: str | None) -> str:
    """An ETag as it is in listings, without quotes."""
    return (etag or "").strip('"')


def is_missing(err: Any) -> bool:
    """True when the object is not there; false when the container is not there either."""
    return str(getattr(err.error_code, "value", err.error_code)) in _MISSING


@contextlib.contextmanager
def _may_break_off(name: str) -> Iterator[None]:
    """The library wraps a broken connection into a refusal without a status."""
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    try:
        yield
    except ClientAuthenticationError:
        raise
    except HttpResponseError as err:
        if err.status_code is not None:
            raise
        raise UnavailableError(f"{name}: the connection breaks off again and again") from None


def _object(blob: Any) -> Object:
    return Object(
        blob.name,
        blob.size,
        blob.last_modified.timestamp(),
        is_folder=(blob.metadata or {}).get("hdi_isfolder") == "true",
        stamp=bare(blob.etag),
    )
