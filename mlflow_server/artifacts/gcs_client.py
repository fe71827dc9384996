"""A client for Google Cloud Storage as MLflow makes it, and its failures in our words."""

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

LOOK_AT = "the network and GOOGLE_APPLICATION_CREDENTIALS"
_ENDPOINT = "STORAGE_EMULATOR_HOST"
_KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


def make_client(subject: str) -> tuple[Any, bool]:
    """The client of MLflow 3.17.2 `gcs_artifact_repo.py`, and whether it is nobody's.

    Raises:
        SettingsError: What is set for it cannot be used.
    """
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
        raise _wrong_settings(subject, err) from None
    _keep_to_this_thread(client)
    return client, is_anonymous


@contextlib.contextmanager
def explained(
    subject: str, bucket: str, environ: Mapping[str, str], *, is_anonymous: bool
) -> Iterator[None]:
    """Say in our words what fails inside.

    Args:
        subject: How the message begins.
        bucket: The bucket that is worked with.
        environ: For messages only; the library reads `os.environ`.
        is_anonymous: There are no credentials.

    Raises:
        OpsError: Something did.
    """
    import requests
    import urllib3
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    endpoint = mask_uri(environ.get(_ENDPOINT) or "Google Cloud Storage")
    try:
        try:
            yield
        except RetryError as err:
            raise err.cause from None
    except GoogleAPICallError as err:
        if is_anonymous and err.code in (401, 403):
            raise _no_credentials(subject, environ) from None
        raise _explain(subject, bucket, err.code) from None
    except InvalidResponse as err:  # of a content, after the last attempt
        raise _explain(subject, bucket, err.response.status_code) from None
    except (requests.exceptions.InvalidJSONError, DataCorruption) as err:
        raise UnavailableError(
            f"{subject}: {endpoint} does not answer like GCS ({type(err).__name__})",
            hint=f"check {_ENDPOINT}",
        ) from None
    except TransportError as err:
        raise UnavailableError(
            f"{subject}: cannot reach Google to log in ({type(err).__name__})",
            hint=f"check {LOOK_AT}",
        ) from None
    except GoogleAuthError as err:
        if is_anonymous:
            raise _no_credentials(subject, environ) from None
        raise PermissionDeniedError(
            f"{subject}: Google refuses these credentials ({type(err).__name__})",
            hint=f"check {_KEY_FILE}: is its key still valid?",
        ) from None
    except ValueError as err:  # an address that requests cannot read is one as well
        raise _wrong_settings(subject, err) from None
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        ConnectionError,
    ) as err:
        raise UnavailableError(
            f"{subject}: cannot reach {endpoint} ({type(err).__name__})",
            hint=f"check the network and {_ENDPOINT}",
        ) from None


def _keep_to_this_thread(client: Any) -> None:
    """Turn off what the libraries ask in threads of their own, with minutes of patience.

    The server is about to fork, where no thread may be left of a probe. In google-cloud-storage
    3.17 it is the bucket's place for traces, in google-auth 2.62 the account's regions; neither
    has a public switch that is for one client only.
    """
    client._bucket_metadata_cache = None
    client._credentials._maybe_start_regional_access_boundary_refresh = lambda *_: None


def _no_credentials(subject: str, environ: Mapping[str, str]) -> OpsError:
    if environ.get(_KEY_FILE):
        return SettingsError(
            [f"{_KEY_FILE}: names no file with Google credentials"],
            hint="name the file of a service account's key",
        )
    return PermissionDeniedError(
        f"{subject}: no GCS credentials",
        hint=f"name the file of a service account's key in {_KEY_FILE}",
    )


def _wrong_settings(subject: str, err: ValueError) -> OpsError:
    return SettingsError(
        [f"{subject}: GCS settings are wrong ({type(err).__name__})"],
        hint=f"check {_ENDPOINT}, {_KEY_FILE} and the bucket's name",
    )


def _explain(subject: str, bucket: str, status: int | None) -> OpsError:
    match status:
        case 404:
            return UnavailableError(
                f"{subject}: there is no bucket {bucket!r}", hint="create it first"
            )
        case 401 | 403:
            return PermissionDeniedError(
                f"{subject}: GCS refuses these credentials ({status})",
                hint="the account needs the role roles/storage.objectUser on the bucket",
            )
        case _:
            return UnavailableError(
                f"{subject}: GCS answered {status}", hint=f"try again later; check {_ENDPOINT}"
            )
