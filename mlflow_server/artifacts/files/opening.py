"""The files that a URI leads to."""

from collections.abc import Mapping
from pathlib import Path

from mlflow_server.artifacts.azure_client import is_lake, require_libraries
from mlflow_server.artifacts.buckets.lake import LakeBucket
from mlflow_server.artifacts.buckets.opening import open_bucket
from mlflow_server.artifacts.files.files import Files
from mlflow_server.artifacts.files.local import LocalFiles
from mlflow_server.artifacts.files.objects import ObjectFiles
from mlflow_server.artifacts.library import require_module
from mlflow_server.artifacts.removal.lake import LakeRemover
from mlflow_server.errors import SettingsError
from mlflow_server.uris import ArtifactScheme, ArtifactUri


def open_files(uri: ArtifactUri, environ: Mapping[str, str], *, subject: str) -> Files:
    """Open a folder of this machine, or a prefix of a bucket; nothing need be there yet.

    Args:
        uri: Which: a path, `s3:`, `gs:`, `wasbs:` or `abfss:`.
        environ: Where credentials and options are. Google's and Azure's libraries look for further
            ones in `os.environ`, of which this must be a copy.
        subject: How messages begin.

    Raises:
        SettingsError: It is something else, its library is not installed, or the settings cannot
            be used.
    """
    match uri.scheme:
        case ArtifactScheme.LOCAL:
            return LocalFiles((uri.path or Path()).expanduser().absolute(), subject)
        case ArtifactScheme.S3:
            require_module(subject, "boto3", extra="s3")
        case ArtifactScheme.GCS:
            require_module(subject, "google.cloud.storage", extra="gcs")
        case ArtifactScheme.AZURE if is_lake(uri):
            require_libraries(uri, subject)
            remover = LakeRemover(uri, environ, subject)
            return ObjectFiles(LakeBucket(uri, environ, subject), uri, subject, remover)
        case ArtifactScheme.AZURE:
            require_libraries(uri, subject)
        case _:
            scheme = uri.text.partition(":")[0]
            raise SettingsError(
                [f"{subject}: files cannot be listed, read and written at {scheme}:"],
                hint="name a folder, s3://, gs://, wasbs:// or abfss://",
            )
    return ObjectFiles(open_bucket(uri, environ, subject), uri, subject)
