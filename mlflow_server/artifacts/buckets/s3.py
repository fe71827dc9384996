"""A bucket of S3."""

import contextlib
import json
import mimetypes
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.content import (
    Source,
    chunks_of,
    parts_of,
)
from mlflow_server.artifacts.s3_client import explained, make_client, name_bucket
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import (
    BadInputError,
    ChangedError,
    OpsError,
    SettingsError,
    UnavailableError,
    VanishedError,
)

# XML cannot carry these, so DeleteObjects would refuse all keys of the request for one of them.
_NOT_IN_XML = re.compile("[\x00-\x1f\ufffe\uffff]")
# Of a single key in the answer to DeleteObjects.
_TEMPORARY = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable"}
)
_TEMPORARY |= {"SlowDown"}
_GONE = "NoSuchKey"
# As many requests as callers have threads; more are served, but not kept open.
_CONNECTIONS = 16
PART_BYTES = 8 * 1024 * 1024
_MOST_PARTS = 10_000


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
                environ,
                connect_timeout_s=5,
                read_timeout_s=60,
                attempts=5,
                connections=_CONNECTIONS,
            )

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        """See `Bucket`."""
        options = {"ContinuationToken": more} if more else {"StartAfter": after} if after else {}
        with self._explained():
            answer = self._client.list_objects_v2(**self._bucket, Prefix=prefix, **options)
        return Page(
            [
                Object(
                    entry["Key"],
                    entry["Size"],
                    entry["LastModified"].timestamp(),
                    stamp=_bare(entry.get("ETag")),
                )
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

    def find(self, key: str) -> Object | None:
        """See `ContentBucket`."""
        from botocore.exceptions import ClientError

        with self._explained():
            try:
                answer = self._client.head_object(**self._bucket, Key=key)
            except ClientError as err:
                if _status(err) != 404:
                    raise
                # The answer has no body, and so does not tell which of the two is missing.
                self._client.head_bucket(**self._bucket)
                return None
        written_s = answer["LastModified"].timestamp()
        return Object(key, answer["ContentLength"], written_s, stamp=_bare(answer.get("ETag")))

    def open(self, key: str, start: int = 0, stamp: str | None = None) -> "_S3Content":
        """See `ContentBucket`."""
        from botocore.exceptions import ClientError

        options = {"Range": f"bytes={start}-"} if start else {}
        if stamp is not None:
            options["IfMatch"] = f'"{stamp}"'
        with self._explained():
            try:
                answer = self._client.get_object(**self._bucket, Key=key, **options)
            except ClientError as err:
                self._explain_key(key, err)
                if _status(err) != 416:
                    raise
                answer = None
        if answer is None:  # there is nothing from `start` on
            found = self.find(key)
            if found is None:
                raise VanishedError(f"{self._show(key)} is not there")
            return _S3Content(self, key, None, found.size_bytes, found.stamp)
        total = answer.get("ContentRange", "").rpartition("/")[2]
        size_bytes = int(total) if total.isdigit() else answer["ContentLength"]
        return _S3Content(self, key, answer["Body"], size_bytes, _bare(answer.get("ETag")))

    def write(self, key: str, source: Source, size_bytes: int | None) -> None:
        """See `ContentBucket`; what is larger than one part goes up in several.

        Source: MLflow 3.17.2 `s3_artifact_repo._upload_file`, for the kind of the content.
        """
        part_bytes = max(PART_BYTES, -(-(size_bytes or 0) // _MOST_PARTS))
        parts = parts_of(chunks_of(source, size_bytes, self._show(key)), part_bytes)
        first, second = next(parts, b""), next(parts, None)
        place = {**self._bucket, "Key": key}
        if second is None:
            with self._explained_for(key):
                self._client.put_object(**place, Body=first, **self._extra(key))
            return
        with self._explained_for(key):
            answer = self._client.create_multipart_upload(**place, **self._extra(key))
        place["UploadId"] = answer["UploadId"]
        try:
            done = [self._upload(place, 1, first), self._upload(place, 2, second)]
            del first, second
            done += (self._upload(place, number, part) for number, part in enumerate(parts, 3))
            with self._explained_for(key):
                self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": done})
        except BaseException:
            with contextlib.suppress(OpsError), self._explained():
                self._client.abort_multipart_upload(**place)
            raise

    def close(self) -> None:
        """See `Bucket`."""
        self._client.close()

    def _upload(self, place: Mapping[str, str], number: int, part: bytes) -> dict[str, Any]:
        with self._explained_for(place["Key"]):
            answer = self._client.upload_part(**place, PartNumber=number, Body=part)
        # With whatever checksum the client has sent, S3 wants to see it again.
        checksums = {name: value for name, value in answer.items() if name in _CHECKSUMS}
        return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    def _extra(self, key: str) -> dict[str, Any]:
        kind, _ = mimetypes.guess_type(key)
        try:
            extra = json.loads(self._environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
        except json.JSONDecodeError:
            raise SettingsError(["MLFLOW_S3_UPLOAD_EXTRA_ARGS: is not JSON"]) from None
        return {**({"ContentType": kind} if kind else {}), **extra}

    @contextlib.contextmanager
    def _explained_for(self, key: str) -> Iterator[None]:
        """The same for what may be wrong with one key."""
        from botocore.exceptions import ClientError

        with self._explained():
            try:
                yield
            except ClientError as err:
                self._explain_key(key, err)
                raise

    def _explain_key(self, key: str, err: Any) -> None:
        """Raise what an answer says of one object and not of the bucket."""
        match err.response.get("Error", {}).get("Code"):
            case "NoSuchKey":
                raise VanishedError(f"{self._show(key)} is not there") from None
            case "PreconditionFailed" | "412":
                raise ChangedError(f"{self._show(key)} was changed meanwhile") from None
            case "KeyTooLongError":
                raise BadInputError(f"{self._show(key)}: the name is too long for S3") from None
            case "InvalidObjectState":
                raise UnavailableError(
                    f"{self._show(key)} is archived and cannot be read",
                    hint="restore it in S3 first",
                ) from None

    def _show(self, key: str) -> str:
        return f"{self._subject}: {shown(key)}"

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(self._subject, self._name, self._environ)


class _S3Content:
    """See `Content`."""

    def __init__(self, bucket: S3Bucket, key: str, body: Any, size_bytes: int, stamp: str) -> None:
        self._bucket = bucket
        self._key = key
        self._body = body
        self.size_bytes = size_bytes
        self.stamp = stamp

    def read(self, size: int) -> bytes:
        """See `Content`."""
        from botocore.exceptions import FlexibleChecksumError

        if self._body is None:
            return b""
        with self._bucket._explained():
            try:
                return bytes(self._body.read(size))
            except FlexibleChecksumError:
                raise BadInputError(
                    f"{self._bucket._show(self._key)}: its checksum does not fit its content"
                ) from None

    def close(self) -> None:
        """See `Content`."""
        if self._body is not None:
            self._body.close()


_CHECKSUMS = frozenset(
    f"Checksum{kind}" for kind in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
)


def _status(err: Any) -> int | None:
    status = err.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _refusals(subject: str, errors: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Refusal]]:
    for error in errors:
        code = str(error.get("Code"))[:40]
        if code != _GONE:
            reason = f"{subject}: S3 refuses to delete ({code})"
            yield error["Key"], Refusal(reason, code in _TEMPORARY or code.startswith("5"))
