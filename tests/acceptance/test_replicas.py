"""Several servers on one store: who fills it when it is empty, and what a kill half way leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.programs import Server, http, serve

API = "/api/2.0/mlflow"
REPLICAS = 4
# Counts every completed CREATE TABLE of `experiments`, also one that is rolled back later:
# sequences know no transactions. MLflow and our server take no interest in the schema `watch`.
_WATCH = """
CREATE SCHEMA watch;
CREATE SEQUENCE watch.created;
CREATE FUNCTION watch.note() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM nextval('watch.created') FROM pg_event_trigger_ddl_commands()
    WHERE object_identity = 'public.experiments';
END $$;
CREATE EVENT TRIGGER watch_created ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
  EXECUTE FUNCTION watch.note();
"""


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Wait for a state, looking every few milliseconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout} s: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def replicas(folder: Path, environment: dict[str, str]) -> Iterator[list[Server]]:
    """Start servers at once and wait until all are ready."""
    environment = {**environment, "MLFLOW_WORKERS": "1"}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(serve(folder / str(number), environment=environment, wait=False))
            for number in range(REPLICAS)
        ]
        for server in servers:
            server.wait_ready()
        yield servers


def experiment_names(server: Server) -> list[str]:
    """The experiments that a server knows, deleted ones included."""
    answer = http(
        f"{server.url}{API}/experiments/search",
        method="POST",
        body=b'{"max_results": 100, "view_type": "ALL"}',
        headers={"Content-Type": "application/json"},
    )
    return [each["name"] for each in answer.json()["experiments"]]  # type: ignore[attr-defined]


@pytest.mark.xdist_group("replicas-postgresql")
class TestOnEmptyPostgresql:
    def test_exactly_one_of_four_initialises_and_all_come_up(
        self, tmp_path: Path, database_uri: str
    ) -> None:
        with psycopg.connect(database_uri, autocommit=True) as connection:
            connection.execute(_WATCH)
        with replicas(tmp_path, {"MLFLOW_BACKEND_STORE_URI": database_uri}) as servers:
            assert [experiment_names(server) for server in servers] == [["Default"]] * REPLICAS
            for server in servers:
                assert " ERROR " not in server.log, server.log
        with psycopg.connect(database_uri) as connection:
            created = connection.execute("SELECT last_value, is_called FROM watch.created")
            assert created.fetchone() == (1, True)

    @pytest.mark.parametrize("whole_group", [True, False], ids=["all of it", "supervisor only"])
    def test_next_start_works_after_a_kill_while_initialising(
        self, tmp_path: Path, database_uri: str, whole_group: bool
    ) -> None:
        environment = {"MLFLOW_BACKEND_STORE_URI": database_uri}
        with serve(tmp_path / "killed", environment=environment, wait=False) as server:
            wait_until(lambda: is_creating(database_uri), "tables are being made")
            if whole_group:
                os.killpg(server.process.pid, signal.SIGKILL)
            else:
                os.kill(server.process.pid, signal.SIGKILL)
            assert server.process.wait(10) == -signal.SIGKILL
            # The next one starts while the orphan, if any, is still at work.
            with serve(tmp_path / "next", environment=environment) as following:
                assert experiment_names(following) == ["Default"]
            assert server.wait_gone(30) == []


def is_creating(uri: str) -> bool:
    """True while a transaction of another connection holds locks on tables of its own making."""
    with psycopg.connect(uri) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND l.mode = 'AccessExclusiveLock'"
            " AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()"
        ).fetchone()
    return bool(row and row[0])


class Watch:
    """Looks at a file again and again and remembers which ones it was.

    A file that is replaced gets another inode; the one that was there before lives on in the
    servers that opened it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.inodes: list[int] = []

    def _look(self) -> None:
        while not self._end.wait(0.001):
            with contextlib.suppress(OSError):
                found = self._path.stat()
                if found.st_size and found.st_ino not in self.inodes[-1:]:
                    self.inodes.append(found.st_ino)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()


@pytest.mark.xdist_group("replicas-sqlite")
class TestOnEmptySqlite:
    @pytest.mark.parametrize("exists", [False, True], ids=["missing file", "file without bytes"])
    def test_exactly_one_of_four_initialises_and_all_come_up(
        self, tmp_path: Path, exists: bool
    ) -> None:
        database = tmp_path / "shared" / "store.sqlite"
        database.parent.mkdir()
        if exists:
            database.touch()
        environment = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{database}"}
        with Watch(database) as watch, replicas(tmp_path, environment) as servers:
            assert [experiment_names(server) for server in servers] == [["Default"]] * REPLICAS
            for server in servers:
                assert " ERROR " not in server.log, server.log
        assert len(watch.inodes) == 1, "the file was put in place once"

    def test_next_start_works_after_a_kill_while_initialising(self, tmp_path: Path) -> None:
        database = tmp_path / "shared" / "store.sqlite"
        environment = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{database}"}
        with serve(tmp_path / "killed", environment=environment, wait=False) as server:
            wait_until(lambda: list(database.parent.glob(".*")), "the file is being made")
            os.killpg(server.process.pid, signal.SIGKILL)
            assert server.process.wait(10) == -signal.SIGKILL
        assert not database.exists() or database.stat().st_size
        with serve(tmp_path / "next", environment=environment) as server:
            assert experiment_names(server) == ["Default"]
        assert [path.name for path in database.parent.glob("*.new*")] == []
        assert [path.name for path in database.parent.glob(".*.new*")] == []
