"""Probe a bucket of Google Cloud Storage."""

import contextlib
from collections.abc import Mapping

from mlflow_server.artifacts.gcs_client import explained, make_client
from mlflow_server.artifacts.probe.round_trip import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    SETTING,
    new_key,
    round_trip,
)
from mlflow_server.uris import ArtifactUri


def probe_bucket(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    """Write, read and delete an object by google-cloud-storage.

    Args:
        uri: The destination.
        environ: For messages only; the library reads `os.environ`.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    subject = f"{SETTING}: {uri.shown}"
    client, is_anonymous = make_client(subject)
    limits = {"timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), "retry": None}
    with (
        explained(subject, uri.bucket, environ, is_anonymous=is_anonymous),
        contextlib.closing(client),
    ):
        bucket, key = client.bucket(uri.bucket), new_key(uri.prefix)
        # Like MLflow's, each begins anew: one that has written reads where its answer says.
        round_trip(
            uri,
            write=lambda content: bucket.blob(key).upload_from_string(content, **limits),
            read=lambda: bucket.blob(key).download_as_bytes(**limits),
            delete=lambda: bucket.blob(key).delete(**limits),
        )
