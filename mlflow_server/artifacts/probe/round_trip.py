"""What the probes of all object stores share: the object, its way there and back."""

import os
import uuid
from collections.abc import Callable

from mlflow_server.errors import UnavailableError
from mlflow_server.uris import ArtifactUri

PROBE_NAME = ".tracking-server-probe"
SETTING = "MLFLOW_ARTIFACTS_DESTINATION"
# Of one request; all of them together have the probe's deadline.
CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 4


def new_key(prefix: str) -> str:
    """The key of a new probe object below a prefix."""
    return f"{prefix}/{PROBE_NAME}-{uuid.uuid4().hex}".lstrip("/")


def round_trip(
    uri: ArtifactUri,
    *,
    write: Callable[[bytes], object],
    read: Callable[[], bytes],
    delete: Callable[[], object],
) -> None:
    """Write an object, read it, delete it, the last one whatever reading says.

    Args:
        uri: The destination, for the message.
        write: Leaves nothing behind when it fails.
        read: Called after it.
        delete: Called after `read`, even when that failed.

    Raises:
        UnavailableError: Other bytes were read than written.
        Exception: Whatever the three raise.
    """
    content = os.urandom(32)
    write(content)
    try:
        found = read()
    finally:
        delete()
    if found != content:
        raise UnavailableError(f"{SETTING}: {uri.shown} gives back other bytes than written")
