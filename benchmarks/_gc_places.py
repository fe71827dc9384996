"""Where the artifacts of a seeded store lie on this machine; touches files below one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

FILE_SIZE = 1024
MEMORY_SYSTEMS = ("tmpfs", "ramfs")


class Place(Protocol):
    """A destination with the artifacts of runs."""

    @property
    def location(self) -> str:
        """What the rows of the store have in front of `/EXPERIMENT/RUN/artifacts`."""

    @property
    def destination(self) -> str:
        """The same as ours is told."""

    @property
    def variables(self) -> Mapping[str, str]:
        """What programs need to reach it."""

    def lay(self, experiment_id: str, run_ids: Iterable[str], files: int) -> None:
        """Make so many files of 1 KiB for each run."""

    def count(self) -> int:
        """How many files are there."""

    def clear(self) -> None:
        """Remove them all."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine.

    Attributes:
        root: Made when files are laid, and removed with them.
        is_behind_server: The rows name the server's artifact proxy instead of the folder.
    """

    root: Path
    is_behind_server: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def location(self) -> str:
        return "mlflow-artifacts:/" if self.is_behind_server else str(self.root)

    @property
    def destination(self) -> str:
        return str(self.root)

    def lay(self, experiment_id: str, run_ids: Iterable[str], files: int) -> None:
        self.root.mkdir()
        for run_id in run_ids:
            folder = self.root / experiment_id / run_id / "artifacts"
            folder.mkdir(parents=True)
            for number in range(files):
                (folder / f"file-{number}.bin").write_bytes(bytes(FILE_SIZE))

    def count(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self.root))

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def file_system(path: Path) -> str:
    """The kind of file system that an existing path is on, as Linux names it."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[at] for at in (path, *path.parents) if at in mounts), "unknown")


def find_disk(*candidates: Path) -> Path | None:
    """The first of these folders that is not in memory."""
    return next((path for path in candidates if file_system(path) not in MEMORY_SYSTEMS), None)
