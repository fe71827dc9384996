"""Write, read and delete one small object at an artifact destination: does it work?

Local folders and S3 are probed without MLflow, so that a server can refuse to start in time; every
other scheme through MLflow's own artifact repository.
"""

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_server.deadline import DeadlineExceededError, call_within
from mlflow_server.errors import (
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import ArtifactScheme, ArtifactUri, mask_uri

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0
PROBE_NAME = ".tracking-server-probe"
_SETTING = "MLFLOW_ARTIFACTS_DESTINATION"


def needs_mlflow(uri: ArtifactUri) -> bool:
    """True when only MLflow's repository can probe this destination."""
    return uri.scheme in (ArtifactScheme.GCS, ArtifactScheme.AZURE, ArtifactScheme.OTHER)


def probe(uri: ArtifactUri, environ: Mapping[str, str], *, timeout_s: float) -> None:
    """Write, read back and delete a probe object; nothing else is touched or left behind.

    A local folder that does not exist yet is judged by its nearest existing parent, and not made.
    A destination behind another tracking server (`mlflow-artifacts:`) is not probed.

    Args:
        uri: The destination.
        environ: Where the object store's credentials and options are.
        timeout_s: Give up after this many seconds.

    Raises:
        UnavailableError: Not reachable, not there, or no answer in time.
        PermissionDeniedError: Reachable, but credentials are missing or refused.
        SettingsError: The destination cannot be meant, or its library is not installed.
    """
    try:
        call_within(timeout_s, lambda: _probe(uri, environ))
    except DeadlineExceededError:
        raise UnavailableError(
            f"{_SETTING}: {uri.shown}: no answer within {timeout_s:g} s",
            hint="check the endpoint (MLFLOW_S3_ENDPOINT_URL), the network and the mount",
        ) from None


def _probe(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    match uri.scheme:
        case ArtifactScheme.LOCAL:
            _probe_local(uri)
        case ArtifactScheme.S3:
            _probe_s3(uri, environ)
        case ArtifactScheme.PROXY:
            return
        case _:
            _probe_with_mlflow(uri)


def _nearest(folder: Path) -> Path:
    while not folder.exists():
        if folder.is_symlink():
            raise UnavailableError(f"{_SETTING}: {folder} is a link to nowhere")
        folder = folder.parent
    return folder


_LIBRARIES = {
    ArtifactScheme.GCS: ("google.cloud.storage", "mlflow-tracking-server[gcs]"),
    ArtifactScheme.AZURE: ("azure.storage.blob", "mlflow-tracking-server[azure]"),
}


def require_library(uri: ArtifactUri) -> None:
    """Refuse early when the client library of a destination is missing."""
    if uri.scheme is ArtifactScheme.S3:
        # Imported here, so that a slow disk does not eat the time of the probe.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("boto3")
    if uri.scheme not in _LIBRARIES:
        return
    module, package = _LIBRARIES[uri.scheme]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SettingsError(
            [f"{_SETTING}: {uri.shown} needs the package {module}, which is not installed"],
            hint=f"pip install '{package}'",
        )


def _probe_local(uri: ArtifactUri) -> None:
    folder = (uri.path or Path()).expanduser().absolute()
    try:
        folder = _nearest(folder)
    except PermissionError as err:
        raise PermissionDeniedError(
            f"{_SETTING}: {err.filename} may not be entered",
            hint=f"the user of the server (uid {os.geteuid()}) needs write permission there",
        ) from None
    if not folder.is_dir():
        raise SettingsError(
            [f"{_SETTING}: {folder} is a file, not a folder"], hint="name a folder or a bucket"
        )
    path = folder / f"{PROBE_NAME}-{uuid.uuid4().hex}"
    content = os.urandom(32)
    try:
        path.write_bytes(content)
        if path.read_bytes() != content:
            raise UnavailableError(f"{_SETTING}: {folder} gives back other bytes than written")
    except OSError as err:
        message = f"{_SETTING}: cannot write to {folder}: {err.strerror}"
        hint = f"the user of the server (uid {os.geteuid()}) needs write permission there"
        if isinstance(err, PermissionError) or err.errno == 30:  # 30: read-only file system
            raise PermissionDeniedError(message, hint=hint) from None
        raise UnavailableError(message) from None
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _probe_s3(uri: ArtifactUri, environ: Mapping[str, str]) -> None:
    try:
        import botocore.exceptions as failures
    except ModuleNotFoundError:
        raise SettingsError(
            [f"{_SETTING}: {uri.shown} needs the package boto3, which is not installed"],
            hint="pip install 'mlflow-tracking-server[s3]'",
        ) from None
    key = f"{uri.prefix}/{PROBE_NAME}-{uuid.uuid4().hex}".lstrip("/")
    content = os.urandom(32)
    try:
        client = _s3_client(environ)
        place = {"Bucket": uri.bucket, "Key": key}
        if owner := environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER"):
            place["ExpectedBucketOwner"] = owner
        extra = json.loads(environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
        bucket = {name: value for name, value in place.items() if name != "Key"}
        try:
            # Some servers make a missing bucket when something is written into it.
            client.head_bucket(**bucket)
        except failures.ClientError as err:
            if err.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise
        client.put_object(**place, Body=content, **extra)
        try:
            found = client.get_object(**place)["Body"].read()
        finally:
            client.delete_object(**place)
    except json.JSONDecodeError:
        raise SettingsError(["MLFLOW_S3_UPLOAD_EXTRA_ARGS: is not JSON"]) from None
    except failures.ClientError as err:
        raise _explain_s3(uri, err.response) from None
    except (
        failures.NoCredentialsError,
        failures.PartialCredentialsError,
        failures.CredentialRetrievalError,
    ):
        raise PermissionDeniedError(
            f"{_SETTING}: {uri.shown}: no S3 credentials",
            hint="set the secrets AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from None
    except (failures.ProfileNotFound, failures.ParamValidationError, ValueError) as err:
        kind = type(err).__name__
        raise SettingsError(
            [f"{_SETTING}: {uri.shown}: S3 settings are wrong ({kind})"],
            hint="check MLFLOW_S3_ENDPOINT_URL, AWS_PROFILE and the bucket's name",
        ) from None
    except failures.BotoCoreError as err:
        endpoint = mask_uri(environ.get("MLFLOW_S3_ENDPOINT_URL") or "the S3 endpoint of AWS")
        raise UnavailableError(
            f"{_SETTING}: {uri.shown}: cannot reach {endpoint} ({type(err).__name__})",
            hint="check MLFLOW_S3_ENDPOINT_URL",
        ) from None
    if found != content:
        raise UnavailableError(f"{_SETTING}: {uri.shown} gives back other bytes than written")


def _s3_client(environ: Mapping[str, str]) -> Any:
    """A client like that of MLflow 3.17.2 `s3_artifact_repo._get_s3_client`, with short limits."""
    import boto3
    from botocore.client import Config

    ignore_tls = environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
    return boto3.client(
        "s3",
        endpoint_url=environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
        verify=False if ignore_tls else None,
        config=Config(
            connect_timeout=2,
            read_timeout=4,
            retries={"total_max_attempts": 1},
            signature_version=environ.get("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION") or "s3v4",
            s3={"addressing_style": environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"},
        ),
    )


def _explain_s3(uri: ArtifactUri, response: Mapping[str, Any]) -> OpsError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in ("NoSuchBucket", "404") or status == 404:
        return UnavailableError(
            f"{_SETTING}: {uri.shown}: there is no bucket {uri.bucket!r}", hint="create it first"
        )
    if status in (401, 403) or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return PermissionDeniedError(
            f"{_SETTING}: {uri.shown}: S3 refuses these credentials ({code[:40]})",
            hint="the key needs s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket",
        )
    return UnavailableError(f"{_SETTING}: {uri.shown}: S3 answered {code[:40]} ({status})")


def _probe_with_mlflow(uri: ArtifactUri) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    name = f"{PROBE_NAME}-{uuid.uuid4().hex}"
    content = os.urandom(32)
    try:
        repository = get_artifact_repository(uri.text)
        with tempfile.TemporaryDirectory(prefix="mlflow-server-") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            repository.log_artifact(str(path))
            try:
                found = Path(repository.download_artifacts(name)).read_bytes()
            finally:
                repository.delete_artifacts(name)
    except ModuleNotFoundError as err:
        raise SettingsError(
            [f"{_SETTING}: {uri.shown} needs the package {err.name}, which is not installed"],
            hint=f"pip install the client library of {uri.text.partition(':')[0]}",
        ) from None
    except Exception as err:
        # Any of five client libraries may have raised; their texts can hold credentials.
        log.debug("the probe of the artifact destination failed", exc_info=True)
        raise UnavailableError(
            f"{_SETTING}: {uri.shown}: write, read, delete of a probe failed ({type(err).__name__})"
        ) from None
    if found != content:
        raise UnavailableError(f"{_SETTING}: {uri.shown} gives back other bytes than written")
