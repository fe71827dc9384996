"""Probe a bucket of S3 or of a server that speaks its language."""

import json
from collections.abc import Mapping
from typing import Any

from mlflow_server.artifacts.probe.round_trip import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    SETTING,
    new_key,
    round_trip,
)
from mlflow_server.artifacts.s3_client import make_client
from mlflow_server.errors import (
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import ArtifactUri, mask_uri


def probe_bucket(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    """Write, read and delete an object by boto3.

    Args:
        uri: The destination.
        environ: MLflow's and boto3's variables.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    import botocore.exceptions as failures

    try:
        client = make_client(
            environ, connect_timeout_s=CONNECT_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S
        )
        place = {"Bucket": uri.bucket, "Key": new_key(uri.prefix)}
        if owner := environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER"):
            place["ExpectedBucketOwner"] = owner
        extra = json.loads(environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
        bucket = {name: value for name, value in place.items() if name != "Key"}
        try:
            # Some servers make a missing bucket when something is written into it.
            client.head_bucket(**bucket)
        except failures.ClientError as err:
            if err.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise
        round_trip(
            uri,
            write=lambda content: client.put_object(**place, Body=content, **extra),
            read=lambda: client.get_object(**place)["Body"].read(),
            delete=lambda: client.delete_object(**place),
        )
    except json.JSONDecodeError:
        raise SettingsError(["MLFLOW_S3_UPLOAD_EXTRA_ARGS: is not JSON"]) from None
    except failures.ClientError as err:
        raise _explain(uri, err.response) from None
    except (
        failures.NoCredentialsError,
        failures.PartialCredentialsError,
        failures.CredentialRetrievalError,
    ):
        raise PermissionDeniedError(
            f"{SETTING}: {uri.shown}: no S3 credentials",
            hint="set the secrets AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from None
    except (failures.ProfileNotFound, failures.ParamValidationError, ValueError) as err:
        kind = type(err).__name__
        raise SettingsError(
            [f"{SETTING}: {uri.shown}: S3 settings are wrong ({kind})"],
            hint="check MLFLOW_S3_ENDPOINT_URL, AWS_PROFILE and the bucket's name",
        ) from None
    except failures.BotoCoreError as err:
        endpoint = mask_uri(environ.get("MLFLOW_S3_ENDPOINT_URL") or "the S3 endpoint of AWS")
        raise UnavailableError(
            f"{SETTING}: {uri.shown}: cannot reach {endpoint} ({type(err).__name__})",
            hint="check MLFLOW_S3_ENDPOINT_URL",
        ) from None


def _explain(uri: ArtifactUri, response: Mapping[str, Any]) -> OpsError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in ("NoSuchBucket", "404") or status == 404:
        return UnavailableError(
            f"{SETTING}: {uri.shown}: there is no bucket {uri.bucket!r}", hint="create it first"
        )
    if status in (401, 403) or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return PermissionDeniedError(
            f"{SETTING}: {uri.shown}: S3 refuses these credentials ({code[:40]})",
            hint="the key needs s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket",
        )
    return UnavailableError(f"{SETTING}: {uri.shown}: S3 answered {code[:40]} ({status})")
