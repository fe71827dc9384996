"""Where the artifacts of an entity lie: from MLflow's location to a path or a key prefix. Pure."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mlflow_server.errors import BadInputError
from mlflow_server.uris import ArtifactScheme, ArtifactUri, parse_artifacts_destination


@dataclass(frozen=True)
class Place:
    """A folder, or all keys with a prefix, that is one entity's and no other's.

    Args:
        store: The destination or own location that it is in.
        parts: From the root of the store down to the folder; the last one is the entity's id.
    """

    store: ArtifactUri
    parts: tuple[str, ...]


def place_of(location: str, entity_id: str, destination: ArtifactUri) -> Place:
    """Find the place of an entity's artifacts.

    Args:
        location: As MLflow kept it: `mlflow-artifacts:/…`, a path or a URI.
        entity_id: Has to be one of the folders in the location: nothing else is ever removed.
        destination: What `mlflow-artifacts:/` stands for.

    Raises:
        BadInputError: The location cannot be one of this entity alone.
    """
    try:
        uri = parse_artifacts_destination(location, plugin_schemes=frozenset())
    except ValueError as err:
        raise BadInputError(f"the location {err}") from None
    store, parts = _split(uri, destination)
    if ".." in parts or "." in parts:
        raise BadInputError("the location leads out of itself by '..'")
    if entity_id not in parts:
        raise BadInputError(f"the location names no folder of {entity_id}")
    return Place(store, parts[: parts.index(entity_id) + 1])


def _split(uri: ArtifactUri, destination: ArtifactUri) -> tuple[ArtifactUri, tuple[str, ...]]:
    """The store of a location, and the way down from its root."""
    match uri.scheme:
        case ArtifactScheme.PROXY:
            inside = _parts(unquote(urlsplit(uri.text).path))
            return destination, (*_parts(destination.prefix), *inside)
        case ArtifactScheme.LOCAL:
            path = (uri.path or Path()).expanduser()
            if not path.is_absolute():
                raise BadInputError("the location is a relative path: nobody can tell to what")
            return _root_of(uri), path.parts[1:]
        case ArtifactScheme.S3 | ArtifactScheme.GCS | ArtifactScheme.AZURE:
            return uri, _parts(uri.prefix)
        case _:
            raise BadInputError(f"artifacts at {uri.shown.partition(':')[0]}: cannot be removed")


def _root_of(uri: ArtifactUri) -> ArtifactUri:
    return ArtifactUri("/", uri.scheme, Path("/"), "", "", "/")


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path).parts if part != "/")
