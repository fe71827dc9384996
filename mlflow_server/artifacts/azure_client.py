"""Clients for Azure as MLflow makes them, and their failures in our words."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_server.artifacts.library import require_module
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
# MLflow 3.17.2: `parse_wasbs_uri` in azure_blob_artifact_repo.py, `_parse_abfss_uri` in
# azure_data_lake_artifact_repo.py.
_BLOB_CLOUDS = r"blob\.core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
_BLOB_AUTHORITY = re.compile(rf"(?P<container>[^@]+)@(?P<host>[^.]+\.{_BLOB_CLOUDS})")
_LAKE_AUTHORITY = re.compile(r"(?P<container>[^@]+)@(?P<host>[^.]+\..+)")


def is_lake(uri: ArtifactUri) -> bool:
    """True for a file system of Data Lake, false for a container of blobs."""
    return uri.text.lower().startswith("abfss:")


def require_libraries(uri: ArtifactUri, subject: str) -> None:
    """Import what the scheme needs, and azure-identity if it is there: not all ways to log in do.

    Raises:
        SettingsError: It is not installed.
    """
    module = "azure.storage.filedatalake" if is_lake(uri) else "azure.storage.blob"
    require_module(subject, module, extra="azure")
    with contextlib.suppress(SettingsError):
        require_module(subject, "azure.identity", extra="azure")


class AzureAccount:
    """A container of blobs or a file system of Data Lake, opened.

    Args:
        uri: Which.
        environ: Where MLflow looks for credentials. What `DefaultAzureCredential` looks for when
            there are none is in `os.environ`.
        subject: How messages begin.
        limits: Timeouts and retries, as the libraries call them.

    Raises:
        SettingsError: It cannot be meant, or credentials that cannot be used.
    """

    def __init__(
        self, uri: ArtifactUri, environ: Mapping[str, str], subject: str, limits: Mapping[str, Any]
    ) -> None:
        self._is_lake = is_lake(uri)
        self._shown = uri.shown
        self._subject = subject
        authority = (_LAKE_AUTHORITY if self._is_lake else _BLOB_AUTHORITY).fullmatch(uri.bucket)
        if authority is None:
            kind, endpoint = ("abfss", "dfs") if self._is_lake else ("wasbs", "blob")
            wanted = f"{kind}://CONTAINER@ACCOUNT.{endpoint}.core.windows.net"
            raise SettingsError([f"{subject} is not of the form {wanted}/PREFIX"])
        self._name = authority["container"]
        self._setting = self._credential_setting(environ)
        self._stack = contextlib.ExitStack()
        try:
            if self._is_lake:
                client = self._open_lake(authority["host"], environ, limits)
                self.container = client.get_file_system_client(self._name)
                self._host = authority["host"]
            else:
                client = self._open_blobs(authority["host"], environ, limits)
                self.container = client.get_container_client(self._name)
                self._host = client.primary_hostname.rpartition("@")[2]
        except ValueError as err:
            self.close()
            raise self._wrong_settings(err) from None

    def close(self) -> None:
        """Close the connections."""
        self._stack.close()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Say in our words what fails inside.

        Raises:
            OpsError: Something did.
        """
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        try:
            yield
        except HttpResponseError as err:
            if err.status_code is not None:
                raise self._explain(err) from None
            if isinstance(err, ClientAuthenticationError) and self._setting is None:
                raise self._no_credentials(err) from None
            raise self._wrong_settings(err) from None
        except AzureError as err:
            if isinstance(err.inner_exception, ValueError):  # an address that cannot be read
                raise self._wrong_settings(err.inner_exception) from None
            raise UnavailableError(
                f"{self._subject}: cannot reach {self._host} ({type(err).__name__})",
                hint=f"check the network and {self._setting or 'the name of the account'}",
            ) from None
        except ValueError:
            raise UnavailableError(
                f"{self._subject}: {self._host} does not answer like Azure",
                hint="check the address in the AZURE_ variables",
            ) from None

    def _credential_setting(self, environ: Mapping[str, str]) -> str | None:
        """The variable that MLflow takes the credential from; None for `DefaultAzureCredential`."""
        if self._is_lake:
            return _SAS_TOKEN if environ.get(_SAS_TOKEN) else None
        # MLflow looks whether they are there, not whether there is something in them.
        return next((name for name in (_CONNECTION_STRING, _ACCESS_KEY) if name in environ), None)

    def _open_blobs(self, host: str, environ: Mapping[str, str], limits: Mapping[str, Any]) -> Any:
        """A client like that of MLflow 3.17.2 `azure_blob_artifact_repo.py`."""
        from azure.storage.blob import BlobServiceClient

        verify: bool | str = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or (
            environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
        )
        options = {**limits, "connection_verify": verify}
        if self._setting == _CONNECTION_STRING:
            text = environ[_CONNECTION_STRING]
            client = BlobServiceClient.from_connection_string(text, **options)
        elif self._setting == _ACCESS_KEY:
            if not environ[_ACCESS_KEY]:
                raise ValueError("the client would take this for no credential at all")
            client = BlobServiceClient(f"https://{host}", environ[_ACCESS_KEY], **options)
        else:
            client = BlobServiceClient(f"https://{host}", self._default_credential(), **options)
        return self._stack.enter_context(client)

    def _open_lake(self, host: str, environ: Mapping[str, str], limits: Mapping[str, Any]) -> Any:
        """A client like that of MLflow 3.17.2 `azure_data_lake_artifact_repo.py`."""
        from azure.storage.filedatalake import DataLakeServiceClient

        if token := environ.get(_SAS_TOKEN):
            address, credential = f"https://{host}?{token}", None
        else:
            address, credential = f"https://{host}", self._default_credential()
        return self._stack.enter_context(DataLakeServiceClient(address, credential, **limits))

    def _default_credential(self) -> Any:
        require_module(self._subject, "azure.identity", extra="azure")
        from azure.identity import DefaultAzureCredential

        return self._stack.enter_context(DefaultAzureCredential())

    def _no_credentials(self, err: Exception) -> OpsError:
        settings = _SAS_TOKEN if self._is_lake else f"{_CONNECTION_STRING}, {_ACCESS_KEY}"
        return PermissionDeniedError(
            f"{self._subject}: no Azure credentials ({type(err).__name__})",
            hint=f"set {settings} or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        )

    def _wrong_settings(self, err: Exception) -> OpsError:
        kind = type(err).__name__
        if self._setting is None:
            return SettingsError(
                [f"{self._subject}: Azure settings are wrong ({kind})"],
                hint="check the names of the container and the account",
            )
        return SettingsError(
            [f"{self._setting}: cannot be used for {self._shown} ({kind})"],
            hint=f"copy {self._setting} anew from the storage account",
        )

    def _explain(self, err: Any) -> OpsError:
        status = err.status_code
        # An enumeration for codes that the library knows, a text for others.
        code = str(getattr(err.error_code, "value", err.error_code) or "")[:40]
        if status == 404:
            return UnavailableError(
                f"{self._subject}: there is no container {self._name!r}", hint="create it first"
            )
        if status in (401, 403):
            return PermissionDeniedError(
                f"{self._subject}: Azure refuses these credentials ({code or status})",
                hint="the account needs the role Storage Blob Data Contributor on the container",
            )
        return UnavailableError(
            f"{self._subject}: Azure answered {status} {code}".rstrip(),
            hint="try again later; check the address in the AZURE_ variables",
        )
