"""Start, stop and kill: what an operator's signals and accidents do to the server.

Every server runs in a session of its own, so that a process left behind cannot be missed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import psutil
import psycopg
import pytest

from mlflow_server.store.revision import head_revision
from tests.conftest import Postgres
from tests.support.programs import REPOSITORY, Server, free_port, http, serve

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
API = "/api/2.0/mlflow"
RUNTIME_FOLDERS = "mlflow-server-run-*"
# Idle, or while starting: nothing to wait for but the end of a few processes on a busy machine.
PROMPT_S = 10.0


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Wait for a state, looking every few milliseconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout} s: {what}")
        time.sleep(0.01)


def assert_clean_end(server: Server, code: int, *, within_s: float, since: float) -> None:
    """The server ended as it should: in time, with code 0, all of it, without a traceback."""
    took = time.monotonic() - since
    assert server.wait_gone(5) == [], f"left behind:\n{server.log}"
    assert code == 0, server.log
    assert "Traceback" not in server.log
    assert took < within_s, f"took {took:.1f} s:\n{server.log}"


def stop_and_check(server: Server, sig: signal.Signals = signal.SIGTERM) -> None:
    """Stop a server with nothing to do; it ends promptly and cleanly."""
    since = time.monotonic()
    assert_clean_end(server, server.stop(sig), within_s=PROMPT_S, since=since)


def catches_sigterm(pid: int) -> bool:
    """True when a process has a handler for SIGTERM."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.M)[1], 16)  # type: ignore[index]
        return bool(caught >> (signal.SIGTERM - 1) & 1)
    return False


def sockets_of(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    return {name for name in open_files(pid) if name.startswith("socket:")}


def open_files(pid: int) -> list[str]:
    """Where the file descriptors of a process lead."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return found


def listening_sockets(port: int) -> set[str]:
    """Inodes of the TCP sockets that listen on a port of this machine."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found


def is_free(port: int) -> bool:
    """True when the port can be bound without SO_REUSEADDR tricks of a listener."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
            trial.listen(1)
        except OSError:
            return False
    return True


def is_empty_or_complete(connection: psycopg.Connection) -> bool:
    """True when a database has no table, or all of them."""
    tables = {
        row[0]
        for row in connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    }
    if "alembic_version" not in tables:
        return not tables
    revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return revisions == [(head_revision(),)]


def other_sessions(uri: str) -> list[str]:
    """The names of the other connections to a database."""
    with psycopg.connect(uri) as connection:
        rows = connection.execute(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return [row[0] for row in rows]


class Upload:
    """A PUT of an artifact, sent piece by piece on a connection of its own."""

    def __init__(self, server: Server, path: str, size: int) -> None:
        self._folder = server.folder / "data/mlflow/standalone/artifacts"
        self._path = path
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._socket.sendall(
            f"PUT {ARTIFACTS}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Content-Length: {size}\r\n\r\n".encode()
        )

    def send(self, piece: bytes) -> None:
        """Send a part of the body."""
        self._socket.sendall(piece)

    def files(self) -> list[Path]:
        """What lies at the destination: the file, or its beginning under another name."""
        return [path for path in self._folder.rglob("*") if path.is_file()]

    def has_begun(self) -> bool:
        """True when a part has reached the destination."""
        return any(path.stat().st_size for path in self.files())

    def status(self) -> int:
        """The status of the answer; 0 when the connection was cut."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in received:
                piece = self._socket.recv(4096)
                if not piece:
                    break
                received += piece
        return int(received.split()[1]) if received else 0

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextlib.contextmanager
def upload(server: Server, path: str, size: int) -> Iterator[Upload]:
    """Begin an upload and wait until a worker has taken it up."""
    upload = Upload(server, path, size)
    try:
        upload.send(b"x" * 1_000_000)
        wait_until(upload.has_begun, "the upload has begun")
        yield upload
    finally:
        upload.close()


@pytest.mark.xdist_group("lifecycle-idle")
class TestIdle:
    """Nothing is going on; the signal ends the server at once."""

    def test_sigterm_ends_everything(self, tmp_path: Path) -> None:
        with serve(tmp_path / "server") as server:
            wait_until(lambda: len(server.pids()) == 3, "supervisor and two workers")
            stop_and_check(server, signal.SIGTERM)
            assert is_free(server.port)

    # Ctrl-C, Ctrl-backslash, a terminal that is closed.
    @pytest.mark.parametrize(
        "sig", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP], ids=lambda sig: sig.name
    )
    def test_signals_of_a_terminal_end_everything(
        self, tmp_path: Path, sig: signal.Signals
    ) -> None:
        with serve(tmp_path / "server") as server:
            stop_and_check(server, sig)

    def test_ctrl_c_in_a_terminal_reaches_the_whole_group_and_ends_everything(
        self, tmp_path: Path
    ) -> None:
        with serve(tmp_path / "server") as server:
            since = time.monotonic()
            os.killpg(server.process.pid, signal.SIGINT)
            code = server.process.wait(60)
            assert_clean_end(server, code, within_s=PROMPT_S, since=since)


