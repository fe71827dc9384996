"""The backups at a place: list them, begin one, forget one, remove what is left of others."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.artifacts.files import File, Files, LocalFiles, VanishedError
from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.backup.names import MANIFEST, PACKS, SUMS, UNFINISHED, is_id, read_sums, sha256
from mlflow_server.backup.reading import read_lines
from mlflow_server.backup.stage import Stage
from mlflow_server.backup.turn import LOCK, MARKER, Turn, taking_turn
from mlflow_server.errors import BadInputError, OpsError, UnavailableError
from mlflow_server.uris import ArtifactUri

if TYPE_CHECKING:
    from mlflow_server.backup.format import Manifest

# Manifests that are read at the same time.
_THREADS = 8
# Manifests of far more than a petabyte are smaller.
_LARGEST_DOCUMENT = 256 * 1024 * 1024


@dataclass(frozen=True)
class Backup:
    """A backup at a place.

    Args:
        id: Name of its folder.
        manifest: Without tables, as there may be many; None when it cannot be read.
        problem: Why it cannot.
        rows: How many there are in all tables.
    """

    id: str
    manifest: "Manifest | None"
    problem: str | None = None
    rows: int = 0

    def is_of(self, root: str) -> bool:
        """True when its artifacts are from a destination; see `ArtifactsEntry.root`."""
        artifacts = self.manifest.artifacts if self.manifest is not None else None
        return artifacts is not None and artifacts.root == root


class Shelf:
    """A place with backups.

    Args:
        files: The folder or prefix.
        uri: Where that is.

    Attributes:
        shown: Its name in messages, without credentials.
    """

    def __init__(self, files: Files, uri: ArtifactUri) -> None:
        self.files = files
        self.uri = uri
        self.shown = uri.shown.rstrip("/")
        # A local one, where files can be moved and locked.
        self.folder = files.root if isinstance(files, LocalFiles) else None
        # The checksums of the backup whose files are being read: they are many.
        self._read_of: tuple[str, dict[str, str]] = ("", {})

    # --- Reading ---------------------------------------------------------------------------------

    def backups(self) -> list[Backup]:
        """All complete backups, oldest first.

        On a disk they appear by one rename, so that one without checksums has lost them; in an
        object store it was never finished.
        """
        names = sorted(filter(is_id, self.files.folders()))
        with ThreadPoolExecutor(_THREADS) as pool:
            return [backup for backup in pool.map(self._look, names) if backup is not None]

    def _look(self, name: str) -> Backup | None:
        try:
            manifest = self.manifest(name)
            rows = sum(t.rows for entry in manifest.databases.values() for t in entry.tables)
            return Backup(name, manifest.without_tables(), rows=rows)
        except BadInputError as err:
            if self.folder is None and self.files.find(f"{name}/{SUMS}") is None:
                return None
            return Backup(name, None, err.message)

    def manifest(self, backup_id: str) -> "Manifest":
        """The manifest of a backup.

        Raises:
            BadInputError: It is damaged, or of a newer format.
            UnavailableError: There is no such backup.
        """
        # Not above: who only reads lines or writes packs has no use for it.
        from mlflow_server.backup.format import read_manifest

        sums = self.sums(backup_id)
        shown = f"{self.shown}/{backup_id}/{MANIFEST}"
        content = self._read_document(f"{backup_id}/{MANIFEST}")
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
        try:
            content = self._read_document(f"{backup_id}/{SUMS}")
        except BadInputError:
            if backup_id in self.files.folders():
                raise
            raise UnavailableError(
                f"{self.shown}: there is no backup {backup_id}",
                hint="mlflow-server backup list shows what there is",
            ) from None
        return read_sums(content, f"{self.shown}/{backup_id}/{SUMS}")

    def lines(self, backup_id: str, name: str) -> Iterator[list[bytes]]:
        """The lines of a compressed file of a backup, in short lists.

        Raises:
            BadInputError: It is damaged; what was read so far is not to be trusted.
        """
        path = f"{backup_id}/{name}"
        if backup_id != self._read_of[0]:
            self._read_of = (backup_id, self.sums(backup_id))
        digest = self._read_of[1].get(name)
        if digest is None or self.files.find(path) is None:
            raise BadInputError(f"{self.shown}/{path}: is missing")
        with self.files.open(path) as reader:
            yield from read_lines(reader, digest, f"{self.shown}/{path}")

    def packs(self) -> Iterator[File]:
        """All packs that are there, by their path from the place on, whoever needs them."""
        for file in self.files.walk(PACKS):
            if file.path not in (LOCK, MARKER):
                yield file

    def _read_document(self, path: str) -> bytes:
        try:
            with self.files.open(path) as reader:
                if reader.file.size_bytes > _LARGEST_DOCUMENT:
                    raise BadInputError(f"{self.shown}/{path}: is damaged: it is far too long")
                return reader.read()
        except VanishedError:
            raise BadInputError(f"{self.shown}/{path}: is missing") from None

    # --- Writing ---------------------------------------------------------------------------------

    def exclusive(self, command: str) -> AbstractContextManager[Turn]:
        """Keep others from adding or removing backups here.

        Args:
            command: What does it, for whoever finds it busy.

        Raises:
            BusyError: Somebody else is at it.
        """
        return taking_turn(self.files, self.shown, command)

    def taken_names(self) -> set[str]:
        """What no new backup may be called: packs of one that is gone may be needed still."""
        return {*self.files.folders(), *self.files.folders(PACKS)}

    @contextmanager
    def stage(self, backup_id: str) -> Iterator[Stage]:
        """Begin a backup; what is not published is gone afterwards.

        Raises:
            UnavailableError: The disk is full.
            PermissionDeniedError: It may not be written there.
        """
        with contextlib.ExitStack() as stack:
            if self.folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="mlflow-server-backup-")
                folder = Path(stack.enter_context(temporary))
            else:
                folder = self.folder / f"{UNFINISHED}{backup_id}"
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                yield Stage(self.files, self.shown, self.folder, backup_id, folder)
            except BaseException as err:
                self._abandon(backup_id)
                if isinstance(err, OSError):
                    raise explain(self.shown, os.fspath(folder), err, writes=True) from None
                raise

    def _abandon(self, backup_id: str) -> None:
        """Give the space back at once; what stays goes with the next backup."""
        with contextlib.suppress(OpsError):
            if self.files.find(f"{backup_id}/{SUMS}") is not None:
                return  # what failed came after it was complete
            self.files.remove_tree(f"{PACKS}/{backup_id}")
            if self.folder is None:
                self.files.remove_tree(backup_id)

    def remove(self, backup_id: str) -> None:
        """Forget a backup: from the first moment on it is none, whatever happens then."""
        if self.folder is None:
            self.files.remove([f"{backup_id}/{SUMS}"])
            self.files.remove_tree(backup_id)
            return
        hidden = self.folder / f"{UNFINISHED}{backup_id}"
        with self._changing(hidden):
            (self.folder / backup_id).rename(hidden)
            shutil.rmtree(hidden)

    def sweep(self, backups: Collection[Backup]) -> list[File]:
        """Remove what belongs to no complete backup: leftovers, and packs that nobody needs.

        Args:
            backups: All that there are.

        Returns:
            The packs that went.
        """
        if self.folder is not None:
            for leftover in self.folder.glob(f"{UNFINISHED}*"):
                with self._changing(leftover):
                    shutil.rmtree(leftover)
        if self.folder is None:
            complete = {backup.id for backup in backups}
            for name in self.files.folders():
                if is_id(name) and name not in complete:
                    self.files.remove_tree(name)
        gone = self.strays(backups)
        self.files.remove([file.path for file in gone])
        if self.folder is not None:
            for path in (self.folder / PACKS).glob("*/"):
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()
        return gone

    def strays(self, backups: Collection[Backup]) -> list[File]:
        """The packs that none of some backups needs; none when nobody can tell."""
        manifests = [backup.manifest for backup in backups]
        needed = {
            f"{PACKS}/{pack.file}" for manifest in manifests if manifest for pack in manifest.packs
        }
        if None in manifests:
            return []
        return [file for file in self.packs() if file.path not in needed]

    @contextmanager
    def _changing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise explain(self.shown, os.fspath(path), err, writes=True) from None
