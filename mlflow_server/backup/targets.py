"""Where a restore or a migration goes: empty, or begun by the same one before."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow_server.artifacts.files import Files, LocalFiles
from mlflow_server.errors import OpsError, PermissionDeniedError, UnavailableError
from mlflow_server.store.engine import sqlite_path
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import SchemaState, read_store_status
from mlflow_server.units import render_size
from mlflow_server.uris import StoreUri

# At the destination while it is being filled: says from what.
_MARKER = ".mlflow-server-filling.json"
# Names at a destination that are nobody's artifacts.
_OURS = (_MARKER, ".gc-trash")


def is_empty(uri: StoreUri) -> bool:
    """True for a store without tables."""
    return read_store_status(uri).state is SchemaState.EMPTY


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
            raise PermissionDeniedError(
                f"{uri.shown}: the folder {folder} cannot be made: {err.strerror}"
            ) from None
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
        if self._files.find(_MARKER) is None:
            return False
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return bool(json.loads(self._files.read(_MARKER))["from"] == self._origin)
        return False

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
        """Mark it as being filled."""
        document = json.dumps({"from": self._origin}).encode()
        self._files.write(_MARKER, document, len(document), durable=True)

    def settle(self) -> None:
        """Have everything reach a local disk, before rows say that it is there."""
        if isinstance(self._files, LocalFiles) and Path(self._files.root).exists():
            os.sync()

    def end(self) -> None:
        """It is filled."""
        self._files.remove([_MARKER])
