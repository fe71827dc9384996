"""Collect artifacts in a second process while the tables are read.

Both take about as long, and each keeps one processor busy. The second process ends with the first
one, however that ends.
"""

import contextlib
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, BinaryIO, NoReturn, cast

from mlflow_server.artifacts.files import open_files
from mlflow_server.backup.artifacts import Artifacts, Counting, Outcome, Task
from mlflow_server.backup.shelf import Shelf
from mlflow_server.errors import ExitCode, OpsError
from mlflow_server.uris import ArtifactUri

_LOCATIONS_AT_ONCE = 1000
_PIPE_BYTES = 1024 * 1024
_TELL_EVERY_S = 0.1
_ENDS_WITHIN_S = 10.0


class Beside:
    """A process that collects artifacts, as the one that began it sees it.

    It begins at once and is ready when it is told what to do. Used once.

    Args:
        environ: Where credentials of object stores are.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            (sys.executable, "-P", "-m", __name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C is for the first process alone
        )
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)
        # So that nobody waits for it to be ready; who has no right to more does.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._locations: list[tuple[str, bool]] = []
        self._counted: tuple[int, int | None] = (0, None)
        self._ended: Outcome | Exception | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, if it is still at work: after what it is sending to an object store."""
        self._process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDS_WITHIN_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._thread.join()
            self._stdout.close()
            with contextlib.suppress(BrokenPipeError):  # what it has not read is of no use now
                self._stdin.close()

    def start(self, task: Task, place: ArtifactUri) -> None:
        """Say what to do.

        Args:
            task: That.
            place: Where backups are.
        """
        self._send((task, place))

    def note_location(self, location: str, *, is_container: bool) -> None:
        """Say that a row names a location; see `Notes`."""
        self._locations.append((location, is_container))
        if len(self._locations) >= _LOCATIONS_AT_ONCE:
            self._send(self._locations)
            self._locations = []

    def begin(self) -> None:
        """Say that all locations have been noted."""
        self._send(self._locations)
        self._send(None)

    def finish(self, progress: Counting) -> Outcome:
        """Wait for the end.

        Args:
            progress: Told how far it is, often.

        Raises:
            OpsError: A destination cannot be reached, or a disk is full.
            OSError: The folder of the backup cannot be written to.
        """
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

    def _send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # `finish` says why
            pickle.dump(message, self._stdin)
            self._stdin.flush()

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
    try:
        pickle.dump(ended, telling)
        telling.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody is told any more, not even by what Python does at its end


def _collect(told: BinaryIO, telling: BinaryIO) -> Outcome:
    task, place = pickle.load(told)  # noqa: S301 - our own
    files = open_files(place, os.environ, subject="TRACKING_SERVER_BACKUPS")
    artifacts = Artifacts(task, Shelf(files, place), os.environ)
    while (locations := pickle.load(told)) is not None:  # noqa: S301 - our own
        for location, is_container in locations:
            artifacts.note_location(location, is_container=is_container)
    threading.Thread(target=_end_with, args=(told.fileno(),), daemon=True).start()
    told_at, stopped = 0.0, False

    def stop(*_: object) -> NoReturn:
        nonlocal stopped
        stopped = True
        sys.exit(ExitCode.TERMINATED)

    def tell(done: int, total: int | None) -> None:
        nonlocal told_at
        if stopped:
            sys.exit(ExitCode.TERMINATED)
        if (now := time.monotonic()) - told_at > _TELL_EVERY_S:
            told_at = now
            pickle.dump((done, total), telling)
            telling.flush()

    # Not before: until here a signal may end it at once, as nothing was written.
    signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = _forget_the_end
    return artifacts.collect(tell)


def _forget_the_end(lost: "sys.UnraisableHookArgs") -> None:
    """Say nothing of an end that got lost in a finaliser: it comes with the next file."""
    if not isinstance(lost.exc_value, SystemExit):
        sys.__unraisablehook__(lost)


def _end_with(told: int) -> NoReturn:
    """End at once when the first process has ended: nothing more is told by it."""
    os.read(told, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
