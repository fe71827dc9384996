"""A bucket of Google Cloud Storage."""

import contextlib
import mimetypes
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from http import HTTPStatus
from itertools import chain
from typing import Any

from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.content import (
    Source,
    chunks_of,
    parts_of,
)
from mlflow_server.artifacts.gcs_client import explained, make_client
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import ChangedError, OpsError, UnavailableError, VanishedError

_TIMEOUTS_S = (5, 60)
# How long a listing is tried again.
_PATIENCE_S = 30.0
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
_GONE = 404
PART_BYTES = 8 * 1024 * 1024
_KIND = "application/octet-stream"


class GcsBucket:
    """A bucket of Google Cloud Storage.

    Of a bucket with versions or soft deletion the objects stay recoverable as it is set up.

    Args:
        name: Its name.
        environ: For messages only; the library reads `os.environ`.
        subject: How messages begin.

    Raises:
        OpsError: The settings cannot be used.
    """

    # The most that Google advises for one batch.
    keys_per_request = 100
    can_skip = True
    has_folders = False

    def __init__(self, name: str, environ: Mapping[str, str], subject: str) -> None:
        self._name = name
        self._environ = environ
        self._subject = subject
        self._client, self._is_anonymous = make_client(subject)
        self._client._http.hooks["response"].append(_finish_refusal)
        self._bucket = self._client.bucket(name)

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        """See `Bucket`; the key `after` itself may be among them."""
        with self._explained():
            found = self._client.list_blobs(
                self._bucket,
                prefix=prefix,
                start_offset=after or None,
                page_token=more,
                page_size=1_000,
                fields="items(name,size,updated,generation),nextPageToken",
                **_patience(),
            )
            objects = [_object(blob) for blob in next(found.pages, ())]
        return Page(objects, found.next_page_token)

    def list_folders(self, prefix: str) -> Iterator[str]:
        """See `Bucket`."""
        with self._explained():
            found = self._client.list_blobs(
                self._bucket,
                prefix=prefix,
                delimiter="/",
                fields="prefixes,nextPageToken",
                **_patience(),
            )
            for page in found.pages:
                for folder in page.prefixes:
                    yield folder[len(prefix) : -1]

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        """See `Bucket`."""
        try:
            with self._explained():
                with self._client.batch(raise_exception=False) as batch:
                    for key in keys:
                        self._bucket.blob(key).delete(timeout=_TIMEOUTS_S)
                statuses = [answer.status_code for answer in batch._responses]
        except UnavailableError as err:
            return dict.fromkeys(keys, Refusal(err.message, is_temporary=True))
        except OpsError as err:
            return dict.fromkeys(keys, Refusal(err.message))
        return {
            key: Refusal(f"{self._subject}: GCS refuses to delete ({status})", status in _TEMPORARY)
            for key, status in zip(keys, statuses, strict=True)
            if status >= 300 and status != _GONE
        }

    def check(self, prefix: str) -> bool:
        """See `Bucket`."""
        from google.api_core.exceptions import NotFound

        is_there = bool(self.list(prefix).objects)
        with self._explained(), contextlib.suppress(NotFound):
            key = f"{prefix}.mlflow-server-gc-{uuid.uuid4().hex}"
            self._bucket.blob(key).delete(**_patience())
        return is_there

    def find(self, key: str) -> Object | None:
        """See `ContentBucket`."""
        with self._explained():
            blob = self._bucket.get_blob(key, **_patience())
        if blob is not None:
            return _object(blob)
        self._insist_on_bucket(key)
        return None

    def open(self, key: str, start: int = 0, stamp: str | None = None) -> "_GcsContent":
        """See `ContentBucket`; one request for a small object, one for each part of a large one."""
        first, stamp = self.read_part(key, start, stamp)
        if first and len(first) < PART_BYTES and stamp is not None:
            return _GcsContent(self, key, start, first, start + len(first), stamp)
        found = self.find(key)
        if found is None:
            raise VanishedError(f"{self._show(key)} is not there")
        if stamp is not None and found.stamp != stamp:
            raise ChangedError(f"{self._show(key)} was changed meanwhile")
        return _GcsContent(self, key, start, first, found.size_bytes, found.stamp)

    def read_part(self, key: str, start: int, stamp: str | None) -> tuple[bytes, str | None]:
        """Some bytes of an object as it is stored, compressed or not; and its stamp, if told."""
        from google.api_core import exceptions as failures

        blob = self._bucket.blob(key)
        with self._explained():
            try:
                content = blob.download_as_bytes(
                    start=start,
                    end=start + PART_BYTES - 1,
                    raw_download=True,
                    checksum=None,
                    if_generation_match=None if stamp is None else int(stamp),
                    **_patience(),
                )
            except failures.RequestRangeNotSatisfiable:
                return b"", stamp
            except failures.PreconditionFailed:
                raise ChangedError(f"{self._show(key)} was changed meanwhile") from None
            except failures.NotFound:
                self._insist_on_bucket(key)
                raise VanishedError(f"{self._show(key)} is not there") from None
        return content, stamp if blob.generation is None else str(blob.generation)

    def write(self, key: str, source: Source, size_bytes: int | None) -> None:
        """See `ContentBucket`; what is larger than one part goes up in several.

        A session that comes to no end leaves nothing that anybody sees; Google forgets it after a
        week.
        """
        parts = parts_of(chunks_of(source, size_bytes, self._show(key)), PART_BYTES)
        first, second = next(parts, b""), next(parts, None)
        options = {"content_type": mimetypes.guess_type(key)[0], **_patience()}
        if second is None:
            with self._explained():
                self._bucket.blob(key).upload_from_string(
                    first, **{**options, "content_type": options["content_type"] or _KIND}
                )
            return
        stream = _Parts(chain((first, second), parts))
        del first, second
        try:
            with self._explained():
                blob = self._bucket.blob(key, chunk_size=PART_BYTES)
                blob.upload_from_file(stream, **options)
        except _SourceFailedError as err:
            raise err.reason from None

    def close(self) -> None:
        """See `Bucket`."""
        self._client.close()

    def _insist_on_bucket(self, key: str) -> None:
        """Raise when it is the bucket that is missing; the answers do not tell."""
        self.list(key)

    def _show(self, key: str) -> str:
        return f"{self._subject}: {shown(key)}"

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._subject, self._name, self._environ, is_anonymous=self._is_anonymous)


