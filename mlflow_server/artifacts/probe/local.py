"""Probe a local folder."""

import contextlib
import os
import uuid
from pathlib import Path

from mlflow_server.artifacts.probe.round_trip import PROBE_NAME, SETTING
from mlflow_server.errors import PermissionDeniedError, SettingsError, UnavailableError
from mlflow_server.uris import ArtifactUri


def probe_folder(uri: ArtifactUri) -> None:
    """Write, read and delete a file in the folder or its nearest existing parent.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    folder = (uri.path or Path()).expanduser().absolute()
    try:
        folder = _nearest(folder)
    except PermissionError as err:
        raise PermissionDeniedError(
            f"{SETTING}: {err.filename} may not be entered",
            hint=f"the user of the server (uid {os.geteuid()}) needs write permission there",
        ) from None
    if not folder.is_dir():
        raise SettingsError(
            [f"{SETTING}: {folder} is a file, not a folder"], hint="name a folder or a bucket"
        )
    path = folder / f"{PROBE_NAME}-{uuid.uuid4().hex}"
    content = os.urandom(32)
    try:
        path.write_bytes(content)
        if path.read_bytes() != content:
            raise UnavailableError(f"{SETTING}: {folder} gives back other bytes than written")
    except OSError as err:
        message = f"{SETTING}: cannot write to {folder}: {err.strerror}"
        hint = f"the user of the server (uid {os.geteuid()}) needs write permission there"
        if isinstance(err, PermissionError) or err.errno == 30:  # 30: read-only file system
            raise PermissionDeniedError(message, hint=hint) from None
        raise UnavailableError(message) from None
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _nearest(folder: Path) -> Path:
    while not folder.exists():
        if folder.is_symlink():
            raise UnavailableError(f"{SETTING}: {folder} is a link to nowhere")
        folder = folder.parent
    return folder