@pytest.mark.xdist_group("lifecycle-start-sqlite")
class TestStoppedWhileStarting:
    """A platform that changes its mind; the moments count from when signals are handled."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("starting") / "server"

    @pytest.mark.parametrize(
        ("sig", "delay_s"),
        [
            (signal.SIGTERM, 0.0),
            (signal.SIGTERM, 0.2),
            (signal.SIGTERM, 0.7),
            (signal.SIGINT, 1.5),
            (signal.SIGTERM, 2.5),
            (signal.SIGTERM, 3.2),
            (signal.SIGTERM, 4.0),
        ],
        ids=lambda value: getattr(value, "name", str(value)),
    )
    def test_ends_clean(self, folder: Path, sig: signal.Signals, delay_s: float) -> None:
        with serve(folder, wait=False) as server:
            wait_until(lambda: catches_sigterm(server.process.pid), "signals are handled", 20)
            time.sleep(delay_s)
            stop_and_check(server, sig)

    def test_next_start_works(self, folder: Path) -> None:
        with serve(folder) as server:
            assert http(f"{server.url}{API}/experiments/get?experiment_id=0").status == 200


@pytest.mark.xdist_group("lifecycle-start-postgresql")
class TestStoppedWhileInitialising:
    """PostgreSQL is being filled with tables."""

    @pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.3, 0.8])
    def test_ends_clean_and_leaves_all_or_nothing(
        self, tmp_path: Path, database_uri: str, delay_s: float
    ) -> None:
        environment = {"MLFLOW_BACKEND_STORE_URI": database_uri}
        with serve(tmp_path / "server", environment=environment, wait=False) as server:
            wait_until(lambda: "initialising" in server.log, "it initialises")
            time.sleep(delay_s)
            stop_and_check(server)
        wait_until(lambda: other_sessions(database_uri) == [], "its connections are gone", 10)
        with psycopg.connect(database_uri) as connection:
            assert is_empty_or_complete(connection)

    def test_next_start_works(self, tmp_path: Path, database_uri: str) -> None:
        environment = {"MLFLOW_BACKEND_STORE_URI": database_uri}
        with serve(tmp_path / "server", environment=environment, wait=False) as server:
            wait_until(lambda: "initialising" in server.log, "it initialises")
            wait_until(lambda: other_sessions(database_uri), "the database is at work")
            stop_and_check(server)
        with serve(tmp_path / "server", environment=environment) as server:
            assert http(f"{server.url}{API}/experiments/get?experiment_id=0").status == 200


@pytest.mark.xdist_group("lifecycle-upload")
class TestStoppedWhileUploading:
    """Requests in flight get their grace, and no more."""

    def test_upload_that_ends_within_the_grace_is_complete(self, tmp_path: Path) -> None:
        with (
            serve(tmp_path / "server") as server,
            upload(server, "big.bin", 3_000_000) as put,
        ):
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: is_free(server.port), "nothing listens any more")
            for _ in range(4):
                time.sleep(0.5)
                put.send(b"x" * 500_000)
            since = time.monotonic()
            assert put.status() == 200
            assert [file.name for file in put.files()] == ["big.bin"]
            assert put.files()[0].read_bytes() == b"x" * 3_000_000
            assert_clean_end(server, server.process.wait(60), within_s=PROMPT_S, since=since)

    def test_upload_without_end_is_cut_after_the_grace(self, tmp_path: Path) -> None:
        with (
            serve(tmp_path / "server", "--graceful-timeout", "1s") as server,
            upload(server, "endless.bin", 10**9) as put,
        ):
            since = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
            assert time.monotonic() - since < 8
            assert server.wait_gone(5) == []
            assert put.status() != 200
            assert [file for file in put.files() if file.name == "endless.bin"] == []

    def test_cut_upload_leaves_no_partial_file(self, tmp_path: Path) -> None:
        with (
            serve(tmp_path / "server", "--graceful-timeout", "1s") as server,
            upload(server, "endless.bin", 10**9) as put,
        ):
            server.stop()
            assert put.files() == []

    @pytest.mark.parametrize(
        "sig", [signal.SIGTERM, signal.SIGINT], ids=["twice SIGTERM", "twice SIGINT"]
    )
    def test_second_signal_does_no_harm(self, tmp_path: Path, sig: signal.Signals) -> None:
        with (
            serve(tmp_path / "server", "--graceful-timeout", "3s") as server,
            upload(server, "endless.bin", 10**9),
        ):
            since = time.monotonic()
            server.process.send_signal(sig)
            time.sleep(1)
            assert server.stop(sig) == 0
            assert time.monotonic() - since < PROMPT_S
            assert server.wait_gone(5) == []


class Load:
    """Client threads that log metrics and repeat what failed, as MLflow's client does.

    Args:
        server: Where to.
        run_id: The run that gets the metrics.
        threads: How many; each logs a metric of its own, values counting up from 0.
    """

    def __init__(self, server: Server, run_id: str, threads: int = 8) -> None:
        self._url = f"{server.url}{API}/runs/log-metric"
        self._run_id = run_id
        self._end = threading.Event()
        self.logged: dict[str, int] = {f"m{number}": 0 for number in range(threads)}
        self.successes: list[float] = []
        self.retries = 0
        self._threads = [threading.Thread(target=self._log, args=(key,)) for key in self.logged]

    def _log(self, key: str) -> None:
        while not self._end.is_set():
            value = self.logged[key]
            metric = {"key": key, "value": value, "step": value, "timestamp": 1_700_000_000_000}
            body = json.dumps({"run_id": self._run_id, **metric}).encode()
            try:
                status = http(
                    self._url, method="POST", body=body, timeout=10,
                    headers={"Content-Type": "application/json"},
                ).status  # fmt: skip
            except (OSError, HTTPException):
                status = 0
            if status == 200:
                self.logged[key] = value + 1
                self.successes.append(time.monotonic())
            else:
                self.retries += 1
                time.sleep(0.05)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for_more(self, count: int) -> None:
        """Wait until that many more metrics have been logged."""
        enough = len(self.successes) + count
        wait_until(lambda: len(self.successes) >= enough, "metrics are logged")

    def longest_silence(self) -> float:
        """The longest time in which no client had success, seconds."""
        times = sorted(self.successes)
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def create_run(server: Server) -> str:
    """A new run of the experiment `Default`."""
    answer = http(
        f"{server.url}{API}/runs/create",
        method="POST",
        body=b'{"experiment_id": "0"}',
        headers={"Content-Type": "application/json"},
    )
    run_id: str = answer.json()["run"]["info"]["run_id"]  # type: ignore[index]
    return run_id


def history(server: Server, run_id: str, key: str) -> set[int]:
    """The values that a metric of a run has had."""
    found: set[int] = set()
    token = ""
    while True:
        answer = http(
            f"{server.url}{API}/metrics/get-history?run_id={run_id}&metric_key={key}"
            f"&max_results=5000&page_token={token}"
        ).json()
        found |= {int(point["value"]) for point in answer.get("metrics", [])}  # type: ignore[attr-defined]
        token = str(answer.get("next_page_token") or "")
        if not token:
            return found


def is_replaced(server: Server, victim: int) -> bool:
    """True when that worker is gone and there are two all the same."""
    pids = server.pids()
    return victim not in pids and len(pids) == 3


class Running:
    """A server with two workers, and what must hold for it on either database."""

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls) -> dict[str, str]:
        return {}

    @pytest.fixture(scope="class")
    @classmethod
    def server(
        cls, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Server]:
        folder = tmp_path_factory.mktemp("running") / "server"
        with serve(folder, "-v", environment=environment) as server:
            # Ready is the server when one worker is; uvicorn (-v) says it for each.
            wait_until(lambda: server.log.count("startup complete") == 2, "both workers are up")
            yield server

    def test_exactly_one_thread_exists_at_the_fork(self, server: Server) -> None:
        assert "imported in" in server.log, "-v shows debug lines"
        assert "threads at the time of a fork" not in server.log

    def test_no_socket_is_shared_but_the_listening_one(self, server: Server) -> None:
        for _ in range(20):
            http(f"{server.url}{API}/experiments/search?max_results=1")
        supervisor, *workers = server.pids()
        listening = listening_sockets(server.port)
        assert len(listening) == 1
        own = {pid: sockets_of(pid) - listening for pid in workers}
        assert all(own.values()), "each worker has an event loop or database connection"
        assert own[workers[0]] & own[workers[1]] == set()
        assert sockets_of(supervisor) - listening == set()

    def test_killed_worker_is_replaced_and_no_successful_write_is_lost(
        self, server: Server
    ) -> None:
        run_id = create_run(server)
        _, *before = server.pids()
        with Load(server, run_id) as load:
            for victim in before:
                load.wait_for_more(50)
                os.kill(victim, signal.SIGKILL)
                wait_until(functools.partial(is_replaced, server, victim), "a new worker is there")
            load.wait_for_more(50)
        assert not set(before) & set(server.pids())
        assert load.longest_silence() < 5
        for key, count in load.logged.items():
            assert set(range(count)) <= history(server, run_id, key)
        server.wait_ready(20)


@pytest.mark.xdist_group("lifecycle-running-sqlite")
class TestRunningOnSqlite(Running):
    def test_supervisor_has_no_database_file_open(self, server: Server) -> None:
        supervisor, *workers = server.pids()
        assert any("mydb.sqlite" in name for pid in workers for name in open_files(pid))
        assert [name for name in open_files(supervisor) if "sqlite" in name] == []


@pytest.mark.xdist_group("lifecycle-running-postgresql")
class TestRunningOnPostgresql(Running):
    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls, postgres: Postgres) -> dict[str, str]:
        return {"MLFLOW_BACKEND_STORE_URI": postgres.new_database()}


@pytest.mark.xdist_group("lifecycle-killed")
def test_killed_supervisor_takes_its_workers_along_and_the_next_start_tidies_up(
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    port = free_port()
    with serve(tmp_path / "server", "--metrics", environment=environment, port=port) as server:
        (stale,) = temporary.glob(RUNTIME_FOLDERS)
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.process.wait(10) == -signal.SIGKILL
        assert server.wait_gone(PROMPT_S) == []
        assert is_free(port)
    with serve(tmp_path / "server", "--metrics", environment=environment, port=port) as server:
        (current,) = temporary.glob(RUNTIME_FOLDERS)
        assert current != stale
        stop_and_check(server)
        assert list(temporary.iterdir()) == []


# Imported by every Python of the server; reaches only the workers, whose stores are opened in a
# thread of their event loop and not in the main thread.
_SABOTAGE = """
import importlib.util, os, signal, sys, threading