class _GcsContent:
    """See `Content`; the library reads a part again by itself when it breaks off."""

    def __init__(
        self, bucket: GcsBucket, key: str, start: int, first: bytes, size_bytes: int, stamp: str
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._next = start + len(first)
        self._part = memoryview(first)
        self.size_bytes = size_bytes
        self.stamp = stamp

    def read(self, size: int) -> bytes:
        """See `Content`."""
        if not self._part and self._next < self.size_bytes:
            part, _ = self._bucket.read_part(self._key, self._next, self.stamp)
            self._part, self._next = memoryview(part), self._next + len(part)
        some, self._part = self._part[:size], self._part[size:]
        return bytes(some)

    def close(self) -> None:
        """See `Content`: nothing is open."""


class _SourceFailedError(Exception):
    """What a content comes from has failed, and not the bucket that it goes to."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class _Parts:
    """As much of a file as the library asks for when it uploads one."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._at = 0

    def tell(self) -> int:
        """How much was read."""
        return self._at

    def read(self, size: int) -> bytes:
        """The next part, as long as parts are as large as what is asked for."""
        try:
            part = next(self._parts, b"")
        except BaseException as err:
            raise _SourceFailedError(err) from err
        if len(part) > size:
            raise AssertionError("the library asks for less than a part")
        self._at += len(part)
        return part


def _finish_refusal(response: Any, **_: Any) -> None:
    """Read the text of a refusal, so that its connection can be used again.

    google-cloud-storage 3.17 leaves it open when it tries again to read a content.
    """
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        _ = response.content


def _object(blob: Any) -> Object:
    written_s = blob.updated and blob.updated.timestamp()
    return Object(blob.name, blob.size or 0, written_s, stamp=str(blob.generation or ""))


def _patience() -> dict[str, Any]:
    """For requests that may be repeated."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=0.2, maximum=5, multiplier=2)
    return {"timeout": _TIMEOUTS_S, "retry": retry.with_timeout(_PATIENCE_S)}
