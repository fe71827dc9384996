"""What live model versions need, so that it is not collected. Pure."""

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_server.uris import ArtifactScheme, ArtifactUri

# MLflow's ids: a run's is 32 hexadecimal digits, a logged model's `m-` and the same.
_ID = re.compile(r"(?<![0-9A-Za-z-])(m-[0-9a-f]{32}|[0-9a-f]{32})(?![0-9A-Za-z])")
# MLflow 3.17.2 `entities/model_registry/model_version_stages.py`.
DELETED_STAGE = "Deleted_Internal"
_PROXIED = "mlflow-artifacts:"
# Where a server serves artifacts: MLflow 3.17.2 `store/artifact/mlflow_artifacts_repo.py`.
_SERVED = "/api/2.0/mlflow-artifacts/artifacts/"


@dataclass
class References:
    """Ids and locations that live model versions name.

    Args:
        ids: Run ids and logged model ids that occur in a version's run id, source or location.
        locations: Sources and locations without such an id, normalised and sorted.
        root: What `mlflow-artifacts:` stands for: see `root_of`.
    """

    ids: set[str] = field(default_factory=set)
    locations: list[str] = field(default_factory=list)
    root: str = _PROXIED

    @classmethod
    def of(
        cls, versions: Iterable[tuple[str | None, str | None, str | None]], root: str = _PROXIED
    ) -> "References":
        """Gather them from `(run_id, source, storage_location)` of every live model version.

        Args:
            versions: All of them.
            root: What `mlflow-artifacts:` stands for: see `root_of`.
        """
        ids: set[str] = set()
        locations: set[str] = set()
        for run_id, *places in versions:
            if run_id:
                ids.add(run_id)
            for place in places:
                if not place:
                    continue
                found = ids_in(place)
                ids.update(found)
                if not found:
                    locations.add(normalised(place, root))
        return cls(ids, sorted(locations), root)

    def protect(self, entity_id: str, location: str | None) -> bool:
        """True when a version names the entity, or lies in or above its location."""
        if entity_id in self.ids:
            return True
        return location is not None and self.touches(normalised(location, self.root))

    def touches(self, location: str) -> bool:
        """True when a version's location is this one, lies in it, or is above it."""
        if not self.locations:
            return False
        below = location + "/"
        index = bisect_left(self.locations, location)
        if index < len(self.locations) and self.locations[index] == location:
            return True
        index = bisect_left(self.locations, below)
        if index < len(self.locations) and self.locations[index].startswith(below):
            return True
        parts = location.split("/")
        return any(self._has("/".join(parts[:end])) for end in range(1, len(parts)))

    def _has(self, location: str) -> bool:
        index = bisect_left(self.locations, location)
        return index < len(self.locations) and self.locations[index] == location


def ids_in(location: str) -> list[str]:
    """The ids of runs and logged models that occur in a location."""
    return _ID.findall(location)


def root_of(destination: ArtifactUri) -> str:
    """What `mlflow-artifacts:` stands for, so that one place has one name whoever wrote it down.

    Args:
        destination: Where artifacts are; `mlflow-artifacts:/` when only the server knows.
    """
    if destination.scheme is ArtifactScheme.LOCAL:
        return str((destination.path or Path()).expanduser().absolute())
    return destination.text.rstrip("/")


def normalised(location: str, root: str = _PROXIED) -> str:
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
