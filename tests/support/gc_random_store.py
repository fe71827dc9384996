"""Stores as pure data: what is in them, and the files that they have.

Addresses are written with `/DESTINATION` for the folder that `mlflow-artifacts:/` stands for and
`/SECOND` for another one; whoever lays the files puts the real folders there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

DESTINATION, SECOND = "/DESTINATION", "/SECOND"
HOUR_MS = 3_600_000
# What an experiment can have that has rows but no files.
EXTRAS = (
    "tags",
    "labels",
    "queue",
    "scorer",
    "guardrail",
    "endpoint",
    "rollups",
    "evaluation",
    "unused dataset",
)


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Args:
        id: As in the database.
        location: Its `artifact_location`; what is in it has its files below that.
        deleted: Its lifecycle stage.
        age_h: How long ago it was changed last, hours; None when no time was written.
        extras: Of `EXTRAS`.
        datasets: How many it has that runs may use as inputs.
        orphan: Whether there are files of nothing in its folder.
    """

    id: int
    location: str
    deleted: bool = False
    age_h: int | None = 0
    extras: frozenset[str] = frozenset()
    datasets: int = 0
    orphan: bool = False


@dataclass(frozen=True)
class Entity:
    """A run, a logged model or a trace.

    Args:
        id: As in the database.
        experiment: The one it is in.
        location: Where its files are; None when the database does not know.
        deleted: Its lifecycle stage; traces have none.
        age_h: How long ago it was deleted, hours; None when no time was written.
        files: Below its location, `()` for an empty folder, None for no folder.
        stray: Whether a file lies beside its folder of artifacts, which is not in its location.
        archive: Where else it has files: traces that were archived.
        parts: How many metrics, params, tags, spans … it has.
    """

    id: str
    experiment: int
    location: str | None
    deleted: bool = False
    age_h: int | None = 0
    files: tuple[str, ...] | None = ()
    stray: bool = False
    archive: str | None = None
    parts: int = 1


@dataclass(frozen=True)
class Run(Entity):
    """A run.

    Args:
        datasets: Which of its experiment's it has as inputs.
    """

    datasets: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Model(Entity):
    """A logged model.

    Args:
        source_run: The run that logged it, as far as it says so.
    """

    source_run: str | None = None


@dataclass(frozen=True)
class Trace(Entity):
    """A trace.

    Args:
        runs: It is linked to, of whatever experiment.
    """

    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """Between a run and a logged model.

    Args:
        kind: `input`, `output` or `metric`.
    """

    kind: str
    run: str
    model: str


@dataclass(frozen=True)
class Issue:
    """An issue, found by a run of whatever experiment."""

    experiment: int
    run: str | None


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Args:
        stage: `Deleted_Internal` when it is deleted.
    """

    stage: str | None
    run_id: str | None = None
    source: str | None = None
    storage_location: str | None = None

    @property
    def is_live(self) -> bool:
        """Not deleted."""
        return self.stage != "Deleted_Internal"


@dataclass(frozen=True)
class Store:
    """Everything."""

    experiments: tuple[Experiment, ...]
    runs: tuple[Run, ...] = ()
    models: tuple[Model, ...] = ()
    traces: tuple[Trace, ...] = ()
    links: tuple[Link, ...] = ()
    issues: tuple[Issue, ...] = ()
    versions: tuple[Version, ...] = ()

    @property
    def entities(self) -> tuple[Entity, ...]:
        """What has files."""
        return (*self.runs, *self.models, *self.traces)

    def files(self) -> list[File]:
        """Every file and every folder that has none."""
        return list(_files(self))


@dataclass(frozen=True)
class File:
    """A file, or an empty folder.

    Args:
        path: `/DESTINATION/…` or `/SECOND/…`.
        owner: It goes with this; None stays whatever happens.
        folder: What goes with it when nothing else is in there.
        is_folder: An empty one.
    """

    path: str
    owner: str | None = None
    folder: str | None = None
    is_folder: bool = False


def new_id(*parts: object) -> str:
    """32 hexadecimal digits, the same for the same parts."""
    return uuid.uuid5(uuid.NAMESPACE_OID, "-".join(map(str, parts))).hex


def place_of(address: str | None) -> str | None:
    """The path that an address means, without superfluous slashes; None when it is elsewhere.

    Args:
        address: `mlflow-artifacts:/…`, with or without a server, `file:///…` or a path.
    """
    if not address:
        return None
    if address.startswith("mlflow-artifacts:"):
        path = DESTINATION + re.sub(r"^mlflow-artifacts:(//[^/]+)?/*", "/", address)
    elif address.startswith("file:"):
        path = unquote(address.removeprefix("file://"))
    elif address.startswith("/"):
        path = address
    else:
        return None
    return "/" + "/".join(part for part in path.split("/") if part)


def as_file_uri(path: str) -> str:
    """The path as MLflow writes it when it was given as a `file:` URI."""
    return "file://" + quote(path)


def _files(store: Store) -> Iterator[File]:
    yield File(f"{DESTINATION}/of nobody/kept.txt")
    yield File(f"{SECOND}/of nobody/kept.txt")
    for experiment in store.experiments:
        if experiment.orphan:
            above = place_of(experiment.location)
            yield File(f"{above}/{new_id('orphan', experiment.id)}/artifacts/orphan.txt")
            yield File(f"{above}/models/m-{new_id('orphan', experiment.id)}/artifacts/o.txt")
    for entity in store.entities:
        for address in filter(None, (entity.location, entity.archive)):
            place = place_of(address)
            assert place is not None
            folder = place.removesuffix("/artifacts")
            if entity.stray:
                yield File(f"{folder}/stray.txt")
            if entity.files == ():
                yield File(place, entity.id, folder, is_folder=True)
            for name in entity.files or ():
                yield File(f"{place}/{name}", entity.id, folder)
