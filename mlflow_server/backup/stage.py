"""A backup that is being made: hidden until it is complete."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow_server.artifacts.files import Files
from mlflow_server.backup.names import PACKS, SUMS, render_sums, sha256
from mlflow_server.errors import UnavailableError
from mlflow_server.store.sqlite_file import sync_path

_SYNCED_TOGETHER = 16


class Stage:
    """A backup that is being made.

    Args:
        files: The place where it will be.
        shown: Its name, for messages.
        root: The same place as a folder of a local disk, if it is one.
        backup_id: What the backup is called.
        folder: Where its files are written: what has been kept is no longer there.
    """

    def __init__(
        self, files: Files, shown: str, root: Path | None, backup_id: str, folder: Path
    ) -> None:
        self._files = files
        self._shown = shown
        self._root = root
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
        if self._root is None:
            self._keep(self.folder / name, f"{self._id}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Make a small file of the backup."""
        (self.folder / name).write_bytes(content)
        self.keep(name, sha256(content))

    def require_packs(self, packs: Iterable[tuple[str, int]]) -> None:
        """Raise unless all packs that the backup needs are there, whoever made them.

        Args:
            packs: Each with its size, bytes.

        Raises:
            UnavailableError: One is not.
        """
        there = {file.path: file.size_bytes for file in self._files.walk(PACKS)}
        for name, size_bytes in packs:
            if there.get(f"{PACKS}/{name}") != size_bytes:
                raise UnavailableError(
                    f"{self._shown}/{PACKS}/{name}: has gone or was changed while the backup "
                    "was made",
                    hint="try again; nobody else may change the backups meanwhile",
                )

    def publish(self) -> None:
        """Make it a backup, all of it in one step."""
        sums = render_sums(self._sums)
        if self._root is None:
            self._files.write(f"{self._id}/{SUMS}", sums)
            return
        (self.folder / SUMS).write_bytes(sums)
        # Together: a journal that is written takes what all of them have to be written.
        with ThreadPoolExecutor(_SYNCED_TOGETHER) as pool:
            list(pool.map(sync_path, self.folder.rglob("*")))
        sync_path(self.folder)
        sync_path(self._root / PACKS)
        self.folder.rename(self._root / self._id)
        sync_path(self._root)

    def _keep(self, path: Path, name: str) -> None:
        if self._root is None:
            with path.open("rb") as file:
                self._files.write(name, file, path.stat().st_size)
            path.unlink()
            return
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        sync_path(path)
        path.rename(target)
        sync_path(target.parent)
