"""A bucket of Google Cloud Storage."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.gcs_client import explained, make_client
from mlflow_server.errors import OpsError, UnavailableError

_TIMEOUTS_S = (5, 60)
# How long a listing is tried again.
_PATIENCE_S = 30.0
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
_GONE = 404


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
                fields="items(name,size,updated),nextPageToken",
                **_patience(),
            )
            objects = [
                Object(blob.name, blob.size or 0, blob.updated and blob.updated.timestamp())
                for blob in next(found.pages)
            ]
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

    def close(self) -> None:
        """See `Bucket`."""
        self._client.close()

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._subject, self._name, self._environ, is_anonymous=self._is_anonymous)


def _patience() -> dict[str, Any]:
    """For requests that may be repeated."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=0.2, maximum=5, multiplier=2)
    return {"timeout": _TIMEOUTS_S, "retry": retry.with_timeout(_PATIENCE_S)}
