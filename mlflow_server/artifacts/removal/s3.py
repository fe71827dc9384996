"""Remove prefixes of an S3 bucket, 1,000 keys a request."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow_server.artifacts.removal.objects import THREADS, Refusal
from mlflow_server.artifacts.removal.scan import Object, Page
from mlflow_server.artifacts.s3_client import explained, make_client, name_bucket
from mlflow_server.errors import OpsError

# XML cannot carry these, so DeleteObjects would refuse all keys of the request for one of them.
_NOT_IN_XML = re.compile("[\x00-\x1f\ufffe\uffff]")
# Of a single key in the answer to DeleteObjects.
_TEMPORARY = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable"}
)
_TEMPORARY |= {"SlowDown"}
_GONE = "NoSuchKey"


class S3Bucket:
    """A bucket of S3 or of a server that speaks its language.

    Of a versioned bucket only the current versions go, as with MLflow: S3 keeps them behind a
    delete marker, until a lifecycle rule of the bucket removes them.

    Args:
        name: Its name.
        environ: Where MLflow's S3 variables and the credentials are.
        subject: How messages begin.

    Raises:
        OpsError: The settings cannot be used.
    """

    # The most that S3 takes in one DeleteObjects request.
    keys_per_request = 1_000
    has_folders = False

    def __init__(self, name: str, environ: Mapping[str, str], subject: str) -> None:
        self._name = name
        self._environ = environ
        self._subject = subject
        self._bucket = name_bucket(name, environ)
        # Buckets of S3 Express list in no order and know no `after`.
        self.can_skip = not name.endswith("--x-s3")
        with self._explained():
            self._client = make_client(
                environ, connect_timeout_s=5, read_timeout_s=60, attempts=5, connections=THREADS
            )

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        """See `Bucket`."""
        options = {"ContinuationToken": more} if more else {"StartAfter": after} if after else {}
        with self._explained():
            answer = self._client.list_objects_v2(**self._bucket, Prefix=prefix, **options)
        return Page(
            [
                Object(entry["Key"], entry["Size"], entry["LastModified"].timestamp())
                for entry in answer.get("Contents", ())
            ],
            answer.get("NextContinuationToken") if answer.get("IsTruncated") else None,
        )

    def list_folders(self, prefix: str) -> Iterator[str]:
        """See `Bucket`."""
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                **self._bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for entry in page.get("CommonPrefixes", ()):
                    yield entry["Prefix"][len(prefix) : -1]

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        """See `Bucket`."""
        alone = [key for key in keys if _NOT_IN_XML.search(key)]
        together = [{"Key": key} for key in keys if key not in alone]
        refused: dict[str, Refusal] = {}
        try:
            with self._explained():
                if together:
                    answer = self._client.delete_objects(
                        **self._bucket, Delete={"Objects": together, "Quiet": True}
                    )
                    refused.update(_refusals(self._subject, answer.get("Errors", ())))
                for key in alone:
                    self._client.delete_object(**self._bucket, Key=key)
        except OpsError as err:
            return dict.fromkeys(keys, Refusal(err.message))
        return refused

    def check(self, prefix: str) -> bool:
        """See `Bucket`. In a versioned bucket it leaves a delete marker, as S3 always does."""
        with self._explained():
            answer = self._client.list_objects_v2(**self._bucket, Prefix=prefix, MaxKeys=1)
            key = f"{prefix}.mlflow-server-gc-{uuid.uuid4().hex}"
            self._client.delete_object(**self._bucket, Key=key)
        return bool(answer.get("Contents"))

    def close(self) -> None:
        """See `Bucket`."""
        self._client.close()

    def _explained(self) -> Any:
        return explained(self._subject, self._name, self._environ)


def _refusals(subject: str, errors: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Refusal]]:
    for error in errors:
        code = str(error.get("Code"))[:40]
        if code != _GONE:
            reason = f"{subject}: S3 refuses to delete ({code})"
            yield error["Key"], Refusal(reason, code in _TEMPORARY or code.startswith("5"))
