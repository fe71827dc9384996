"""Probe a container of Azure Blob Storage (`wasbs:`) or a file system of Data Lake (`abfss:`)."""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from mlflow_server.artifacts.probe.round_trip import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    SETTING,
    new_key,
    require_module,
    round_trip,
)
from mlflow_server.errors import (
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import ArtifactUri

LOOK_AT = "the network and the AZURE_ variables"
_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
_ACCESS_KEY = "AZURE_STORAGE_ACCESS_KEY"
_SAS_TOKEN = "AZURE_STORAGE_SAS_TOKEN"  # noqa: S105
_LIMITS = {
    "connection_timeout": CONNECT_TIMEOUT_S,
    "read_timeout": READ_TIMEOUT_S,
    "retry_total": 0,
}
# MLflow 3.17.2: `parse_wasbs_uri` in azure_blob_artifact_repo.py, `_parse_abfss_uri` in
# azure_data_lake_artifact_repo.py.
_BLOB_CLOUDS = r"blob\.core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
_BLOB_AUTHORITY = re.compile(rf"(?P<container>[^@]+)@(?P<host>[^.]+\.{_BLOB_CLOUDS})")
_LAKE_AUTHORITY = re.compile(r"(?P<container>[^@]+)@(?P<host>[^.]+\..+)")


@dataclass(frozen=True)
class _Place:
    """Where the object goes.

    Args:
        host: Whom the client asks, for messages.
        write: See `round_trip`, as for the other two.
    """

    host: str
    write: Callable[[bytes], object]
    read: Callable[[], bytes]
    delete: Callable[[], object]


def require_libraries(uri: ArtifactUri) -> None:
    """Import what the scheme needs, and azure-identity if it is there: not all ways to log in do.

    Raises:
        SettingsError: It is not installed.
    """
    module = "azure.storage.filedatalake" if _is_lake(uri) else "azure.storage.blob"
    require_module(uri, module, extra="azure")
    with contextlib.suppress(SettingsError):
        require_module(uri, "azure.identity", extra="azure")


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
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    pattern = _LAKE_AUTHORITY if _is_lake(uri) else _BLOB_AUTHORITY
    authority = pattern.fullmatch(uri.bucket)
    if authority is None:
        kind = "abfss" if _is_lake(uri) else "wasbs"
        wanted = f"{kind}://CONTAINER@ACCOUNT.{'dfs' if _is_lake(uri) else 'blob'}.core.windows.net"
        raise SettingsError([f"{SETTING}: {uri.shown} is not of the form {wanted}/PREFIX"])
    container = authority["container"]
    setting = _credential_setting(uri, environ)
    with contextlib.ExitStack() as stack:
        try:
            open_place = _open_lake if _is_lake(uri) else _open_blob
            place = open_place(uri, container, authority["host"], environ, stack)
        except ValueError as err:
            raise _wrong_settings(uri, setting, err) from None
        try:
            round_trip(uri, write=place.write, read=place.read, delete=place.delete)
        except HttpResponseError as err:
            if err.status_code is not None:
                raise _explain(uri, container, err) from None
            if isinstance(err, ClientAuthenticationError) and setting is None:
                raise _no_credentials(uri, err) from None
            raise _wrong_settings(uri, setting, err) from None
        except AzureError as err:
            if isinstance(err.inner_exception, ValueError):  # an address that cannot be read
                raise _wrong_settings(uri, setting, err.inner_exception) from None
            raise UnavailableError(
                f"{SETTING}: {uri.shown}: cannot reach {place.host} ({type(err).__name__})",
                hint=f"check the network and {setting or 'the name of the account'}",
            ) from None
        except ValueError:
            raise UnavailableError(
                f"{SETTING}: {uri.shown}: {place.host} does not answer like Azure",
                hint="check the address in the AZURE_ variables",
            ) from None


def _is_lake(uri: ArtifactUri) -> bool:
    return uri.text.lower().startswith("abfss:")


def _credential_setting(uri: ArtifactUri, environ: Mapping[str, str]) -> str | None:
    """The variable that MLflow takes the credential from; None for `DefaultAzureCredential`."""
    if _is_lake(uri):
        return _SAS_TOKEN if environ.get(_SAS_TOKEN) else None
    # MLflow looks whether they are there, not whether there is something in them.
    return next((name for name in (_CONNECTION_STRING, _ACCESS_KEY) if name in environ), None)


def _open_blob(
    uri: ArtifactUri,
    container: str,
    host: str,
    environ: Mapping[str, str],
    stack: contextlib.ExitStack,
) -> _Place:
    """With a client like that of MLflow 3.17.2 `azure_blob_artifact_repo.py`, with short limits."""
    from azure.storage.blob import BlobServiceClient

    verify: bool | str = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or (
        environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    )
    options = {**_LIMITS, "connection_verify": verify}
    setting = _credential_setting(uri, environ)
    if setting == _CONNECTION_STRING:
        text = environ[_CONNECTION_STRING]
        client = BlobServiceClient.from_connection_string(text, **options)
    elif setting == _ACCESS_KEY:
        if not environ[_ACCESS_KEY]:
            raise ValueError("the client would take this for no credential at all")
        client = BlobServiceClient(f"https://{host}", environ[_ACCESS_KEY], **options)
    else:
        client = BlobServiceClient(f"https://{host}", _default_credential(uri, stack), **options)
    blob = stack.enter_context(client).get_blob_client(container, new_key(uri.prefix))
    return _Place(
        host=client.primary_hostname.rpartition("@")[2],
        write=lambda content: blob.upload_blob(content, overwrite=True),
        read=lambda: blob.download_blob().readall(),
        delete=blob.delete_blob,
    )


def _open_lake(
    uri: ArtifactUri,
    container: str,
    host: str,
    environ: Mapping[str, str],
    stack: contextlib.ExitStack,
) -> _Place:
    """With a client like that of MLflow 3.17.2 `azure_data_lake_artifact_repo.py`."""
    from azure.storage.filedatalake import DataLakeServiceClient

    if token := environ.get(_SAS_TOKEN):
        address, credential = f"https://{host}?{token}", None
    else:
        address, credential = f"https://{host}", _default_credential(uri, stack)
    client = stack.enter_context(DataLakeServiceClient(address, credential, **_LIMITS))
    file = client.get_file_client(container, new_key(unquote(uri.prefix)))
    return _Place(
        host=host,
        write=lambda content: _write_file(file, content),
        read=lambda: file.download_file().readall(),
        delete=file.delete_file,
    )


def _default_credential(uri: ArtifactUri, stack: contextlib.ExitStack) -> Any:
    require_module(uri, "azure.identity", extra="azure")
    from azure.identity import DefaultAzureCredential

    return stack.enter_context(DefaultAzureCredential())


def _write_file(file: Any, content: bytes) -> None:
    """The three requests of the library's `upload_data`, taken back when one of them fails."""
    file.create_file()
    try:
        file.append_data(content, 0, len(content))
        file.flush_data(len(content))
    except BaseException:
        file.delete_file()
        raise


def _no_credentials(uri: ArtifactUri, err: Exception) -> OpsError:
    settings = _SAS_TOKEN if _is_lake(uri) else f"{_CONNECTION_STRING}, {_ACCESS_KEY}"
    return PermissionDeniedError(
        f"{SETTING}: {uri.shown}: no Azure credentials ({type(err).__name__})",
        hint=f"set {settings} or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    )


def _wrong_settings(uri: ArtifactUri, setting: str | None, err: Exception) -> OpsError:
    if setting is None:
        problem = f"{SETTING}: {uri.shown}: Azure settings are wrong ({type(err).__name__})"
        return SettingsError([problem], hint="check the names of the container and the account")
    return SettingsError(
        [f"{setting}: cannot be used for {uri.shown} ({type(err).__name__})"],
        hint=f"copy {setting} anew from the storage account",
    )


def _explain(uri: ArtifactUri, container: str, err: Any) -> OpsError:
    status = err.status_code
    # An enumeration for codes that the library knows, a text for others.
    code = str(getattr(err.error_code, "value", err.error_code) or "")[:40]
    if status == 404:
        return UnavailableError(
            f"{SETTING}: {uri.shown}: there is no container {container!r}",
            hint="create it first",
        )
    if status in (401, 403):
        return PermissionDeniedError(
            f"{SETTING}: {uri.shown}: Azure refuses these credentials ({code or status})",
            hint="the account needs the role Storage Blob Data Contributor on the container",
        )
    return UnavailableError(
        f"{SETTING}: {uri.shown}: Azure answered {status} {code}".rstrip(),
        hint="try again later; check the address in the AZURE_ variables",
    )
