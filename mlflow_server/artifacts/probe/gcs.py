"""Probe a bucket of Google Cloud Storage."""

import contextlib
from collections.abc import Mapping
from typing import Any

from mlflow_server.artifacts.probe.round_trip import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    SETTING,
    new_key,
    round_trip,
)
from mlflow_server.errors import (
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import ArtifactUri, mask_uri

LOOK_AT = "the network and GOOGLE_APPLICATION_CREDENTIALS"
_ENDPOINT = "STORAGE_EMULATOR_HOST"
_KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


def probe_bucket(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    """Write, read and delete an object by google-cloud-storage.

    Args:
        uri: The destination.
        environ: For messages only; the library reads `os.environ`.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption

    client, is_anonymous = _make_client(uri)
    limits = {"timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), "retry": None}
    endpoint = mask_uri(environ.get(_ENDPOINT) or "Google Cloud Storage")
    try:
        with contextlib.closing(client):
            bucket, key = client.bucket(uri.bucket), new_key(uri.prefix)
            # Like MLflow's, each begins anew: one that has written reads where its answer says.
            round_trip(
                uri,
                write=lambda content: bucket.blob(key).upload_from_string(content, **limits),
                read=lambda: bucket.blob(key).download_as_bytes(**limits),
                delete=lambda: bucket.blob(key).delete(**limits),
            )
    except GoogleAPICallError as err:
        if is_anonymous and err.code in (401, 403):
            raise _no_credentials(uri, environ) from None
        raise _explain(uri, err.code) from None
    except (requests.exceptions.InvalidJSONError, DataCorruption) as err:
        raise UnavailableError(
            f"{SETTING}: {uri.shown}: {endpoint} does not answer like GCS ({type(err).__name__})",
            hint=f"check {_ENDPOINT}",
        ) from None
    except TransportError as err:
        raise UnavailableError(
            f"{SETTING}: {uri.shown}: cannot reach Google to log in ({type(err).__name__})",
            hint=f"check {LOOK_AT}",
        ) from None
    except GoogleAuthError as err:
        if is_anonymous:
            raise _no_credentials(uri, environ) from None
        raise PermissionDeniedError(
            f"{SETTING}: {uri.shown}: Google refuses these credentials ({type(err).__name__})",
            hint=f"check {_KEY_FILE}: is its key still valid?",
        ) from None
    except ValueError as err:  # an address that requests cannot read is one as well
        raise _wrong_settings(uri, err) from None
    except requests.exceptions.RequestException as err:
        raise UnavailableError(
            f"{SETTING}: {uri.shown}: cannot reach {endpoint} ({type(err).__name__})",
            hint=f"check the network and {_ENDPOINT}",
        ) from None


def _make_client(uri: ArtifactUri) -> tuple[Any, bool]:
    """The client of MLflow 3.17.2 `gcs_artifact_repo.py`, and whether it is nobody's."""
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    is_anonymous = False
    try:
        client = storage.Client()
    except DefaultCredentialsError:
        client = storage.Client.create_anonymous_client()
        is_anonymous = True
    except OSError:
        raise SettingsError(
            [f"{_KEY_FILE}: the file cannot be read"],
            hint="name the file of a service account's key",
        ) from None
    except ValueError as err:
        raise _wrong_settings(uri, err) from None
    _keep_to_this_thread(client)
    return client, is_anonymous


def _keep_to_this_thread(client: Any) -> None:
    """Turn off what the libraries ask in threads of their own, with minutes of patience.

    The server is about to fork, where no thread may be left of a probe. In google-cloud-storage
    3.17 it is the bucket's place for traces, in google-auth 2.62 the account's regions; neither
    has a public switch that is for one client only.
    """
    client._bucket_metadata_cache = None
    client._credentials._maybe_start_regional_access_boundary_refresh = lambda *_: None


def _no_credentials(uri: ArtifactUri, environ: Mapping[str, str]) -> OpsError:
    if environ.get(_KEY_FILE):
        return SettingsError(
            [f"{_KEY_FILE}: names no file with Google credentials"],
            hint="name the file of a service account's key",
        )
    return PermissionDeniedError(
        f"{SETTING}: {uri.shown}: no GCS credentials",
        hint=f"name the file of a service account's key in {_KEY_FILE}",
    )


def _wrong_settings(uri: ArtifactUri, err: ValueError) -> OpsError:
    return SettingsError(
        [f"{SETTING}: {uri.shown}: GCS settings are wrong ({type(err).__name__})"],
        hint=f"check {_ENDPOINT}, {_KEY_FILE} and the bucket's name",
    )


def _explain(uri: ArtifactUri, status: int | None) -> OpsError:
    match status:
        case 404:
            return UnavailableError(
                f"{SETTING}: {uri.shown}: there is no bucket {uri.bucket!r}", hint="create it first"
            )
        case 401 | 403:
            return PermissionDeniedError(
                f"{SETTING}: {uri.shown}: GCS refuses these credentials ({status})",
                hint="the account needs the role roles/storage.objectUser on the bucket",
            )
        case _:
            return UnavailableError(
                f"{SETTING}: {uri.shown}: GCS answered {status}",
                hint=f"try again later; check {_ENDPOINT}",
            )
