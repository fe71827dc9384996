"""One at a time adds or removes backups at a place: a lock on a local disk, a marker elsewhere."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from mlflow_server.artifacts.files import Files, LocalFiles, VanishedError
from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.backup.names import PACKS
from mlflow_server.errors import BusyError, OpsError

LOCK = f"{PACKS}/lock"
MARKER = f"{PACKS}/writing.json"
_RENEWED_EVERY_S = 60.0
_COUNTS_FOR_S = 600.0


class Turn(Protocol):
    """That it is ours to change the backups at a place."""

    def check(self) -> None:
        """Raise when it is not any more.

        Raises:
            BusyError: Somebody else is at it.
        """
        ...


@contextmanager
def taking_turn(files: Files, shown: str, command: str) -> Iterator[Turn]:
    """Keep others from adding or removing backups.

    Args:
        files: The place.
        shown: Its name, for messages.
        command: What is done, for whoever finds the place busy.

    Raises:
        BusyError: Somebody else is at it.
        OpsError: The place cannot be written to.
    """
    if isinstance(files, LocalFiles):
        with _locked(files.root, shown, command) as turn:
            yield turn
    else:
        with _Marking(files, shown, command) as turn:
            yield turn


def _busy(
    shown: str, holder: str, hint: str = "wait until it has ended, then try again"
) -> OpsError:
    return BusyError(f"{shown}: somebody else is changing the backups here: {holder}", hint=hint)


class _Lock:
    def check(self) -> None:
        """The system ends a lock with its holder only."""


@contextmanager
def _locked(folder: Path, shown: str, command: str) -> Iterator[Turn]:
    path = folder / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as err:
        raise explain(shown, str(path), err, writes=True) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _busy(shown, file.read(200).strip() or "another process") from None
        try:
            file.truncate(0)
            file.write(f"{command} on {socket.gethostname()}, process {os.getpid()}\n")
            file.flush()
        except OSError as err:
            raise explain(shown, str(path), err, writes=True) from None
        yield _Lock()


@dataclass(frozen=True)
class _Mark:
    """What the marker says.

    Args:
        by: Who is at it, for people.
        machine: Where its process number means something.
        process: That number.
        token: Of this turn alone.
        at_s: When it was renewed, seconds since the epoch.
    """

    by: str
    machine: str
    process: int
    token: str
    at_s: float

    def counts(self) -> bool:
        """Whether who made it may be at it still."""
        is_gone = self.machine == _machine() and not _is_running(self.process)
        return abs(time.time() - self.at_s) < _COUNTS_FOR_S and not is_gone


class _Marking:
    """Object stores have no locks: a marker that is renewed counts for ten minutes.

    Two that begin in the same moment may both find none. The one whose marker is overwritten
    notices by `check`.
    """

    def __init__(self, files: Files, shown: str, command: str) -> None:
        self._files = files
        self._shown = shown
        self._by = f"{command} on {socket.gethostname()}, process {os.getpid()}"
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, daemon=True)

    def __enter__(self) -> Turn:
        other = self._read()
        if other is not None and other.counts():
            raise self._busy(other)
        self._renew()
        self.check()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OpsError):
            if (mark := self._read()) is not None and mark.token == self._token:
                self._files.remove([MARKER])

    def check(self) -> None:
        """See `Turn`."""
        mark = self._read()
        if mark is not None and mark.token != self._token:
            raise self._busy(mark)

    def _keep_renewing(self) -> None:
        while not self._ended.wait(_RENEWED_EVERY_S):
            with contextlib.suppress(OpsError):  # the next one may go well
                self.check()
                self._renew()

    def _renew(self) -> None:
        mark = _Mark(self._by, _machine(), os.getpid(), self._token, time.time())
        self._files.write(MARKER, json.dumps(asdict(mark)).encode())

    def _read(self) -> _Mark | None:
        try:
            found = json.loads(self._files.read(MARKER))
            return _Mark(
                str(found["by"])[:200],
                str(found["machine"]),
                int(found["process"]),
                str(found["token"]),
                float(found["at_s"]),
            )
        except (VanishedError, ValueError, KeyError, TypeError, OverflowError):
            return None

    def _busy(self, other: _Mark) -> OpsError:
        minutes = round(_COUNTS_FOR_S / 60)
        return _busy(
            self._shown,
            other.by,
            f"wait until it has ended; when it was killed, for {minutes} minutes, or remove "
            f"{self._shown}/{MARKER}",
        )


def _machine() -> str:
    """Where a process number of ours means the same process: host, its start, its container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # it had the number that is ours now
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
