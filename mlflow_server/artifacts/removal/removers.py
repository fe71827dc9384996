"""One remover per store that locations lead to, opened when first needed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_server.artifacts.removal.freed import Freed, Remover
from mlflow_server.artifacts.removal.local import LocalRemover
from mlflow_server.artifacts.removal.place import Place, place_of
from mlflow_server.errors import OpsError
from mlflow_server.uris import ArtifactScheme, ArtifactUri


class Removers:
    """Removes the artifacts of entities, wherever their locations lead.

    Args:
        destination: What `mlflow-artifacts:/` stands for.
        environ: Where the object stores' credentials and options are.
    """

    def __init__(self, destination: ArtifactUri, environ: Mapping[str, str]) -> None:
        self._destination = destination
        self._environ = environ
        self._open: dict[tuple[ArtifactScheme, str], Remover] = {}

    def remove(self, entities: Sequence[tuple[str, str]]) -> list[Freed | str]:
        """Remove what lies at locations; may be repeated after a crash.

        Args:
            entities: Location and entity id of each.

        Returns:
            For each what was freed, or why it could not be removed.
        """
        results: list[Freed | str] = [Freed()] * len(entities)
        by_store: dict[tuple[ArtifactScheme, str], list[tuple[int, Place]]] = defaultdict(list)
        for index, (location, entity_id) in enumerate(entities):
            try:
                place = place_of(location, entity_id, self._destination)
                self._remover(place.store)
            except OpsError as err:
                results[index] = err.message
                continue
            by_store[_key(place.store)].append((index, place))
        for key, places in by_store.items():
            found = self._open[key].remove([place for _, place in places])
            for (index, _), result in zip(places, found, strict=True):
                results[index] = result
        return results

    def close(self) -> None:
        """Close what was opened."""
        for remover in self._open.values():
            remover.close()
        self._open.clear()

    def _remover(self, store: ArtifactUri) -> Remover:
        key = _key(store)
        if key not in self._open:
            self._open[key] = self._make(store)
        return self._open[key]

    def _make(self, store: ArtifactUri) -> Remover:
        if store.scheme is ArtifactScheme.LOCAL:
            return LocalRemover((store.path or Path()).expanduser().absolute())
        from mlflow_server.artifacts.probe import require_library
        from mlflow_server.artifacts.removal.s3 import S3Remover

        if store.scheme is ArtifactScheme.S3:
            require_library(store)
            return S3Remover(store.bucket, self._environ)
        raise OpsError(f"artifacts of the kind {store.scheme.value} cannot be removed")


def _key(store: ArtifactUri) -> tuple[ArtifactScheme, str]:
    return store.scheme, store.bucket or str(store.path)
