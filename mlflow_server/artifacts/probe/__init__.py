"""Write, read and delete one small object at an artifact destination: does it work?

Local folders, S3, GCS and Azure are probed without MLflow, so that a server can refuse to start in
time; every other scheme through MLflow's own artifact repository.
"""

from collections.abc import Mapping

from mlflow_server.artifacts import azure_client, gcs_client
from mlflow_server.artifacts.library import require_module
from mlflow_server.artifacts.probe import azure, gcs, local, s3, through_mlflow
from mlflow_server.artifacts.probe.round_trip import PROBE_NAME, SETTING
from mlflow_server.deadline import DeadlineExceededError, call_within
from mlflow_server.errors import UnavailableError
from mlflow_server.uris import ArtifactScheme, ArtifactUri

__all__ = ["PROBE_NAME", "PROBE_TIMEOUT_S", "needs_mlflow", "probe", "require_library"]

PROBE_TIMEOUT_S = 5.0
_LOOK_AT = {
    ArtifactScheme.GCS: gcs_client.LOOK_AT,
    ArtifactScheme.AZURE: azure_client.LOOK_AT,
}


def needs_mlflow(uri: ArtifactUri) -> bool:
    """True when only MLflow's repository can probe this destination."""
    return uri.scheme is ArtifactScheme.OTHER


def probe(uri: ArtifactUri, environ: Mapping[str, str], *, timeout_s: float) -> None:
    """Write, read back and delete a probe object; nothing else is touched or left behind.

    A local folder that does not exist yet is judged by its nearest existing parent, and not made.
    A destination behind another tracking server (`mlflow-artifacts:`) is not probed.

    Args:
        uri: The destination.
        environ: Where the object store's credentials and options are. Google's and Azure's
            libraries look for further ones in `os.environ`, of which this must be a copy.
        timeout_s: Give up after this many seconds.

    Raises:
        UnavailableError: Not reachable, not there, or no answer in time.
        PermissionDeniedError: Reachable, but credentials are missing or refused.
        SettingsError: The destination cannot be meant, or its library is not installed.
    """
    try:
        call_within(timeout_s, lambda: _probe(uri, environ))
    except DeadlineExceededError:
        look_at = _LOOK_AT.get(
            uri.scheme, "the endpoint (MLFLOW_S3_ENDPOINT_URL), the network and the mount"
        )
        raise UnavailableError(
            f"{SETTING}: {uri.shown}: no answer within {timeout_s:g} s", hint=f"check {look_at}"
        ) from None


def _probe(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    require_library(uri)
    match uri.scheme:
        case ArtifactScheme.LOCAL:
            local.probe_folder(uri)
        case ArtifactScheme.S3:
            s3.probe_bucket(uri, environ)
        case ArtifactScheme.GCS:
            gcs.probe_bucket(uri, environ)
        case ArtifactScheme.AZURE:
            azure.probe_container(uri, environ)
        case ArtifactScheme.PROXY:
            return
        case _:
            through_mlflow.probe_repository(uri)


def require_library(uri: ArtifactUri) -> None:
    """Import the client library of a destination, so that a slow disk eats no time of the probe.

    Raises:
        SettingsError: It is not installed; the hint is the command that installs it.
    """
    subject = f"{SETTING}: {uri.shown}"
    match uri.scheme:
        case ArtifactScheme.S3:
            require_module(subject, "boto3", extra="s3")
        case ArtifactScheme.GCS:
            require_module(subject, "google.cloud.storage", extra="gcs")
        case ArtifactScheme.AZURE:
            azure_client.require_libraries(uri, subject)
