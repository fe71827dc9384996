"""A container of Azure Blob Storage."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from mlflow_server.artifacts.azure_client import AzureAccount
from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.errors import OpsError
from mlflow_server.uris import ArtifactUri

# Of one request, in seconds; further attempts come about 2, 6 and 15 s after the first.
LIMITS = {
    "connection_timeout": 5,
    "read_timeout": 60,
    "retry_total": 3,
    "initial_backoff": 0.2,
    "increment_base": 2,
    "random_jitter_range": 0.2,
}
_PAGE_SIZE = 1_000
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
            objects = [
                Object(
                    blob.name,
                    blob.size,
                    blob.last_modified.timestamp(),
                    is_folder=(blob.metadata or {}).get("hdi_isfolder") == "true",
                )
                for blob in next(pages)
            ]
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

    def close(self) -> None:
        """See `Bucket`."""
        self._account.close()
