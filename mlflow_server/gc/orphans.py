"""Folders of the destination's own layout that no row knows: listed, and removed when asked for.

Only `EXPERIMENT/RUN`, `EXPERIMENT/models/m-…` and `EXPERIMENT/traces/tr-…` are looked at, below the
destination and below its `workspaces/NAME`; whatever else lies there is nobody's business here.
"""

# ruff: noqa: S608 - statements are put together from constants only

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import SettingsError
from mlflow_server.gc import journal
from mlflow_server.gc.ids import Ids
from mlflow_server.store.engine import connect
from mlflow_server.store.lock import exclusive
from mlflow_server.uris import ArtifactUri, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE = 500
_WORKSPACES = "workspaces"
_EXPERIMENT = re.compile(r"[0-9]{1,19}")
_RUN = re.compile(r"[0-9a-f]{32}")
# Folder in an experiment's -> what the ids in it look like.
_BELOW = {"models": re.compile(r"m-[0-9a-f]{32}"), "traces": re.compile(r"tr-[0-9a-f]+")}
_TABLES = (("runs", "run_uuid"), ("logged_models", "model_id"), ("trace_info", "request_id"))


@dataclass(frozen=True)
class Orphan:
    """One folder that no row knows.

    Args:
        parts: From the destination down; the last one is an entity's id.
        files: In it.
        size_bytes: All of them together.
        error: Why it could not be looked at or removed.
    """

    parts: tuple[str, ...]
    files: int = 0
    size_bytes: int = 0
    error: str | None = None


@dataclass
class Orphans:
    """What a look at the destination has found.

    Args:
        found: Orphans older than the grace time.
        known: Folders that rows know.
        younger: Folders that no row knows, written to within the grace time.
    """

    found: list[Orphan] = field(default_factory=list)
    known: int = 0
    younger: int = 0


def find_orphans(
    store: StoreUri, destination: ArtifactUri, environ: Mapping[str, str], grace_s: float
) -> Orphans:
    """Look for them; nothing is changed.

    Args:
        store: Whose rows know folders.
        destination: Where to look.
        environ: Where the object store's credentials are.
        grace_s: What was written to within this time is left out, seconds.

    Raises:
        OpsError: Store or destination cannot be read.
    """
    with contextlib.closing(Removers(destination, environ)) as removers:
        return _find(store, removers, grace_s)


def delete_orphans(
    store: StoreUri, destination: ArtifactUri, environ: Mapping[str, str], grace_s: float
) -> Orphans:
    """Look for them under the store's lock, and remove them.

    Args:
        store: Whose rows know folders.
        destination: Where to look.
        environ: Where the object store's credentials are.
        grace_s: What was written to within this time stays, seconds.

    Returns:
        What is gone, or why it is not.

    Raises:
        BusyError: Another operation holds the store's lock.
        SettingsError: No row knows any folder: it will be another server's destination.
        OpsError: Store or destination cannot be read.
    """
    with (
        exclusive(store, "gc --orphans=delete"),
        contextlib.closing(Removers(destination, environ)) as removers,
    ):
        orphans = _find(store, removers, grace_s)
        if orphans.found and not orphans.known:
            raise SettingsError(
                [
                    f"MLFLOW_ARTIFACTS_DESTINATION: {destination.shown}: no row of the store knows "
                    f"any of the {len(orphans.found)} folders there: perhaps another server's do"
                ],
                hint="nothing was touched; when you are sure, remove them by hand",
            )
        removed = iter(removers.remove_below([orphan.parts for orphan in orphans.found]))
        orphans.found = [
            replace(orphan, error=result) if isinstance(result := next(removed), str) else orphan
            for orphan in orphans.found
        ]
    return orphans


def _find(store: StoreUri, removers: Removers, grace_s: float) -> Orphans:
    orphans = Orphans()
    before = time.time() - grace_s
    folders = _folders(removers)
    while page := list(islice(folders, _PAGE)):
        # After the folders: a run's row is there before its first file.
        with connect(store) as connection:
            known = _known(connection, [parts[-1] for parts in page])
        unknown = [parts for parts in page if parts[-1] not in known]
        orphans.known += len(page) - len(unknown)
        for parts, found in zip(unknown, removers.measure_below(unknown), strict=True):
            if isinstance(found, str):
                orphans.found.append(Orphan(parts, error=found))
            elif found.newest_s is None:
                # The trace of a folder in an object store, or a server that tells no times.
                orphans.younger += found.files > 0
            elif found.newest_s > before:
                orphans.younger += 1
            else:
                orphans.found.append(Orphan(parts, found.files, found.size_bytes))
    return orphans


def _folders(removers: Removers) -> Iterator[tuple[str, ...]]:
    """Folders that should be an entity's, from the destination down."""
    yield from _below_root(removers, ())
    for workspace in removers.folders((_WORKSPACES,)):
        yield from _below_root(removers, (_WORKSPACES, workspace))


def _below_root(removers: Removers, root: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for experiment in removers.folders(root):
        if not _EXPERIMENT.fullmatch(experiment):
            continue
        inside = (*root, experiment)
        for name in removers.folders(inside):
            if _RUN.fullmatch(name):
                yield (*inside, name)
            elif pattern := _BELOW.get(name):
                for entity in removers.folders((*inside, name)):
                    if pattern.fullmatch(entity):
                        yield (*inside, name, entity)


def _known(connection: "Connection", ids: list[str]) -> set[str]:
    """Those that a row knows, or the journal: its folders go by themselves."""
    tables = list(_TABLES)
    if journal.exists(connection):
        tables.append((journal.TABLE, "entity_id"))
    bound = Ids("ids", "IN :ids", {"ids": ids})
    known: set[str] = set()
    for table, column in tables:
        query = f"SELECT {column} FROM {table} WHERE {column} IN {{ids}}"
        known.update(bound.execute(connection, query).scalars())
    return known
