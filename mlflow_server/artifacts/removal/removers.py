"""One remover per store that locations lead to, opened when first needed."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow_server.artifacts.azure_client import is_lake
from mlflow_server.artifacts.buckets.opening import open_bucket
from mlflow_server.artifacts.probe import PROBE_TIMEOUT_S, require_library
from mlflow_server.artifacts.probe.round_trip import SETTING
from mlflow_server.artifacts.removal.freed import Found, Freed, Remover
from mlflow_server.artifacts.removal.lake import LakeRemover
from mlflow_server.artifacts.removal.local import LocalRemover
from mlflow_server.artifacts.removal.objects import ObjectRemover
from mlflow_server.artifacts.removal.place import Place, is_name, place_below, place_of, root_of
from mlflow_server.artifacts.removal.through_server import ThroughServerRemover
from mlflow_server.deadline import DeadlineExceededError, call_within
from mlflow_server.errors import OpsError, SettingsError, UnavailableError
from mlflow_server.uris import ArtifactScheme, ArtifactUri

log = logging.getLogger(__name__)

# A tracking server lists everything at once.
_CHECK_TIMEOUT_S = {ArtifactScheme.PROXY: 30.0}

S = TypeVar("S")
T = TypeVar("T")


class Removers:
    """Removes the artifacts of entities, wherever their locations lead.

    Args:
        destination: What `mlflow-artifacts:/` stands for; that itself, to go through the server
            of MLFLOW_TRACKING_URI.
        environ: Where the stores' credentials and options are. Google's and Azure's libraries
            look for further ones in `os.environ`, of which this must be a copy.
    """

    def __init__(self, destination: ArtifactUri, environ: Mapping[str, str]) -> None:
        self._destination = destination
        self._environ = environ
        self._open: dict[tuple[str, str], Remover] = {}

    def remove(self, entities: Sequence[tuple[str, str]]) -> list[Freed | str]:
        """Remove what lies at locations; may be repeated after a crash.

        Args:
            entities: Location and entity id of each.

        Returns:
            For each what was freed, or why it could not be removed.
        """
        return self._each(entities, self._place_of, lambda remover, some: remover.remove(some))

    def measure(self, entities: Sequence[tuple[str, str]]) -> list[Found | str]:
        """Look at what lies at locations, and change nothing."""
        return self._each(entities, self._place_of, lambda remover, some: remover.measure(some))

    def remove_below(self, folders: Sequence[Sequence[str]]) -> list[Freed | str]:
        """Remove folders of the destination that belong to no entity any more.

        Args:
            folders: From the destination down to each.
        """
        return self._each(folders, self._place_below, lambda remover, some: remover.remove(some))

    def measure_below(self, folders: Sequence[Sequence[str]]) -> list[Found | str]:
        """Look at folders of the destination, and change nothing."""
        return self._each(folders, self._place_below, lambda remover, some: remover.measure(some))

    def folders(self, parts: Sequence[str]) -> Iterator[str]:
        """Names of the folders directly below one of the destination; none when it is not there.

        Args:
            parts: From the destination down to it; none for the destination itself.

        Raises:
            OpsError: They cannot be listed.
        """
        place = self._place_below(parts) if parts else self._root
        return self._remover(place.store).folders(place.parts)

    def remove_empty(self, location: str, entity_id: str, below: Sequence[str]) -> None:
        """Remove what an entity leaves behind when everything in it is gone: empty folders.

        Args:
            location: Of the entity.
            entity_id: Whose folder it is.
            below: Names of folders in it, which go before it.
        """
        with contextlib.suppress(OpsError):  # a folder that is not the entity's stays
            place = self._place_of((location, entity_id))
            folders = [(*place.parts, name) for name in below if is_name(name)]
            self._remover(place.store).remove_empty([*folders, place.parts])

    def check(self) -> bool:
        """Find out, without writing anything, whether the destination can be collected from.

        Returns:
            True when there is anything at all; False may be a volume that is not mounted.

        Raises:
            OpsError: See `Remover.check`.
        """
        remover = self._remover(self._destination)
        timeout_s = _CHECK_TIMEOUT_S.get(self._destination.scheme, PROBE_TIMEOUT_S)
        try:
            return call_within(timeout_s, lambda: remover.check(self._root.parts))
        except DeadlineExceededError:
            raise UnavailableError(
                f"{self._subject(self._destination)}: no answer within {timeout_s:g} s",
                hint="check the network and the mount",
            ) from None

    def close(self) -> None:
        """Close what was opened."""
        for remover in self._open.values():
            remover.close()
        self._open.clear()

    @property
    def _root(self) -> Place:
        return Place(self._destination, root_of(self._destination))

    def _place_of(self, entity: tuple[str, str]) -> Place:
        location, entity_id = entity
        return place_of(location, entity_id, self._destination)

    def _place_below(self, parts: Sequence[str]) -> Place:
        return place_below(parts, self._destination)

    def _each(
        self,
        things: Sequence[S],
        find: Callable[[S], Place],
        work: Callable[[Remover, Sequence[Place]], list[T | str]],
    ) -> list[T | str]:
        """Do something with the places of things, store by store; the results in their order."""
        results: list[T | str] = [""] * len(things)
        by_remover: dict[Remover, list[tuple[int, Place]]] = defaultdict(list)
        for index, thing in enumerate(things):
            try:
                place = find(thing)
                by_remover[self._remover(place.store)].append((index, place))
            except OpsError as err:
                results[index] = err.message
        for remover, places in by_remover.items():
            try:
                found = work(remover, [place for _, place in places])
            except Exception as err:  # of a client library; the others' items go on
                log.debug("an artifact store failed unexpectedly", exc_info=True)
                found = [f"failed unexpectedly ({type(err).__name__})"] * len(places)
            for (index, _), result in zip(places, found, strict=True):
                results[index] = result
        return results

    def _remover(self, store: ArtifactUri) -> Remover:
        key = _key(store)
        if key not in self._open:
            self._open[key] = self._make(store)
        return self._open[key]

    def _make(self, store: ArtifactUri) -> Remover:
        subject = self._subject(store)
        require_library(store)
        match store.scheme:
            case ArtifactScheme.LOCAL:
                return LocalRemover((store.path or Path()).expanduser().absolute(), subject)
            case ArtifactScheme.AZURE if is_lake(store):
                return LakeRemover(store, self._environ, subject)
            case ArtifactScheme.S3 | ArtifactScheme.GCS | ArtifactScheme.AZURE:
                return ObjectRemover(open_bucket(store, self._environ, subject))
            case ArtifactScheme.PROXY:
                return ThroughServerRemover(store.bucket, self._environ)
            case _:
                scheme = store.text.partition(":")[0]
                raise SettingsError(
                    [f"{subject}: gc cannot remove artifacts from {scheme}:"],
                    hint="nothing was touched; mlflow gc can collect there",
                )

    def _subject(self, store: ArtifactUri) -> str:
        """What messages about a store begin with."""
        if _key(store) == _key(self._destination):
            return f"{SETTING}: {self._destination.shown}"
        scheme = store.text.partition(":")[0]
        return f"{scheme}://{store.bucket}" if store.bucket else store.shown


def _key(store: ArtifactUri) -> tuple[str, str]:
    """The same for places that are in one store."""
    if store.scheme is ArtifactScheme.LOCAL:
        return store.scheme, str(store.path)
    return store.text.partition(":")[0].lower(), store.bucket
