"""What a disk answers, in our words. Pure."""

import errno
import os

from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import (
    BadInputError,
    OpsError,
    PermissionDeniedError,
    UnavailableError,
    VanishedError,
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def explain(
    subject: str, path: str, err: OSError | ValueError | OpsError, *, writes: bool = False
) -> OpsError:
    """Say why nothing could be done with a path.

    Args:
        subject: How the message begins.
        path: In full.
        err: What was raised.
        writes: It should have been written, not read.
    """
    at = f"{subject}: {shown(path)}"
    if isinstance(err, OpsError):
        return err
    if isinstance(err, ValueError):
        return BadInputError(f"{at}: no file can be called so")
    if err.errno in _FULL:
        return UnavailableError(
            f"{subject}: the disk is full: cannot write to {shown(path.rpartition('/')[0])}",
            hint="make room, or give the user a larger quota",
        )
    if err.errno == errno.ENAMETOOLONG:
        return BadInputError(f"{at}: the name is too long for this disk")
    if err.errno == errno.ELOOP:
        return BadInputError(f"{at}: leads through a symbolic link, which is not followed")
    if isinstance(err, PermissionError) or err.errno == errno.EROFS:
        what = "may not be written" if writes else "may not be read"
        return PermissionDeniedError(
            f"{at}: {what}: {err.strerror}",
            hint=f"who runs this (uid {os.geteuid()}) has to be let",
        )
    if isinstance(err, NotADirectoryError | IsADirectoryError) and writes:
        return BadInputError(f"{at}: something else is in the way: {err.strerror}")
    if isinstance(err, FileNotFoundError | NotADirectoryError):
        return VanishedError(f"{at} is not there")
    return UnavailableError(f"{at}: {err.strerror}")
