"""Where a restore or a migration goes: empty, or begun by the same one before."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow_server.artifacts.files import Files, LocalFiles
from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.errors import OpsError, PermissionDeniedError, UnavailableError, UsageError
from mlflow_server.store.engine import sqlite_path
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import SchemaState, read_store_status, require_usable
from mlflow_server.store.snapshot import snapshot
from mlflow_server.units import render_size
from mlflow_server.uris import StoreUri

# At the destination while it is being filled: says from what.
_MARKER = ".mlflow-server-filling.json"
# Names at a destination that are nobody's artifacts.
_OURS = (_MARKER, ".gc-trash")


def is_empty(uri: StoreUri) -> bool:
    """True for a store without tables."""
    return read_store_status(uri).state is SchemaState.EMPTY


def require_replaceable(stores: Mapping[str, StoreUri]) -> None:
    """Raise when what is to be replaced is no store of MLflow's.

    Raises:
        SchemaError: It is not.
    """
    for uri in stores.values():
        status = read_store_status(uri)
        if status.state in (SchemaState.FOREIGN, SchemaState.BROKEN):
            require_usable(status, uri)


@contextmanager
def locked(uri: StoreUri, command: str) -> Iterator[None]:
    """Hold the lock of a store that may not be there yet.

    Raises:
        BusyError: Another operation holds it.
        OpsError: The store cannot be reached, or its folder cannot be made.
    """
    if uri.is_sqlite:
        folder = sqlite_path(uri).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise explain(uri.shown, str(folder), err, writes=True) from None
    with exclusive(uri, command):
        yield


def require_empty_stores(stores: Mapping[str, StoreUri]) -> None:
    """Raise when a store that is to be filled has something in it.

    Raises:
        OpsError: It has.
    """
    for uri in stores.values():
        if not is_empty(uri):
            raise OpsError(
                f"{uri.shown}: the store is not empty",
                hint="restore into an empty one, or with --replace; "
                f"{uri.setting} says which one is meant",
            )


def require_different(source: StoreUri, target: StoreUri) -> None:
    """Raise when two URIs mean one database, as far as they tell; its lock tells the rest.

    Raises:
        UsageError: They do.
    """
    if is_same(source, target):
        raise UsageError(
            f"{target.shown}: source and target are the same database",
            hint="name another, empty one: --to-backend-store-uri",
        )


def is_same(one: StoreUri, other: StoreUri) -> bool:
    """True when two URIs mean one database, as far as they tell."""
    return _identity(one) == _identity(other)


def _identity(uri: StoreUri) -> tuple[object, ...]:
    from sqlalchemy.engine.url import make_url

    if uri.is_sqlite:
        return (sqlite_path(uri),)
    url = make_url(uri.text)
    host = url.host or url.query.get("host") or "localhost"
    return uri.dialect, host, str(url.port or url.query.get("port")), url.database


# By what a database is, and by table.
Rows = Mapping[str, Mapping[str, int]]


class Arrival:
    """The artifact destination of a restore or a migration.

    Args:
        files: The destination.
        shown: Its name, without credentials.
        origin: What the artifacts come from: the same again goes on where it stopped.
    """

    def __init__(self, files: Files, shown: str, origin: str) -> None:
        self._files = files
        self._shown = shown
        self._origin = origin

    def is_resumed(self) -> bool:
        """True when the same was begun here before."""
        return self._read().get("from") == self._origin

    def filled(self, stores: Mapping[str, StoreUri]) -> dict[str, dict[str, int]]:
        """The databases that this has filled before it was stopped, with their rows by table."""
        rows: dict[str, dict[str, int]] = self._read().get("rows") or {}
        return {
            name: rows[name]
            for name, uri in stores.items()
            if name in rows and self.is_resumed() and _has(uri, rows[name])
        }

    def require_empty(self) -> None:
        """Raise when there are files that are not of this.

        Raises:
            OpsError: There are.
        """
        for file in self._files.walk():
            if file.path.partition("/")[0] not in _OURS:
                raise OpsError(
                    f"{self._shown}: the artifact destination is not empty",
                    hint="name an empty one in MLFLOW_ARTIFACTS_DESTINATION; "
                    "--no-artifacts leaves artifacts alone",
                )
            if file.path == _MARKER:
                raise OpsError(
                    f"{self._shown}: another restore into this destination has not ended",
                    hint="run that one again, or empty the destination",
                )

    def require_space(self, size_bytes: int) -> None:
        """Raise when a local disk cannot hold so much.

        Raises:
            UnavailableError: It cannot.
        """
        if not isinstance(self._files, LocalFiles):
            return
        path = self._files.root
        while not path.exists():
            path = path.parent
        free = shutil.disk_usage(path).free
        if free < size_bytes:
            raise UnavailableError(
                f"{self._shown}: the disk has {render_size(free)} free, "
                f"the artifacts need {render_size(size_bytes)}",
                hint="make room, or name another destination",
            )
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionDeniedError(f"{self._shown}: cannot write there")

    def begin(self) -> None:
        """Mark it as being filled, unless it is marked so already."""
        if isinstance(self._files, LocalFiles):
            self._files.remove_leftovers()
        if not self.is_resumed():
            self._write({"from": self._origin})

    def note_rows(self, rows: Rows) -> None:
        """Mark that the databases will have these rows in a moment, and that nothing else lacks.

        Whoever finds them filled, and the mark, knows that only the mark is left to be removed.
        """
        self._write({"from": self._origin, "rows": {name: dict(of) for name, of in rows.items()}})

    def settle(self) -> None:
        """Have everything reach a local disk, before rows say that it is there."""
        if isinstance(self._files, LocalFiles) and Path(self._files.root).exists():
            os.sync()

    def end(self) -> None:
        """It is filled."""
        self._files.remove([_MARKER])

    def _write(self, document: Mapping[str, Any]) -> None:
        content = json.dumps(document).encode()
        self._files.write(_MARKER, content, len(content), durable=True)

    def _read(self) -> dict[str, Any]:
        if self._files.find(_MARKER) is None:
            return {}
        try:
            document = json.loads(self._files.read(_MARKER))
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


def _has(uri: StoreUri, rows: Mapping[str, int]) -> bool:
    """Whether a store has at least these rows; an upgrade may have renamed a table."""
    if is_empty(uri):
        return False
    with snapshot(uri) as shot:
        return all(shot.count(t) >= rows[t.name] for t in shot.tables if t.name in rows)
