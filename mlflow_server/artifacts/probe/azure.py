"""Probe a container of Azure Blob Storage (`wasbs:`) or a file system of Data Lake (`abfss:`)."""

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from mlflow_server.artifacts.azure_client import AzureAccount, is_lake
from mlflow_server.artifacts.probe.round_trip import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    SETTING,
    new_key,
    round_trip,
)
from mlflow_server.uris import ArtifactUri

_LIMITS = {
    "connection_timeout": CONNECT_TIMEOUT_S,
    "read_timeout": READ_TIMEOUT_S,
    "retry_total": 0,
}


def probe_container(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    """Write, read and delete an object by Azure's client libraries.

    In an account with a hierarchical namespace the folders of the prefix come into being, as they
    would with the first artifact.

    Args:
        uri: The destination.
        environ: Where MLflow looks for credentials. What `DefaultAzureCredential` looks for when
            there are none is in `os.environ`.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    account = AzureAccount(uri, environ, f"{SETTING}: {uri.shown}", _LIMITS)
    with contextlib.closing(account), account.explained():
        if is_lake(uri):
            file = account.container.get_file_client(new_key(unquote(uri.prefix)))
            round_trip(
                uri,
                write=lambda content: _write_file(file, content),
                read=lambda: file.download_file().readall(),
                delete=file.delete_file,
            )
        else:
            blob = account.container.get_blob_client(new_key(uri.prefix))
            round_trip(
                uri,
                write=lambda content: blob.upload_blob(content, overwrite=True),
                read=lambda: blob.download_blob().readall(),
                delete=blob.delete_blob,
            )


def _write_file(file: Any, content: bytes) -> None:
    """The three requests of the library's `upload_data`, taken back when one of them fails."""
    file.create_file()
    try:
        file.append_data(content, 0, len(content))
        file.flush_data(len(content))
    except BaseException:
        file.delete_file()
        raise
