"""A client for S3 with MLflow's own variables, and its failures in our words."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_server.errors import (
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import mask_uri


def make_client(
    environ: Mapping[str, str],
    *,
    connect_timeout_s: float,
    read_timeout_s: float,
    attempts: int = 1,
    connections: int = 10,
) -> Any:
    """A client like that of MLflow 3.17.2 `s3_artifact_repo._get_s3_client`, with limits.

    Args:
        environ: Where endpoint, credentials and options are.
        connect_timeout_s: Of one request, seconds.
        read_timeout_s: Of one request, seconds without a byte.
        attempts: How often a request is tried in all.
        connections: How many may be open, for as many threads.
    """
    import boto3
    from botocore.client import Config

    ignore_tls = environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
    return boto3.client(
        "s3",
        endpoint_url=environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
        verify=False if ignore_tls else None,
        config=Config(
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=connections,
            signature_version=environ.get("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION") or "s3v4",
            s3={"addressing_style": environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"},
        ),
    )


def name_bucket(bucket: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The arguments of a request that say which bucket is meant, and whose it has to be."""
    owner = environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER")
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}


@contextlib.contextmanager
def explained(subject: str, bucket: str, environ: Mapping[str, str]) -> Iterator[None]:
    """Say in our words what fails inside.

    Args:
        subject: How the message begins.
        bucket: The bucket that is worked with.
        environ: Where the endpoint is.

    Raises:
        OpsError: Something did.
    """
    import botocore.exceptions as failures

    try:
        yield
    except failures.ClientError as err:
        raise _explain(subject, bucket, err.response) from None
    except (
        failures.NoCredentialsError,
        failures.PartialCredentialsError,
        failures.CredentialRetrievalError,
    ):
        raise PermissionDeniedError(
            f"{subject}: no S3 credentials",
            hint="set the secrets AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from None
    except (failures.ProfileNotFound, failures.ParamValidationError, ValueError) as err:
        raise SettingsError(
            [f"{subject}: S3 settings are wrong ({type(err).__name__})"],
            hint="check MLFLOW_S3_ENDPOINT_URL, AWS_PROFILE and the bucket's name",
        ) from None
    except failures.BotoCoreError as err:
        endpoint = mask_uri(environ.get("MLFLOW_S3_ENDPOINT_URL") or "the S3 endpoint of AWS")
        raise UnavailableError(
            f"{subject}: cannot reach {endpoint} ({type(err).__name__})",
            hint="check MLFLOW_S3_ENDPOINT_URL",
        ) from None


def _explain(subject: str, bucket: str, response: Mapping[str, Any]) -> OpsError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in ("NoSuchBucket", "404") or status == 404:
        return UnavailableError(f"{subject}: there is no bucket {bucket!r}", hint="create it first")
    if status in (401, 403) or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return PermissionDeniedError(
            f"{subject}: S3 refuses these credentials ({code[:40]})",
            hint="the key needs s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket",
        )
    return UnavailableError(f"{subject}: S3 answered {code[:40]} ({status})")
