"""Is the artifact destination there, and can files be removed from it? Asked before rows go."""

# ruff: noqa: S608 - statements are put together from constants only

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.artifacts.locations import root_of
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import PermissionDeniedError, SettingsError, UnavailableError
from mlflow_server.gc.request import Request
from mlflow_server.store.engine import connect
from mlflow_server.uris import ArtifactScheme, ArtifactUri, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SETTING = "MLFLOW_ARTIFACTS_DESTINATION"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
)


def require_destination(
    store: StoreUri, destination: ArtifactUri, request: Request, environ: Mapping[str, str]
) -> None:
    """Refuse to collect where the files could not be removed.

    Nothing is written to find out: a full disk is a reason to collect, not to refuse. A destination
    that no row points into does not matter.

    Args:
        store: Whose rows point into it, or not.
        destination: Where the files are; `mlflow-artifacts:/` when only the server knows.
        request: Whether a missing destination is all right.
        environ: Where the object store's credentials are.

    Raises:
        UnavailableError: It cannot be reached, or it looks like a volume that is not mounted.
        PermissionDeniedError: Nothing may be removed there.
        SettingsError: It is of a kind that nothing can be removed from, or nobody said where it is.
    """
    with connect(store) as connection:
        if not _is_used(connection, destination):
            return
    match destination.scheme:
        case ArtifactScheme.LOCAL:
            _require_folder(Path(root_of(destination)), request)
            return
        case ArtifactScheme.OTHER:
            raise SettingsError(
                [f"{_SETTING}: {destination.shown}: gc cannot remove from it"],
                hint="nothing was touched; mlflow gc can collect there",
            )
        case ArtifactScheme.PROXY if not environ.get("MLFLOW_TRACKING_URI"):
            raise SettingsError(
                [f"{_SETTING}: is not set, and there are artifacts that only it leads to"],
                hint="nothing was touched; set it as the server has it, "
                "or MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN to go through the server",
            )
    with contextlib.closing(Removers(destination, environ)) as removers:
        is_anything_there = removers.check()
    if not is_anything_there and not request.allow_missing_destination:
        raise UnavailableError(
            f"{_SETTING}: {destination.shown}: nothing is there, although the store has artifacts",
            hint="check bucket and prefix; "
            "if the files are gone for good: --allow-missing-destination",
        )


def _is_used(connection: "Connection", destination: ArtifactUri) -> bool:
    """True when a location of any row lies at the destination."""
    import sqlalchemy

    prefixes = {"proxied": "mlflow-artifacts:%"}
    if destination.scheme is ArtifactScheme.LOCAL:
        path = _escaped(root_of(destination))
        prefixes |= {"path": f"{path}/%", "uri": f"file://{path}/%"}
    elif destination.scheme is not ArtifactScheme.PROXY:
        prefixes["uri"] = _escaped(destination.text.rstrip("/")) + "/%"
    for table, column in _LOCATIONS:
        condition = " OR ".join(f"{column} LIKE :{name} ESCAPE '!'" for name in prefixes)
        query = sqlalchemy.text(f"SELECT 1 FROM {table} WHERE {condition}")
        if connection.execute(query, prefixes).first():
            return True
    return False


def _escaped(text: str) -> str:
    for character in "!%_":
        text = text.replace(character, f"!{character}")
    return text


def _require_folder(root: Path, request: Request) -> None:
    """An unmounted volume looks like a destination whose files are all gone."""
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
