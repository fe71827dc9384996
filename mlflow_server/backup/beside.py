"""Collect artifacts in a second process while the tables are read.

Both take about as long, and each keeps one processor busy. The second process is begun when it is
worth while, and ends with the first one, however that ends.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, BinaryIO, NoReturn, cast

from mlflow_server.artifacts.files import open_files
from mlflow_server.backup.artifacts import Artifacts, Counting, Outcome, Task
from mlflow_server.backup.shelf import Shelf
from mlflow_server.errors import OpsError

# Fewer locations are gone through in less time than a process takes to begin.
WORTH_LOCATIONS = 500
_LOCATIONS_AT_ONCE = 1000
_TELL_EVERY_S = 0.1


class Gathering:
    """Collects the artifacts of one backup, here or in a second process.

    Args:
        task: What to do.
        shelf: Where backups are.
        environ: Where credentials of object stores are.
    """

    def __init__(self, task: Task, shelf: Shelf, environ: Mapping[str, str]) -> None:
        self._task = task
        self._shelf = shelf
        self._environ = environ
        self._locations: list[tuple[str, bool]] = []
        self._process: _Process | None = None

    def close(self) -> None:
        """End what is still at work."""
        if self._process is not None:
            self._process.end()

    def note_location(self, location: str, *, is_container: bool) -> None:
        """Remember that a row names a location; see `Notes`."""
        self._locations.append((location, is_container))
        if self._process is None:
            if len(self._locations) >= WORTH_LOCATIONS and self._task.folder is not None:
                self._process = _Process(self._task, self._shelf, self._environ)
        elif len(self._locations) >= _LOCATIONS_AT_ONCE:
            self._tell()

    def begin(self) -> None:
        """All locations have been noted."""
        if self._process is not None:
            self._tell()
            self._process.send(None)

    def finish(self, progress: Counting) -> Outcome:
        """Wait for the end.

        Args:
            progress: Told how far it is, often.

        Raises:
            OpsError: A destination cannot be reached, or a disk is full.
            OSError: The folder of the backup cannot be written to.
        """
        if self._process is not None:
            return self._process.finish(progress)
        artifacts = Artifacts(self._task, self._shelf, self._environ)
        try:
            _note_all(artifacts, self._locations)
            return artifacts.collect(progress)
        finally:
            artifacts.close()

    def _tell(self) -> None:
        if self._process is not None:
            self._process.send(self._locations)
            self._locations = []


class _Process:
    """The second process, as the first one sees it."""

    def __init__(self, task: Task, shelf: Shelf, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            (sys.executable, "-P", "-m", __name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C is for the first process alone
        )
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)
        self._counted: tuple[int, int | None] = (0, None)
        self._ended: Outcome | Exception | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.send((task, shelf.uri))

    def send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # `finish` says why
            pickle.dump(message, self._stdin)
            self._stdin.flush()

    def finish(self, progress: Counting) -> Outcome:
        while self._thread.is_alive():
            self._thread.join(_TELL_EVERY_S)
            progress(*self._counted)
        if isinstance(self._ended, Outcome):
            return self._ended
        if self._ended is not None:
            raise self._ended
        raise OpsError(
            "the process that collects the artifacts has ended before its work "
            f"({_status(self._process.wait())})",
            hint="try again; when it was killed, the memory may have been too small",
        )

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what it has not read is of no use any more
            self._stdin.close()

    def _listen(self) -> None:
        while self._ended is None:
            try:
                message = pickle.load(self._stdout)  # noqa: S301 - our own
            except (EOFError, pickle.UnpicklingError, OSError, ValueError):
                return
            if isinstance(message, tuple):
                self._counted = message
            else:
                self._ended = message


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _note_all(artifacts: Artifacts, locations: list[tuple[str, bool]]) -> None:
    for location, is_container in locations:
        artifacts.note_location(location, is_container=is_container)


# --- The second process --------------------------------------------------------------------------


def main() -> None:
    """Do what the first process tells on standard input, and tell it on standard output."""
    told, telling = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no message
    try:
        ended: object = _collect(told, telling)
    except EOFError:
        return  # the first process is gone
    except Exception as err:
        ended = err
    pickle.dump(ended, telling)
    telling.flush()


def _collect(told: BinaryIO, telling: BinaryIO) -> Outcome:
    task, uri = pickle.load(told)  # noqa: S301 - our own
    files = open_files(uri, os.environ, subject="TRACKING_SERVER_BACKUPS")
    artifacts = Artifacts(task, Shelf(files, uri), os.environ)
    while (locations := pickle.load(told)) is not None:  # noqa: S301 - our own
        _note_all(artifacts, locations)
    threading.Thread(target=_end_with, args=(told.fileno(),), daemon=True).start()
    told_at = 0.0

    def tell(done: int, total: int | None) -> None:
        nonlocal told_at
        if (now := time.monotonic()) - told_at > _TELL_EVERY_S:
            told_at = now
            pickle.dump((done, total), telling)
            telling.flush()

    return artifacts.collect(tell)


def _end_with(told: int) -> NoReturn:
    """End at once when the first process has ended: nothing more is told by it."""
    os.read(told, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
