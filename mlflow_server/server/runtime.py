"""A folder for the life of one server: its workers' metrics, the last artifact probe, job queues.

The folder's lock is held by the server, so that the next start can tell and remove what a killed
one left.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "mlflow-server-run-"
_LOCK_PREFIX = "mlflow-server-lock-"


class RuntimeFolder:
    """Made by the supervisor before it forks; the workers inherit the path.

    Args:
        base: Where to make it; the temporary folder by default.
    """

    def __init__(self, base: Path | None = None) -> None:
        base = base or Path(tempfile.gettempdir())
        _remove_stale(base)
        self._owner = os.getpid()
        # Locked before it gets its name: a start beside this one never finds it free.
        self._lock, name = tempfile.mkstemp(prefix=_LOCK_PREFIX, dir=base)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        Path(name).rename(self.path / "lock")

    @property
    def metrics(self) -> Path:
        """Where the workers keep their metrics."""
        folder = self.path / "metrics"
        folder.mkdir(exist_ok=True)
        return folder

    def remove(self) -> None:
        """Remove the folder; in a forked worker this does nothing."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)


def _remove_stale(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
