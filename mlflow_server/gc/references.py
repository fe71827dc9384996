"""What live model versions need, so that it is not collected. Pure."""

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlflow_server.artifacts.locations import PROXIED, normalised

# MLflow's ids: a run's is 32 hexadecimal digits, a logged model's `m-` and the same.
_ID = re.compile(r"(?<![0-9A-Za-z-])(m-[0-9a-f]{32}|[0-9a-f]{32})(?![0-9A-Za-z])")
# MLflow 3.17.2 `entities/model_registry/model_version_stages.py`.
DELETED_STAGE = "Deleted_Internal"


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
    root: str = PROXIED

    @classmethod
    def of(
        cls, versions: Iterable[tuple[str | None, str | None, str | None]], root: str = PROXIED
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
