"""The backups at a place: list them, begin one, make it visible, forget one."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.artifacts.files import Files, LocalFiles
from mlflow_server.backup.format import (
    MANIFEST,
    PACKS,
    SUMS,
    UNFINISHED,
    Manifest,
    is_id,
    read_manifest,
    read_sums,
    render_sums,
    sha256,
)
from mlflow_server.backup.reading import read_lines
from mlflow_server.errors import BadInputError, BusyError, OpsError, UnavailableError

_LOCK = f"{PACKS}/lock"
_MARKER = f"{PACKS}/writing.json"
_RENEWED_EVERY_S = 60.0
_COUNTS_FOR_S = 600.0


@dataclass(frozen=True)
class Backup:
    """A backup at a place.

    Args:
        id: Name of its folder.
        manifest: None when it cannot be read.
        problem: Why it cannot.
    """

    id: str
    manifest: Manifest | None
    problem: str | None = None


class Shelf:
    """A place with backups.

    Args:
        files: The folder or prefix.
        shown: Its name in messages, without credentials.
    """

    def __init__(self, files: Files, shown: str) -> None:
        self.files = files
        self.shown = shown
        # A local one, where files can be moved and locked.
        self.folder = files.root if isinstance(files, LocalFiles) else None

    # --- Reading ---------------------------------------------------------------------------------

    def backups(self) -> list[Backup]:
        """All complete backups, oldest first."""
        found = []
        for name in sorted(filter(is_id, self.files.folders())):
            if self.files.find(f"{name}/{SUMS}") is None:
                continue
            try:
                found.append(Backup(name, self.manifest(name)))
            except BadInputError as err:
                found.append(Backup(name, None, err.message))
        return found

    def manifest(self, backup_id: str) -> Manifest:
        """The manifest of a backup.

        Raises:
            BadInputError: It is damaged, or of a newer format.
            UnavailableError: There is no such backup.
        """
        sums = self.sums(backup_id)
        shown = f"{self.shown}/{backup_id}/{MANIFEST}"
        if self.files.find(f"{backup_id}/{MANIFEST}") is None:
            raise BadInputError(f"{shown}: is missing")
        content = self.files.read(f"{backup_id}/{MANIFEST}")
        if sums.get(MANIFEST) != sha256(content):
            raise BadInputError(f"{shown}: is damaged: its checksum is another one")
        manifest = read_manifest(content, shown)
        if manifest.id != backup_id:
            raise BadInputError(f"{shown}: is that of {manifest.id}")
        return manifest

    def sums(self, backup_id: str) -> dict[str, str]:
        """The checksums of a backup's files.

        Raises:
            BadInputError: They are damaged.
            UnavailableError: There is no such backup.
        """
        if self.files.find(f"{backup_id}/{SUMS}") is None:
            raise UnavailableError(
                f"{self.shown}: there is no backup {backup_id}",
                hint="mlflow-server backup list shows what there is",
            )
        content = self.files.read(f"{backup_id}/{SUMS}")
        return read_sums(content, f"{self.shown}/{backup_id}/{SUMS}")

    def lines(self, backup_id: str, name: str) -> Iterator[bytes]:
        """The lines of a compressed file of a backup.

        Raises:
            BadInputError: It is damaged; what was read so far is not to be trusted.
        """
        path = f"{backup_id}/{name}"
        digest = self.sums(backup_id).get(name)
        if digest is None or self.files.find(path) is None:
            raise BadInputError(f"{self.shown}/{path}: is missing")
        with self.files.open(path) as reader:
            yield from read_lines(reader, digest, f"{self.shown}/{path}")

    # --- Writing ---------------------------------------------------------------------------------

    @contextmanager
    def exclusive(self, command: str) -> Iterator[None]:
        """Keep others from adding or removing backups here.

        Args:
            command: What does it, for whoever finds it busy.

        Raises:
            BusyError: Somebody else is at it.
        """
        lock = (
            self._mark(command) if self.folder is None else _lock_folder(self, self.folder, command)
        )
        with lock:
            yield

    @contextmanager
    def stage(self, backup_id: str) -> Iterator["Stage"]:
        """Begin a backup; what is not published is gone afterwards."""
        if self.folder is None:
            with tempfile.TemporaryDirectory(prefix="mlflow-server-backup-") as folder:
                yield Stage(self, backup_id, Path(folder))
            return
        hidden = self.folder / f"{UNFINISHED}{backup_id}"
        hidden.mkdir(parents=True)
        try:
            yield Stage(self, backup_id, hidden)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def remove(self, backup_id: str) -> None:
        """Forget a backup: from the first moment on it is none, whatever happens then."""
        if self.folder is not None:
            hidden = self.folder / f"{UNFINISHED}{backup_id}"
            (self.folder / backup_id).rename(hidden)
            shutil.rmtree(hidden)
        else:
            self.files.remove([f"{backup_id}/{SUMS}"])
            self.files.remove_tree(backup_id)

    def sweep(self) -> tuple[int, int]:
        """Remove what belongs to no complete backup: leftovers, and packs that nobody needs.

        Returns:
            How many packs went, and how many bytes.

        Raises:
            BadInputError: The manifest of a backup cannot be read, so that nobody can tell.
        """
        backups = self.backups()
        for backup in backups:
            if backup.manifest is None:
                raise BadInputError(
                    f"{backup.problem}: nobody can tell which packs it needs, so none is removed",
                    hint=f"mlflow-server backup verify {backup.id}; remove its folder by hand",
                )
        complete = {backup.id for backup in backups}
        if self.folder is not None:
            for leftover in self.folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(leftover)
        else:
            for name in self.files.folders():
                if is_id(name) and name not in complete:
                    self.files.remove_tree(name)
        needed = {
            pack.file for backup in backups if backup.manifest for pack in backup.manifest.packs
        }
        gone = [
            file
            for file in self.files.walk(PACKS)
            if file.path not in (_LOCK, _MARKER)
            and file.path.removeprefix(f"{PACKS}/") not in needed
        ]
        self.files.remove([file.path for file in gone])
        if self.folder is not None:
            for path in (self.folder / PACKS).glob("*/"):
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()
        return len(gone), sum(file.size_bytes for file in gone)

    @contextmanager
    def _mark(self, command: str) -> Iterator[None]:
        """Object stores have no locks: a marker that is renewed counts for ten minutes."""
        mine = f"{command} on {socket.gethostname()}, process {os.getpid()}"
        if self.files.find(_MARKER) is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError, OpsError):
                other = json.loads(self.files.read(_MARKER))
                if time.time() - float(other["at_s"]) < _COUNTS_FOR_S and other["by"] != mine:
                    raise self.busy(str(other["by"])[:200])
        ended = threading.Event()

        def renew() -> None:
            document = json.dumps({"by": mine, "at_s": time.time()}).encode()
            self.files.write(_MARKER, [document], len(document))

        def keep_renewing() -> None:
            while not ended.wait(_RENEWED_EVERY_S):
                with contextlib.suppress(OpsError):  # the next one may go well
                    renew()

        renew()
        thread = threading.Thread(target=keep_renewing, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(OpsError):
                self.files.remove([_MARKER])

    def busy(self, holder: str) -> BusyError:
        """What to say when somebody else is at it."""
        return BusyError(
            f"{self.shown}: somebody else is changing the backups here: {holder}",
            hint="wait until it has ended, then try again",
        )


@contextmanager
def _lock_folder(shelf: Shelf, folder: Path, command: str) -> Iterator[None]:
    path = folder / _LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise shelf.busy(file.read(200).strip() or "another process") from None
        file.truncate(0)
        file.write(f"{command} on {socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        yield


class Stage:
    """A backup that is being made.

    Args:
        shelf: Where it will be.
        backup_id: Its name.
        folder: Where its files are written: what has been kept is no longer there.
    """

    def __init__(self, shelf: Shelf, backup_id: str, folder: Path) -> None:
        self._shelf = shelf
        self._id = backup_id
        self.folder = folder
        self._sums: dict[str, str] = {}

    def keep_pack(self, path: Path, name: str) -> None:
        """Put a finished pack where packs are."""
        self._keep(path, f"{PACKS}/{name}")

    def keep(self, name: str, digest: str) -> None:
        """Note that a file of the folder belongs to the backup.

        Args:
            name: Relative to the folder.
            digest: SHA-256 of its content, hexadecimal.
        """
        self._sums[name] = digest
        if self._shelf.folder is None:
            self._keep(self.folder / name, f"{self._id}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Make a small file of the backup."""
        (self.folder / name).write_bytes(content)
        self.keep(name, sha256(content))

    def publish(self) -> None:
        """Make it a backup, all of it in one step."""
        sums = render_sums(self._sums)
        root = self._shelf.folder
        if root is None:
            self._shelf.files.write(f"{self._id}/{SUMS}", [sums], len(sums))
            return
        (self.folder / SUMS).write_bytes(sums)
        for path in sorted(self.folder.rglob("*")):
            _sync(path)
        _sync(self.folder)
        self.folder.rename(root / self._id)
        _sync(root)

    def _keep(self, path: Path, name: str) -> None:
        folder = self._shelf.folder
        if folder is None:
            with path.open("rb") as file:
                self._shelf.files.write(name, file, path.stat().st_size)
            path.unlink()
            return
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(path)
        path.rename(target)
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
