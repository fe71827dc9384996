"""Locations of artifacts, as rows have them, in one form to compare them by. Pure."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_server.uris import ArtifactScheme, ArtifactUri

PROXIED = "mlflow-artifacts:"
# Where a server serves artifacts: MLflow 3.17.2 `store/artifact/mlflow_artifacts_repo.py`.
_SERVED = "/api/2.0/mlflow-artifacts/artifacts/"


def root_of(destination: ArtifactUri) -> str:
    """What `mlflow-artifacts:` stands for, so that one place has one name whoever wrote it down.

    Args:
        destination: Where artifacts are; `mlflow-artifacts:/` when only the server knows.
    """
    if destination.scheme is ArtifactScheme.LOCAL:
        return str((destination.path or Path()).expanduser().absolute())
    return destination.text.rstrip("/")


def normalised(location: str, root: str = PROXIED) -> str:
    """A location to compare with others: one form for a place, however it was written down.

    Args:
        location: A path or a URI, through the server or not.
        root: See `root_of`.
    """
    path = location.partition("?")[0].partition("#")[0]
    scheme, separator, rest = path.partition(":")
    match scheme.lower() if separator else "":
        case "mlflow-artifacts":
            path = f"{root}/{_without_host(rest)}"
        case "http" | "https" if _SERVED in rest:
            path = f"{root}/{rest.partition(_SERVED)[2]}"
        case "file":
            path = unquote(urlsplit(path).path)
        case "":
            path = unquote(path)
    scheme, separator, rest = path.partition("://")
    if not separator:
        scheme, rest = "", path
    return f"{scheme}{separator}{re.sub(r'/{2,}', '/', rest)}".rstrip("/")


def _without_host(rest: str) -> str:
    return rest[2:].partition("/")[2] if rest.startswith("//") else rest