class Saboteur:
    def find_spec(self, name, path=None, target=None):
        if name != "mlflow.server.handlers":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run_module = spec.loader.exec_module
        def exec_module(module):
            run_module(module)
            real = module.initialize_backend_stores
            def initialize_backend_stores(*args, **kwargs):
                if threading.current_thread() is threading.main_thread():
                    return real(*args, **kwargs)
                ACTION
            module.initialize_backend_stores = initialize_backend_stores
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Saboteur())
"""


@pytest.mark.xdist_group("lifecycle-sabotage")
class TestWorkersThatCannotStart:
    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[[str], Server]]:
        """Start a server whose workers do something else than to open the stores."""
        with contextlib.ExitStack() as stack:

            def start(action: str) -> Server:
                (tmp_path / "sitecustomize.py").write_text(_SABOTAGE.replace("ACTION", action))
                environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
                context = serve(tmp_path / "server", "-v", environment=environment, wait=False)
                return stack.enter_context(context)

            yield start

    def test_error_of_a_worker_ends_the_server(self, start: Callable[[str], Server]) -> None:
        server = start('raise RuntimeError("the planted failure")')
        assert server.process.wait(60) == 70
        assert server.wait_gone(5) == []
        assert "the planted failure" in server.log
        assert "Error: the workers cannot start" in server.log
        assert server.log.count("Booting worker") <= 2

    def test_workers_that_die_at_once_end_the_server(self, start: Callable[[str], Server]) -> None:
        server = start("os.kill(os.getpid(), signal.SIGKILL)")
        assert server.process.wait(60) == 70
        assert server.wait_gone(5) == []
        assert "Error: the workers cannot start" in server.log
        assert server.log.count("Booting worker") <= 12


@pytest.mark.xdist_group("lifecycle-jobs")
@pytest.mark.timeout(300)
def test_job_execution_starts_and_ends_with_the_server(tmp_path: Path) -> None:
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}
    with serve(tmp_path / "server", environment=environment) as server:
        supervisor = psutil.Process(server.process.pid)
        wait_until(lambda: len(consumers(supervisor)) >= 3, "job consumers run", 120)
        everything = [supervisor, *supervisor.children(recursive=True)]
        storage = Path(consumers(supervisor)[0].environ()["_MLFLOW_HUEY_STORAGE_PATH"])
        assert storage.is_dir()
        assert "threads at the time of a fork" not in server.log
        assert [name for name in open_files(server.process.pid) if "sqlite" in name] == []
        since = time.monotonic()
        code = server.stop()
        _, alive = psutil.wait_procs(everything, timeout=5)
        assert alive == []
        assert not storage.exists()
        assert_clean_end(server, code, within_s=PROMPT_S, since=since)


def consumers(supervisor: psutil.Process) -> list[psutil.Process]:
    """The processes of MLflow's job runner that wait for jobs."""
    found = []
    for child in supervisor.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("huey_consumer" in word for word in child.cmdline()):
                found.append(child)
    return found
