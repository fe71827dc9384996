"""The bucket that a URI leads to."""

from collections.abc import Mapping

from mlflow_server.artifacts.buckets.azure import AzureBucket
from mlflow_server.artifacts.buckets.bucket import ContentBucket
from mlflow_server.artifacts.buckets.gcs import GcsBucket
from mlflow_server.artifacts.buckets.s3 import S3Bucket
from mlflow_server.uris import ArtifactScheme, ArtifactUri


def open_bucket(store: ArtifactUri, environ: Mapping[str, str], subject: str) -> ContentBucket:
    """Open a bucket of S3 or Google Cloud Storage, or a container of Azure Blob Storage.

    Args:
        store: A place in it.
        environ: Where its credentials and options are. Google's and Azure's libraries look for
            further ones in `os.environ`, of which this must be a copy.
        subject: How messages begin.

    Raises:
        OpsError: The settings cannot be used.
    """
    match store.scheme:
        case ArtifactScheme.S3:
            return S3Bucket(store.bucket, environ, subject)
        case ArtifactScheme.GCS:
            return GcsBucket(store.bucket, environ, subject)
        case ArtifactScheme.AZURE:
            return AzureBucket(store, environ, subject)
        case _:
            raise AssertionError(f"{store.scheme} has no buckets")
