"""Which columns say where artifacts are, and what they become somewhere else. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlflow_server.artifacts.locations import PROXIED, normalised
from mlflow_server.store.tables import Table

Row: TypeAlias = Sequence[Any]

# Everything of an experiment lies below its location, unless it says otherwise itself.
_CONTAINERS = {
    "experiments": ("artifact_location",),
    "workspaces": ("default_artifact_root", "trace_archival_location"),
}
_LOCATIONS = {
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
# MLflow 3.17.2 `utils/mlflow_tags.py`, `tracing/constant.py`.
_TAGS = {
    "trace_tags": ("key", "value", ("mlflow.artifactLocation", "mlflow.trace.archiveLocation"))
}
# Of a model version: they name a run or a logged model, whose own location it is.
_BY_NAME = ("runs:", "models:")
# What MLflow 3.17.2 has for a source where there is none: of deleted versions
# (model_registry/sqlalchemy_store.py), of versions of prompts (prompt/constants.py).
_PLACEHOLDERS = ("REDACTED-SOURCE-PATH", "dummy-source", "prompt-template")


@dataclass(frozen=True)
class Place:
    """A location in a row.

    Args:
        location: As the row has it.
        is_container: Others lie below it; by itself it says of no file that it is needed.
    """

    location: str
    is_container: bool


def places_of(table: Table) -> Callable[[Row], Iterator[Place]] | None:
    """What finds the locations in a row of a table; None for a table that has none."""
    columns = _columns(table)
    if columns is None:
        return None
    plain, tag, is_container = columns

    def find(row: Row) -> Iterator[Place]:
        indexes = plain if tag is None or row[tag[0]] in tag[1] else ()
        for index in indexes:
            location = row[index]
            # An archive may have anything in a column.
            if isinstance(location, str) and location and not _is_placeholder(location):
                yield Place(location, is_container)

    return find


def moving(table: Table, move: Callable[[str], str]) -> Callable[[Row], Row] | None:
    """What replaces the locations in a row of a table; None for a table that has none.

    Args:
        table: Whose rows they are.
        move: What becomes of a location.
    """
    columns = _columns(table)
    if columns is None:
        return None
    plain, tag, _ = columns

    def replace(row: Row) -> Row:
        if tag is not None and row[tag[0]] not in tag[1]:
            return row
        moved = list(row)
        for index in plain:
            if isinstance(moved[index], str):
                moved[index] = move(moved[index])
        return moved

    return replace


def _is_placeholder(location: str) -> bool:
    """True for what says of no place where artifacts are."""
    return location in _PLACEHOLDERS or location.startswith(_BY_NAME)


def _columns(
    table: Table,
) -> tuple[tuple[int, ...], tuple[int, tuple[str, ...]] | None, bool] | None:
    """Indexes of the columns; of tags, which index has to be one of which; whether containers."""
    names = [column.name for column in table.columns]
    if table.name in _TAGS:
        key, value, keys = _TAGS[table.name]
        return (names.index(value),), (names.index(key), keys), False
    for found, is_container in ((_CONTAINERS, True), (_LOCATIONS, False)):
        if table.name in found:
            wanted = found[table.name]
            # `storage_location` came with MLflow 2.6, logged models with 3.0.
            return tuple(map(names.index, filter(names.__contains__, wanted))), None, is_container
    return None


class Moves:
    """Where artifacts go that were somewhere: prefixes of locations, the longest one first.

    Args:
        pairs: From and to, both written as in rows.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        known = [(normalised(old), new.rstrip("/")) for old, new in pairs]
        self._pairs = sorted(known, key=lambda pair: len(pair[0]), reverse=True)

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __call__(self, location: str) -> str:
        """What becomes of a location in a row; one that no prefix fits stays as it is."""
        plain = normalised(location)
        for old, new in self._pairs:
            if _lies_in(plain, old):
                below = plain[len(old) :]
                return new + (as_location(below) if _is_local(new) else below)
        return location

    def place(self, plain: str) -> str:
        """What becomes of a place in the form that locations are compared in."""
        for old, new in self._pairs:
            if _lies_in(plain, old):
                return normalised(new) + plain[len(old) :]
        return plain

    def targets(self) -> Iterator[str]:
        """Where artifacts may go."""
        for _, new in self._pairs:
            yield new


def _lies_in(plain: str, above: str) -> bool:
    return plain == above or plain.startswith(above.rstrip("/") + "/")


def _is_local(location: str) -> bool:
    scheme, separator, _ = location.partition(":")
    return not separator or scheme.lower() == "file"


def as_location(plain: str) -> str:
    """A place as rows have it: MLflow takes what is a path for a URI and decodes it.

    Args:
        plain: A path that is decoded, or the URI of an object store, where nothing is encoded.

    Source: MLflow 3.17.2 `utils/file_utils.py` `local_file_uri_to_path`.
    """
    return plain.replace("%", "%25") if _is_local(plain) else plain


def is_proxied(location: str) -> bool:
    """True for a location that only says where artifacts are below the destination."""
    return normalised(location).startswith(PROXIED)
