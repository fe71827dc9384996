"""Where the artifacts of an entity lie: from MLflow's location to a path or a key prefix. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_server.errors import BadInputError
from mlflow_server.uris import ArtifactScheme, ArtifactUri, parse_artifacts_destination


@dataclass(frozen=True)
class Place:
    """A folder, or all keys with a prefix, that is one entity's and no other's.

    What goes is at its end; the folder of the id goes along when there is nothing else in it.

    Args:
        store: The destination or own location that it is in.
        parts: From the root of the store down to the folder; the last one is the entity's id.
        inside: From there to the end of the location.
    """

    store: ArtifactUri
    parts: tuple[str, ...]
    inside: tuple[str, ...] = ()

    @property
    def end(self) -> tuple[str, ...]:
        """From the root of the store to the end of the location."""
        return (*self.parts, *self.inside)


def place_of(location: str, entity_id: str, destination: ArtifactUri) -> Place:
    """Find the place of an entity's artifacts.

    Args:
        location: As MLflow kept it: `mlflow-artifacts:/…`, a path or a URI.
        entity_id: Has to be one of the folders in the location: nothing else is ever removed.
        destination: What `mlflow-artifacts:/` stands for. When it is a tracking server itself and
            the location names another one, that is the store.

    Raises:
        BadInputError: The location cannot be one of this entity alone.

    Source: MLflow 3.17.2 server/handlers.py `_get_workspace_scoped_repo_path_if_enabled`: a
    location of a workspace begins with `workspaces/NAME`, as does its path at the destination;
    those of the workspace `default` have neither.
    """
    try:
        uri = parse_artifacts_destination(location, plugin_schemes=frozenset())
    except ValueError as err:
        raise BadInputError(f"the location {err}") from None
    store, parts = _split(uri, destination)
    if not {".", ".."}.isdisjoint(parts):
        raise BadInputError("the location leads out of itself by '..'")
    if any("\0" in part for part in parts):
        raise BadInputError("the location has a NUL in it")
    if entity_id not in parts:
        raise BadInputError(f"the location names no folder of {entity_id}")
    below = parts.index(entity_id) + 1
    return Place(store, parts[:below], parts[below:])


def place_below(parts: Sequence[str], destination: ArtifactUri) -> Place:
    """The place of a folder of the destination that no location names.

    Args:
        parts: From the destination down to the folder.
        destination: Where it is.

    Raises:
        BadInputError: This is the destination itself, or leads out of it.
    """
    if not parts or not all(map(is_name, parts)):
        raise BadInputError(f"{'/'.join(parts)!r} is no folder of the destination")
    return Place(destination, (*root_of(destination), *parts))


def neighbours(places: Sequence[Place], at_once: int) -> Iterator[list[int]]:
    """Group places of one store by the folder that they are in.

    Args:
        places: In any order.
        at_once: How large a group is at most.

    Yields:
        The numbers of some places in the same folder, by name.
    """

    def above(number: int) -> tuple[str, ...]:
        return places[number].parts[:-1]

    order = sorted(range(len(places)), key=lambda number: places[number].parts)
    for _, group in groupby(order, key=above):
        while some := list(islice(group, at_once)):
            yield some


def is_name(part: str) -> bool:
    """True for what a folder can be called."""
    return part not in ("", ".", "..") and {"/", "\0"}.isdisjoint(part)


def root_of(store: ArtifactUri) -> tuple[str, ...]:
    """The way from the root of a store to what its URI names: the prefix, in object stores.

    Source: MLflow 3.17.2 decodes the path of `abfss:` (azure_data_lake_artifact_repo.py
    `_parse_abfss_uri`), and takes those of other object stores as they are, slash by slash.
    """
    if store.scheme is ArtifactScheme.LOCAL:
        return ()
    path = urlsplit(store.text).path
    if store.scheme is ArtifactScheme.PROXY:
        return _folders(unquote(path))
    if store.text.lower().startswith("abfss:"):
        path = "/" + unquote(path).lstrip("/")
    parts = path.removeprefix("/").split("/")
    return tuple(parts if parts[-1] else parts[:-1])


def _split(uri: ArtifactUri, destination: ArtifactUri) -> tuple[ArtifactUri, tuple[str, ...]]:
    """The store of a location, and the way down from its root."""
    match uri.scheme:
        case ArtifactScheme.PROXY:
            if destination.scheme is ArtifactScheme.PROXY and uri.bucket:
                return replace(destination, bucket=uri.bucket), root_of(uri)
            return destination, (*root_of(destination), *root_of(uri))
        case ArtifactScheme.LOCAL:
            path = (uri.path or Path()).expanduser()
            if not path.is_absolute():
                raise BadInputError("the location is a relative path: nobody can tell to what")
            return _ROOT, _folders(str(path))
        case ArtifactScheme.S3 | ArtifactScheme.GCS | ArtifactScheme.AZURE:
            return uri, root_of(uri)
        case _:
            raise BadInputError(f"artifacts at {uri.shown.partition(':')[0]}: cannot be removed")


_ROOT = ArtifactUri("/", ArtifactScheme.LOCAL, Path("/"), "", "", "/")


def _folders(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))
