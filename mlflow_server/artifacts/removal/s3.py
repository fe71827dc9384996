"""Remove prefixes of an S3 bucket: list each, delete 1,000 keys a request."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.place import Place
from mlflow_server.artifacts.s3_client import make_client

_THREADS = 16
# The most that S3 takes in one DeleteObjects request.
_KEYS_PER_REQUEST = 1_000


class S3Remover:
    """Removes places of one bucket.

    Args:
        bucket: Its name.
        environ: Where MLflow's S3 variables and the credentials are.
    """

    def __init__(self, bucket: str, environ: Mapping[str, str]) -> None:
        self._bucket = bucket
        self._client = make_client(
            environ, connect_timeout_s=5, read_timeout_s=60, attempts=5, connections=_THREADS
        )
        self._pool = ThreadPoolExecutor(_THREADS)

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """See `Remover`."""
        listed = list(self._pool.map(self._list, places))
        keys = [key for found in listed if isinstance(found, dict) for key in found]
        failed: dict[str, str] = {}
        for part in self._pool.map(self._delete, _chunks(keys)):
            failed.update(part)
        return [found if isinstance(found, str) else _result(found, failed) for found in listed]

    def close(self) -> None:
        """See `Remover`."""
        self._pool.shutdown()
        self._client.close()

    def _list(self, place: Place) -> dict[str, int] | str:
        """Sizes by key, or why they cannot be listed."""
        from botocore.exceptions import BotoCoreError, ClientError

        found: dict[str, int] = {}
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix="/".join(place.parts) + "/"
            )
            for page in pages:
                found.update((entry["Key"], entry["Size"]) for entry in page.get("Contents", ()))
        except ClientError as err:
            return f"S3 refuses to list: {_code(err.response)}"
        except BotoCoreError as err:
            return f"S3 cannot be reached ({type(err).__name__})"
        return found

    def _delete(self, keys: Sequence[str]) -> dict[str, str]:
        """Why keys could not be deleted, of those that could not."""
        from botocore.exceptions import BotoCoreError, ClientError

        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            answer = self._client.delete_objects(Bucket=self._bucket, Delete=objects)
        except ClientError as err:
            return dict.fromkeys(keys, f"S3 refuses to delete: {_code(err.response)}")
        except BotoCoreError as err:
            return dict.fromkeys(keys, f"S3 cannot be reached ({type(err).__name__})")
        return {
            error["Key"]: f"S3 refuses to delete: {str(error.get('Code'))[:40]}"
            for error in answer.get("Errors", ())
        }


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_PER_REQUEST):
        yield keys[start : start + _KEYS_PER_REQUEST]


def _result(found: Mapping[str, int], failed: Mapping[str, str]) -> Freed | str:
    for key in found:
        if key in failed:
            return failed[key]
    return Freed(len(found), sum(found.values()))


def _code(response: Mapping[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", "?"))[:40]
