"""Start, watch and stop one tracking server; touches child processes and files of one folder."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from _stores import neutral_environment

REPOSITORY = Path(__file__).resolve().parent.parent
FIRST_CALL = "/api/2.0/mlflow/experiments/get?experiment_id=0"
POLL_START_S = 0.02
POLL_EXIT_S = 0.01
START_LIMIT_S = 180.0
EXIT_LIMIT_S = 60.0
SETTLE_LIMIT_S = 60.0
IDLE_CPU_SHARE = 0.1
"""A tree is idle while it uses less than this share of one processor..."""
IDLE_SECONDS = 2
"""... for so many seconds in a row."""
JOB_FOLDER_VARIABLE = "_MLFLOW_HUEY_STORAGE_PATH"
"""Names the folder that MLflow 3.17.2 makes in /dev/shm at every start and never removes."""


class ServerError(RuntimeError):
    """A server did not start, or ended by itself."""


@dataclass(frozen=True)
class Contender:
    """How one of the two servers is started.

    Attributes:
        name: "stock" or "ours".
        command: Argument list; {port}, {uri} and {artifacts} are filled in.
        variables: Additional environment; the same are filled in.
    """

    name: str
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()


def stock(python: str, artifacts: str = "{artifacts}") -> Contender:
    """`mlflow server` with no option that is not needed to point it at a store and a folder."""
    options = "--host 127.0.0.1 --port {port} --backend-store-uri {uri}"
    command = (python, "-m", "mlflow", "server", *options.split())
    return Contender("stock", (*command, "--artifacts-destination", artifacts))


def ours(python: str, command: Iterable[str] = ()) -> Contender:
    """`python -m mlflow_server serve` out of this repository, or another command in its place."""
    default = (python, "-m", "mlflow_server", "serve", "--host", "127.0.0.1", "--port", "{port}")
    return Contender(
        "ours",
        tuple(command) or (*default, "--workers", "4"),
        (
            ("PYTHONPATH", str(REPOSITORY)),
            ("MLFLOW_BACKEND_STORE_URI", "{uri}"),
            ("MLFLOW_ARTIFACTS_DESTINATION", "{artifacts}"),
        ),
    )


class Server:
    """One run of a contender on one store; leaving the context leaves no process behind.

    The server gets a session of its own. Its tree is the processes that descend from it or
    belong to that session, and those that once did and still live.
    """

    def __init__(
        self,
        contender: Contender,
        backend_store_uri: str,
        folder: Path,
        log_file: Path | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            contender: What to start.
            backend_store_uri: A store whose schema is at head.
            folder: Made at the start and removed at the end; working folder and artifacts.
            log_file: Gets what the server writes and stays; without it the log goes as well.
        """
        self.name = contender.name
        self.port = free_port()
        self.first_call_s = 0.0
        self._contender = contender
        self._folder = folder
        self._log_file = log_file or folder / "server.log"
        self._values = {
            "port": str(self.port),
            "uri": backend_store_uri,
            "artifacts": str(folder / "artifacts"),
        }
        self._root: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()
        self._job_folders: set[Path] = set()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def processes(self) -> list[psutil.Process]:
        """The living processes of the tree, in no order; zombies count as gone."""
        root = self._running_root()
        self._seen.update(session_processes(root.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(root.pid).children(recursive=True))
        return [process for process in self._seen if is_alive(process)]

    def pss_bytes(self) -> int:
        """Proportional set size of the whole tree: shared pages count once over all sharers."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def wait_until_idle(self) -> None:
        """Wait until the tree neither changes nor computes, `SETTLE_LIMIT_S` at most."""
        limit = time.monotonic() + SETTLE_LIMIT_S
        quiet = 0
        before = self._cpu_seconds()
        while quiet < IDLE_SECONDS and time.monotonic() < limit:
            time.sleep(1)
            after = self._cpu_seconds()
            same_tree = before.keys() == after.keys()
            used = sum(after.values()) - sum(before.values())
            quiet = quiet + 1 if same_tree and used < IDLE_CPU_SHARE else 0
            before = after

    def terminate(self) -> float:
        """Send SIGTERM to the process that was started.

        Returns:
            Seconds until no process of the tree lives.

        Raises:
            ServerError: Some live after `EXIT_LIMIT_S`.
        """
        root = self._running_root()
        self._note_job_folders()
        started = time.perf_counter()
        root.send_signal(signal.SIGTERM)
        while True:
            root.poll()  # reaps it; init reaps the others
            alive = self.processes()
            elapsed = time.perf_counter() - started
            if not alive:
                return elapsed
            if elapsed > EXIT_LIMIT_S:
                raise ServerError(f"{self.name}: {len(alive)} processes ignore SIGTERM")
            time.sleep(POLL_EXIT_S)

    def kill(self) -> None:
        """Kill what is left of the tree and remove the folder; may be called again."""
        if self._root is None:
            return
        self._note_job_folders()
        while alive := self.processes():
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._root.poll()
            time.sleep(POLL_EXIT_S)
        self._root.wait()
        for folder in (self._folder, *self._job_folders):
            shutil.rmtree(folder, ignore_errors=True)

    def log_tail(self, line_count: int = 20) -> str:
        """The end of what the server wrote to stdout and stderr."""
        text = self._log_file.read_text(errors="replace")
        return "\n".join(text.splitlines()[-line_count:])

    def _start(self) -> None:
        """Start and wait for the first successful API call; sets `first_call_s`."""
        work = self._folder / "cwd"
        work.mkdir(parents=True)
        command = [part.format(**self._values) for part in self._contender.command]
        variables = {
            name: value.format(**self._values) for name, value in self._contender.variables
        }
        with self._log_file.open("wb") as log:
            started = time.perf_counter()
            self._root = subprocess.Popen(
                command,
                cwd=work,
                env=neutral_environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not api_answers(self.port):
            elapsed = time.perf_counter() - started
            if self._root.poll() is not None or elapsed > START_LIMIT_S:
                what = "ended" if self._root.returncode is not None else "does not answer"
                raise ServerError(f"{self.name} {what} after {elapsed:.1f} s\n{self.log_tail()}")
            time.sleep(POLL_START_S)
        self.first_call_s = time.perf_counter() - started

    def _running_root(self) -> subprocess.Popen[bytes]:
        if self._root is None:
            raise ServerError(f"{self.name} is not started")
        return self._root

    def _cpu_seconds(self) -> dict[int, float]:
        """Processor seconds used so far, by process id."""
        seconds = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[process.pid] = times.user + times.system
        return seconds

    def _note_job_folders(self) -> None:
        """Remember the folders to remove; only the environment of living processes names them."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if folder := process.environ().get(JOB_FOLDER_VARIABLE):
                    self._job_folders.add(Path(folder))


def api_answers(port: int) -> bool:
    """Whether an API call on a fresh connection gives 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", FIRST_CALL)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def session_processes(session_id: int) -> Iterator[psutil.Process]:
    """The processes of a session, living or zombie."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == session_id:
                yield psutil.Process(pid)


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process (not a later one of the same id) exists and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
