"""Probe a bucket of S3 or of a server that speaks its language."""

import json
from collections.abc import Mapping

from mlflow_server.artifacts.probe.round_trip import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    SETTING,
    new_key,
    round_trip,
)
from mlflow_server.artifacts.s3_client import explained, make_client, name_bucket
from mlflow_server.errors import SettingsError
from mlflow_server.uris import ArtifactUri


def probe_bucket(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    """Write, read and delete an object by boto3.

    Args:
        uri: The destination.
        environ: MLflow's and boto3's variables.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    from botocore.exceptions import ClientError

    try:
        extra = json.loads(environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
    except json.JSONDecodeError:
        raise SettingsError(["MLFLOW_S3_UPLOAD_EXTRA_ARGS: is not JSON"]) from None
    with explained(f"{SETTING}: {uri.shown}", uri.bucket, environ):
        client = make_client(
            environ, connect_timeout_s=CONNECT_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S
        )
        bucket = name_bucket(uri.bucket, environ)
        place = {**bucket, "Key": new_key(uri.prefix)}
        try:
            # Some servers make a missing bucket when something is written into it.
            client.head_bucket(**bucket)
        except ClientError as err:
            if err.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise
        round_trip(
            uri,
            write=lambda content: client.put_object(**place, Body=content, **extra),
            read=lambda: client.get_object(**place)["Body"].read(),
            delete=lambda: client.delete_object(**place),
        )
