"""Folders that commands run in, and what has become of them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import forks
from tests.support.programs import clean_environment, run_cli

# In front of a command line: root stays the owner of its files, but what their mode forbids is
# forbidden. Another user could not even enter the folders that Python is installed in.
WITHOUT_POWERS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder by relative path: kind, mode, and of files all bytes and times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (
            (status.st_mode, status.st_uid, _digest(path), status.st_mtime_ns)
            if path.is_file() and not path.is_symlink()
            else (status.st_mode, status.st_uid)
        )
    return found


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except PermissionError:
        return "unreadable"


@dataclass(frozen=True)
class Place:
    """A folder to run commands in; HOME and TMPDIR are in it too, so that leftovers show.

    Args:
        root: Holds everything below.
        prefix: In front of every command line.
        as_user: Start the interpreter for every command, as people do; else see `forks`.
    """

    root: Path
    prefix: tuple[str, ...] = ()
    as_user: bool = False

    @classmethod
    def make(cls, root: Path, prefix: tuple[str, ...] = (), *, as_user: bool = False) -> Place:
        """Create the folders."""
        place = cls(root, prefix, as_user)
        for folder in (place.project, place.root / "home", place.root / "tmp"):
            folder.mkdir(parents=True)
        return place

    @property
    def project(self) -> Path:
        """Where commands run."""
        return self.root / "project"

    @property
    def store(self) -> Path:
        """Where a SQLite store would be."""
        return self.project / "store.sqlite"

    def run(
        self, *arguments: str, environment: Mapping[str, str], timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of ours here."""
        whole = {
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.store}",
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.project / "artifacts"),
            "TRACKING_SERVER_SECRETS_DIR": str(self.root / "no-secrets"),
            **environment,
        }
        if self.prefix or self.as_user:
            return run_cli(
                *arguments,
                cwd=self.project,
                environment=whole,
                timeout=timeout,
                prefix=self.prefix,
            )
        return forks.run(
            [sys.executable, "-m", "mlflow_server", *arguments],
            cwd=self.project,
            env=clean_environment(**whole),
            timeout=timeout,
        )
