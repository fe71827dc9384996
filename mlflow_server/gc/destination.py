"""Is the artifact destination there, and can files be removed from it? Asked before rows go."""

import os
from collections.abc import Mapping
from pathlib import Path

from mlflow_server.artifacts.probe import PROBE_TIMEOUT_S, probe
from mlflow_server.errors import PermissionDeniedError, SettingsError, UnavailableError
from mlflow_server.gc.request import Request
from mlflow_server.uris import ArtifactScheme, ArtifactUri

_SETTING = "MLFLOW_ARTIFACTS_DESTINATION"


def require_destination(
    destination: ArtifactUri, request: Request, environ: Mapping[str, str]
) -> None:
    """Refuse to collect where the files could not be removed.

    Args:
        destination: Where they are.
        request: Whether a missing destination is all right.
        environ: Where the object store's credentials are.

    Raises:
        UnavailableError: It cannot be reached, or it looks like a volume that is not mounted.
        PermissionDeniedError: It may not be written to.
        SettingsError: It is of a kind that nothing can be removed from.
    """
    if destination.scheme not in (ArtifactScheme.LOCAL, ArtifactScheme.S3):
        raise SettingsError(
            [f"{_SETTING}: {destination.shown}: gc removes from local folders and S3 only"],
            hint="nothing was touched; mlflow gc can collect there",
        )
    if destination.scheme is ArtifactScheme.LOCAL:
        _require_folder((destination.path or Path()).expanduser().absolute(), request)
    else:
        probe(destination, environ, timeout_s=PROBE_TIMEOUT_S)


def _require_folder(root: Path, request: Request) -> None:
    """An unmounted volume looks like a destination whose files are all gone.

    Nothing is written to find out: a full disk is a reason to collect, not to refuse.
    """
    if root.is_dir() and not os.access(root, os.W_OK | os.X_OK):
        raise PermissionDeniedError(
            f"{_SETTING}: cannot write to {root}",
            hint=f"the user of gc (uid {os.geteuid()}) needs write permission there",
        )
    if request.allow_missing_destination or (root.is_dir() and any(root.iterdir())):
        return
    state = "is empty" if root.is_dir() else "is not there"
    raise UnavailableError(
        f"{_SETTING}: {root} {state}: perhaps a volume is not mounted",
        hint="mount it; if the files are gone for good: --allow-missing-destination",
    )
