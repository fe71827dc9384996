"""A client for S3 with MLflow's own variables."""

from collections.abc import Mapping
from typing import Any


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
